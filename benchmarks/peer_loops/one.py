"""Run one peer in this process: python -m peer_loops.one NAME work.json result.json."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path

PEERS = {
    "fastai": "fastai_learner",
    "fastai_train_bn_false": "fastai_learner",
    "hand": "hand_loop",
    "timm": "timm_loop",
    "lightning": "lightning_fts",
}


def main() -> None:
    """Train as the peer does; what each stage took and reached is in the result file."""
    name, work_file, result = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    from peer_loops.work import Stopwatch, Work

    work = Work(**json.loads(work_file.read_text()))
    module = "fastai_progressive" if work.recipe == "progressive_resize" else PEERS[name]
    import_module(f"peer_loops.{module}").train(name, work, Stopwatch(result))


if __name__ == "__main__":
    main()
