"""Every shipped recipe: short, says its source, plans as expected, and trains an epoch of each stage."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import RECIPES, Told

Cli = Callable[..., Told]
PLANS = Path(__file__).parent / "plans"
NAMES = sorted(path.stem for path in RECIPES.glob("*.py"))
SMALL_BATCH = {"progressive_resize": 3}  # stages that name a batch size of their own


def small(name: str) -> list[str]:
    """Batches that 36 images fill."""
    own = [f"stages.{i}.bs=8" for i in range(SMALL_BATCH.get(name, 0))]
    return [word for text in ("bs=8", *own) for word in ("--set", text)]


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_short_and_says_where_it_is_from(name: str) -> None:
    """25 to 51 lines; one line first, then the command, the source and what was measured."""
    text = (RECIPES / f"{name}.py").read_text()
    assert 25 <= len(text.splitlines()) <= 51
    first, _, rest = text.partition("\n")
    assert first.startswith('"""')
    assert len(first) <= 123
    assert f"    fastrecipes run recipes/{name}.py --data " in rest
    assert "\nSource: " in rest
    assert "\nMeasured" in rest


@pytest.mark.parametrize("name", NAMES)
def test_its_plan_is_as_expected(name: str, cli: Cli, shapes: Path) -> None:
    """Every number, kept as text in tests/plans; WRITE_PLANS=1 writes it anew, to be looked at."""
    told = cli("plan", RECIPES / f"{name}.py", "--data", shapes, *small(name))
    assert told.code == 0
    text = re.sub(r"weights: .*", "weights: ...", told.out.replace(str(shapes), "DATA"))
    text = re.sub(r"; precision auto: .*", "", text)  # the machine's: tests/test_gain.py
    file = PLANS / f"{name}.txt"
    if os.environ.get("WRITE_PLANS"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    assert text == file.read_text()


@pytest.mark.parametrize("name", NAMES)
def test_it_trains(name: str, cli: Cli, shapes: Path, tmp_path: Path) -> None:
    """An epoch of each stage, from the command line, on a tiny network."""
    words = ["--scale", "0.001", "--set", "arch=test_resnet", "--set", "size=32", "--no-pretrained", *small(name)]
    sizes = [word for i in range(SMALL_BATCH.get(name, 0)) for word in ("--set", f"stages.{i}.size={32 + 8 * i}")]
    told = cli("run", RECIPES / f"{name}.py", "--data", shapes, *words, *sizes, "--out", tmp_path / "runs")
    assert told.code == 0, told.err
    info = json.loads(next((tmp_path / "runs").rglob("run.json")).read_text())
    assert info["status"] == "finished"
    assert info["stages_done"] == len(info["plan"]["stages"])
