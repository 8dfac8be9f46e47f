"""The house: imports go down its floors, and what answers at once does not import torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from run_folders import guesses, make_run

PACKAGE = Path(__file__).parent.parent / "fastrecipes"
FLOORS = {
    "errors": 0,
    "declare": 1,
    "record": 2, "nets": 2,
    "data": 3, "read": 3, "trackers": 3,
    "planning": 4,
    "train": 5,
    "results": 6, "advise": 6,
    "cli": 7,
}  # fmt: skip
FACES = ("__init__", "__main__")  # the package's own face hands names on and may import all floors


def rooms() -> list[Path]:
    """Every module of the package but its face."""
    return sorted(p for p in PACKAGE.rglob("*.py") if not (p.parent == PACKAGE and p.stem in FACES))


def unit_of(path: Path) -> str:
    """The folder (or single module) of the package that a module belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    """Names of our own modules that `path` imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("path", rooms(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    """A module imports its own unit or units on lower floors, never up, never sideways, never the package's face."""
    own = unit_of(path)
    for name in imported(path):
        head, _, rest = name.partition(".")
        if head == "fastrecipes":
            other = rest.partition(".")[0]
            assert other in FLOORS, f"{path}: imports {name} through the package's face"
            assert other == own or FLOORS[other] < FLOORS[own], f"{path}: {own} imports {other}, which is not below it"


def test_every_unit_has_a_floor() -> None:
    """A new folder has to say where it stands."""
    assert {unit_of(path) for path in rooms()} == set(FLOORS)


def test_no_circles_inside_a_unit() -> None:
    """Modules of one unit do not import each other in a loop at load time."""
    graph = {f"fastrecipes.{'.'.join(p.relative_to(PACKAGE).with_suffix('').parts)}": p for p in rooms()}
    edges = {
        name: {n for i in top_imports(p) for n in graph if i == n or i.startswith(f"{n}.")} for name, p in graph.items()
    }
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name not in done:
            for other in edges[name]:
                visit(other, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def top_imports(path: Path) -> Iterator[str]:
    """Our imports that run when the module is loaded."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(
    "command",
    [
        *(
            "--help",
            "list",
            "run --help",
            "plan --help",
            "split --help",
            "bench-data --help",
            "advise --help",
            "lrfind --help",
        ),
        *("sync --help", "sync runs", "run car_brand_5stage --tag x"),
        *("runs --help", "compare --help", "report --help", "board --help", "doctor --help"),
        *(
            "run car_brand_5stage --set stages.9.lr=1",
            "bench-data car_brand_5stage --set stages.9.lr=1",
            "lrfind car_brand_5stage --set stages.9.lr=1",
        ),
    ],
)
def test_quick_answers_do_not_import_torch(command: str) -> None:
    """Help, the list of recipes and a wrong override answer without torch, fastai or matplotlib."""
    answers_lightly(command.split())


def test_runs_are_read_without_torch(tmp_path: Path) -> None:
    """Lists, comparisons and their pages, with statistics and pictures."""
    Image.new("RGB", (8, 8)).save(tmp_path / "ash.jpg")
    for seed, share in enumerate((0.9, 0.5)):
        make_run(tmp_path, "leaf", f"{seed}", seed=seed, probs=guesses(share), source=str(tmp_path))
        make_run(tmp_path, "bark", f"{seed}", seed=seed, probs=guesses(share - 0.1), source=str(tmp_path))
    out = ["--out", str(tmp_path)]
    answers_lightly(["runs", *out])
    answers_lightly(
        ["compare", "leaf", "bark", *out, "--html", str(tmp_path / "c.html"), "--csv", str(tmp_path / "c.csv")]
    )
    assert (tmp_path / "c.html").exists()


def answers_lightly(words: list[str]) -> None:
    """Assert that a command, in a process of its own, needs none of the heavy libraries."""
    code = f"""
import sys
sys.argv = ["fastrecipes", *{words!r}]
from fastrecipes.cli.app import main
try:
    main()
except SystemExit:
    pass
heavy = {{"torch", "fastai", "timm", "torchvision", "matplotlib", "pandas", "wandb"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
