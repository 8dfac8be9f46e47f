"""What is not trusted (data, weights, run folders) runs no code, leaves no folder, and moves no cursor."""

from __future__ import annotations

import ast
import json
import os
import pickle
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Told, make_images, stop_after
from PIL import Image

from fastrecipes import RecipeError
from fastrecipes.record.folder import RunFolder

Write = Callable[..., Path]
Cli = Callable[..., Told]
PACKAGE = Path(__file__).parent.parent / "fastrecipes"


class Planted:
    """Makes a folder when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.proof),)


@pytest.fixture
def interrupted(recipe_file: Write, tmp_path: Path, monkeypatch: Any, cli: Cli) -> tuple[Path, Path]:
    """A recipe and the folder of its run, stopped in its second stage."""
    path = recipe_file()
    with monkeypatch.context() as patched:
        stop_after(8, signal.SIGTERM, patched)
        assert cli("run", path, "--out", tmp_path / "runs").code == 143
    return path, next((tmp_path / "runs").glob("*/*"))


@pytest.mark.parametrize("how", ["pickle", "torch"])
@pytest.mark.parametrize("name", ["last", "previous", "both"])
def test_pickles_in_a_run_folder(cli: Cli, interrupted: tuple[Path, Path], tmp_path: Path, how: str, name: str) -> None:
    """In place of a checkpoint: refused by name, never run; the whole one is used where there is one."""
    path, folder = interrupted
    proof = tmp_path / "ran"
    for stem in ("last", "previous") if name == "both" else (name,):
        file = folder / "checkpoints" / f"{stem}.safetensors"
        if how == "pickle":
            file.write_bytes(pickle.dumps(Planted(proof)))
        else:
            torch.save({"model": Planted(proof)}, file)
    told = cli("run", path, "--resume", folder)
    assert told.code == (2 if name == "both" else 0)
    assert ("is a pickle file; refused, since reading one can run code" in told.err) == (name != "previous")
    assert not proof.exists()


def test_a_stage_file_that_a_fork_takes_over(cli: Cli, interrupted: tuple[Path, Path], tmp_path: Path) -> None:
    """The weights of finished stages are checked before they are handed on."""
    path, folder = interrupted
    (folder / "checkpoints" / "stages.0.safetensors").write_bytes(pickle.dumps(Planted(tmp_path / "ran")))
    told = cli("run", path, "--resume", folder, "--fork", "--out", tmp_path / "forks", "--set", "stages.1.lr=3e-3")
    assert told.code == 2
    assert "stages.0.safetensors is a pickle file; refused" in told.err
    assert not (tmp_path / "ran").exists()
    assert not list((tmp_path / "forks").glob("*/*"))


def test_the_recipe_in_a_run_folder_is_read_and_not_run(
    cli: Cli, interrupted: tuple[Path, Path], tmp_path: Path
) -> None:
    """It is compared as text; only the recipe that the command names is run."""
    path, folder = interrupted
    text = (folder / "recipe.py").read_text()
    (folder / "recipe.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'ran')!r})\n{text}")
    told = cli("run", path, "--resume", folder)
    assert told.code == 2
    assert "the code changed since the run began" in told.err
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("text", ["[1, 2]", "null", '{"layout": 1, "plan": 7}', "[" * 100_000])
def test_a_run_json_that_is_none(cli: Cli, interrupted: tuple[Path, Path], text: str) -> None:
    """One line, no traceback, whatever it holds."""
    path, folder = interrupted
    (folder / "run.json").write_text(text)
    told = cli("run", path, "--resume", folder)
    assert told.code == 2
    assert told.err.startswith("error: ")
    assert "Traceback" not in told.err


def test_no_file_is_loaded_in_a_way_that_runs_code() -> None:
    """No module of ours calls pickle, a Learner's loader, or torch.load without `weights_only=True`.

    The export for fastai writes a pickle, which is what `load_learner` takes, and reads that one back to compare it.
    """
    allowed = {"to_fastai.py": {"load_learner"}, "by_value.py": {"cloudpickle"}}
    for path in PACKAGE.rglob("*.py"):
        own = allowed.get(path.name, set()) if path.parent == PACKAGE / "use" / "export" else set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                assert not ({"load_learner", "cloudpickle", "joblib", "yaml"} - own) & set(names), path
            if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("pickle."):
                assert ast.unparse(node) == "pickle.UnpicklingError", f"{path}:{node.lineno}"
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "load_state_dict_from_url"):
                words = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert words.get("weights_only") == "True", f"{path}:{node.lineno}"


EVIL = "\x1b[2J\x1b]0;owned\x07red"


def test_names_cannot_drive_the_terminal(cli: Cli, recipe_file: Write, tmp_path: Path) -> None:
    """Escapes in names of classes and files come out as text, on the console and in the log."""
    path, data = recipe_file(), make_images(tmp_path / "photos")
    (data / "cross").rename(data / EVIL)
    (data / "circle" / "00.png").rename(data / "circle" / f"{EVIL}.png")
    (data / EVIL / "zz.png").write_bytes((data / "circle" / f"{EVIL}.png").read_bytes())
    told = cli("run", path, "--data", data, "--out", tmp_path / "runs")
    assert told.code == 0
    (folder,) = (tmp_path / "runs").glob("*/*")
    for text in (told.out, told.err, (folder / "log.txt").read_text()):
        assert "\x1b" not in text
    (data / EVIL / "bad.png").write_text("no image")
    told = cli("run", path, "--data", data)
    assert told.code == 2
    assert "\x1b" not in told.err
    assert "\\x1b[2J" in told.err
    told = cli("plan", path, "--data", data)
    assert "\x1b" not in told.out


def test_names_are_no_formulas(cli: Cli, recipe_file: Write, tmp_path: Path) -> None:
    """A spreadsheet that opens split.csv computes nothing; read back, the names are what they were."""
    path, data = recipe_file(), make_images(tmp_path / "photos")
    (data / "cross").rename(data / '=HYPERLINK("http:evil")')
    (data / "circle").rename(data / "'quoted'")
    assert cli("run", path, "--data", data, "--out", tmp_path / "runs").code == 0
    (folder,) = (tmp_path / "runs").glob("*/*")
    import csv

    cells = [cell for row in csv.reader((folder / "split.csv").read_text().splitlines()) for cell in row]
    assert not [cell for cell in cells if cell[:1] in ("=", "+", "-", "@")]
    labels = {row.label for row in RunFolder.open(folder).read_split()}
    assert labels == {'=HYPERLINK("http:evil")', "'quoted'", "square"}


def test_items_stay_in_the_data_folder(cli: Cli, recipe_file: Write, tmp_path: Path) -> None:
    """Paths that leave it are refused, whoever wrote them into the list."""
    outside = make_images(tmp_path / "outside" / "photos")
    data = make_images(tmp_path / "photos")
    get = f"lambda source: get_image_files(source) + [source / '..' / 'outside' / 'photos' / 'cross' / '00.png'] + [Path({str(outside / 'cross' / '01.png')!r})]"  # fmt: skip
    path = recipe_file(("get_items=get_image_files", f"get_items={get}"))
    told = cli("run", path, "--data", data)
    assert told.code == 2
    assert told.err == (
        f"error: data: 2 items lie outside {data}, such as ../outside/photos/cross/00.png; "
        "--data takes the folder that holds all\n"
    )


def test_a_decompression_bomb(cli: Cli, recipe_file: Write, tmp_path: Path, monkeypatch: Any) -> None:
    """PIL's limit stays on, and the file is named."""
    path, data = recipe_file(), make_images(tmp_path / "photos")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    Image.new("RGB", (200, 120)).save(data / "cross" / "bomb.png")
    told = cli("run", path, "--data", data)
    assert told.code == 2
    assert "data: 1 of 49 images cannot be read: cross/bomb.png (over the limit of 0 megapixels)" in told.err


def test_a_link_in_place_of_a_file_is_not_followed(tmp_path: Path) -> None:
    """A lock or a half-written file that somebody planted as a link leads nowhere."""
    from fastrecipes.record.files import write_atomic
    from fastrecipes.record.lock import locked

    victim = tmp_path / "victim"
    victim.write_text("whole")
    (tmp_path / f".file.{os.getpid()}.part").symlink_to(victim)
    write_atomic(tmp_path / "file", b"new")
    assert victim.read_text() == "whole"
    (tmp_path / "lock").symlink_to(victim)
    with pytest.raises(RecipeError), locked(tmp_path / "lock"):
        pass
    assert victim.read_text() == "whole"


def test_nothing_is_written_outside_run_folder_and_cache(
    cli: Cli, recipe_file: Write, tmp_path: Path, cache: Path, monkeypatch: Any
) -> None:
    """A run in a folder of its own leaves that folder as it was, and the data too."""
    path, data, here = recipe_file(), make_images(tmp_path / "photos"), tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    before = sorted(p for p in tmp_path.rglob("*"))
    assert cli("run", path, "--data", data, "--out", tmp_path / "runs").code == 0
    after = sorted(p for p in tmp_path.rglob("*") if tmp_path / "runs" not in (p, *p.parents))
    assert after == before
    assert json.loads(next((tmp_path / "runs").rglob("run.json")).read_text())["status"] == "finished"
