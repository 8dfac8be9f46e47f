"""docs/extending.md does what it says: its blocks run as they stand, and its changes of the package work."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import make_images

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python(?: file=(\S+))?\n(.*?)^```$", PAGE, re.M | re.S)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with photos/, and the recipe of the page with a network that tests can afford."""
    make_images(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    ((name, text),) = [block for block in BLOCKS if block[0]]
    assert text.count("arch=resnet18,") == 1
    (tmp_path / name).write_text(text.replace("arch=resnet18,", 'arch="test_resnet", pretrained=False,'))
    return tmp_path


def test_every_block_runs(place: Path) -> None:
    """In the page's order, each with what the ones before have left."""
    names: dict[str, Any] = {}
    blocks = [text for file, text in BLOCKS if not file]
    assert len(blocks) == PAGE.count("```python\n") >= 4
    for text in blocks:
        exec(compile(text, "extending.md", "exec"), names)
    assert names["done"].status == "finished"


def test_a_schedule_in_the_package(place: Path) -> None:
    """The class moves into declare/schedules.py, its name into two lists; the command line then knows it."""
    package = place / "copy" / "fastrecipes"
    shutil.copytree(ROOT / "fastrecipes", package)
    shutil.copytree(ROOT / "recipes", place / "copy" / "recipes")
    schedules, words = package / "declare" / "schedules.py", package / "declare" / "__init__.py"
    ((triangle,),) = [
        re.findall(r"^@dataclass\(frozen=True\)\nclass Triangle:.*?(?=^def )", text, re.M | re.S)
        for file, text in BLOCKS
        if file
    ]
    made = triangle.replace("@dataclass(frozen=True)", "@declared").replace(
        "top: float = 0.5", "top: Annotated[float, share()] = 0.5"
    )
    schedules.write_text(schedules.read_text().replace("__all__ = [", '__all__ = ["Triangle", ', 1) + "\n\n" + made)
    text = words.read_text().replace("FlatCos, OneCycle, Step\n", "FlatCos, OneCycle, Step, Triangle\n")
    words.write_text(text.replace("__all__ = [", '__all__ = ["Triangle", ', 1))
    for given, code, told in (
        ("Triangle(top=0.3)", 0, "Triangle 0 .. 0"),
        ("Triangle(topp=1)", 2, "did you mean 'top'"),
    ):
        line = [sys.executable, "-m", "fastrecipes", "plan", "mine.py", "--set", f"schedule={given}"]
        environment = os.environ | {"PYTHONPATH": str(package.parent)}
        done = subprocess.run(line, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == code, done.stderr
        assert told in done.stdout + done.stderr
