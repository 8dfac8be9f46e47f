"""The house: imports go down its floors, and what answers at once does not import torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from PIL import Image
from run_folders import guesses, make_run

PACKAGE = Path(__file__).parent.parent / "fastrecipes"
FLOORS = {
    "errors": 0, "ranks": 0,
    "declare": 1,
    "record": 2, "nets": 2,
    "data": 3, "read": 3, "trackers": 3, "scores": 3,
    "planning": 4,
    "train": 5,
    "results": 6, "advise": 6, "sweep": 6, "use": 6,
    "cli": 7, "notebook": 7,
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


def test_no_module_imports_itself_in_a_circle() -> None:
    """Not over any number of others, and not inside a function either."""
    names = {".".join(p.relative_to(PACKAGE.parent).with_suffix("").parts): p for p in rooms()}
    known = {name.removesuffix(".__init__"): name for name in names}

    def module_of(name: str) -> str | None:
        return known.get(name) or known.get(name.rpartition(".")[0])

    graph = {name: {m for m in map(module_of, imported(path)) if m and m != name} for name, path in names.items()}
    assert len(graph["fastrecipes.train.run"]) > 10
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_every_unit_has_a_floor() -> None:
    """A new folder has to say where it stands."""
    assert {unit_of(path) for path in rooms()} == set(FLOORS)


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
            "bench --help",
            "advise --help",
            "lrfind --help",
        ),
        *("sweep --help", "sweep car_brand_5stage --vary stages.9.lr=1,2", "sweep car_brand_5stage"),
        *("sync --help", "sync runs", "run car_brand_5stage --tag x"),
        *("runs --help", "compare --help", "report --help", "board --help", "doctor --help", "cache", "cache --help"),
        *("eval --help", "predict --help", "export --help"),
        *(
            "run car_brand_5stage --set stages.9.lr=1",
            "bench-data car_brand_5stage --set stages.9.lr=1",
            "bench car_brand_5stage --set stages.9.lr=1",
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


@pytest.mark.parametrize("command", ["--help", "list", "run --help"])
def test_the_quickest_answers_do_not_import_numpy(command: str) -> None:
    """It takes as long as all the rest of them."""
    answers_lightly(command.split(), "numpy", "scipy")


def answers_lightly(words: list[str], *more: str) -> None:
    """Assert that a command, in a process of its own, needs none of the heavy libraries."""
    code = f"""
import sys
sys.argv = ["fastrecipes", *{words!r}]
from fastrecipes.cli.app import main
try:
    main()
except SystemExit:
    pass
heavy = {{"torch", "fastai", "timm", "torchvision", "matplotlib", "pandas", "wandb", *{more!r}}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
