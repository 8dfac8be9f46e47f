"""TensorBoard: the record of a run as event files in the run folder's `tensorboard/`."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from fastrecipes.errors import RecipeError
from fastrecipes.record.feed import AXES, Numbered
from fastrecipes.record.folder import RunFolder

__all__ = ["TensorBoard"]


def _installed() -> bool:
    try:
        return find_spec("tensorboard") is not None
    except ValueError:  # it was taken out of sys.modules on purpose
        return False


class TensorBoard:
    """Scalars over step, epoch and stage, and the recipe as a text.

    A run that goes on writes its events anew from the record: TensorBoard would show doubled steps beside each other.
    Raises `RecipeError` where tensorboard is not installed.
    """

    name = "tensorboard"
    words = ("--tensorboard",)

    def __init__(self) -> None:
        if not _installed():
            raise RecipeError("--tensorboard: it is not installed; pip install 'fastrecipes[tensorboard]'")
        self._writer: Any = None

    def start(self, folder: RunFolder) -> int:
        """Begin anew, whatever an earlier process wrote."""
        from torch.utils.tensorboard import SummaryWriter

        place = folder.path / "tensorboard"
        shutil.rmtree(place, ignore_errors=True)
        self._writer, self._probes = SummaryWriter(str(place)), folder.probes
        text = folder.recipe.read_text(encoding="utf-8", errors="replace")
        self._writer.add_text("recipe", "    " + text.replace("\n", "\n    "))
        return 0

    def log(self, rows: Sequence[Numbered]) -> None:
        """Every value over the axis of its kind."""
        for _, row in rows:
            for name, value in row.items():
                kind, _, rest = name.partition("/")
                if rest and isinstance(value, (int, float)):
                    self._writer.add_scalar(name, value, row[AXES[kind]])
        self._writer.flush()

    def finish(self, code: int, count: int) -> None:
        """What the probes saw, as a text; then close the files."""
        if self._probes.is_file():
            self._writer.add_text("probes", "    " + self._probes.read_text(encoding="utf-8").replace("\n", "\n    "))
        self._writer.close()

    def state_dict(self) -> dict[str, Any]:
        """None: the files are written anew."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to take over."""
