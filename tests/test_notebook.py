"""The commands as functions: what a notebook gets from them, and how it looks there."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch
from conftest import TINY, make_images
from nbclient import NotebookClient

import fastrecipes
from fastrecipes import Probe, RecipeError, compare, load_recipe, lr_find, plan, run
from fastrecipes.notebook.shown import html_of, text_of
from fastrecipes.train.run import run as train

Write = Callable[..., Path]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos/ and tiny.py."""
    folder = tmp_path_factory.mktemp("notebook")
    photos = make_images(folder / "photos")
    (folder / "tiny.py").write_text(TINY.replace("SOURCE", repr(str(photos))))
    return folder


@pytest.fixture(scope="module")
def ran(place: Path) -> Any:
    """A run of tiny.py."""
    return run(place / "tiny.py", out=place / "runs")


def test_changes_are_those_of_the_command_line(place: Path, recipe_file: Write) -> None:
    """`set` takes Python's values; a shipped name, a file and a recipe all do."""
    given = load_recipe(
        place / "tiny.py", set={"stages.0.lr": 1e-3, "stages.1.lr": Probe([1e-3, 1e-2])}, scale=2, pretrained=False
    )
    assert (given.stages[0].lr, given.stages[0].epochs, given.stages[1].epochs) == (1e-3, 2, 4)
    assert given.stages[1].lr == Probe([1e-3, 1e-2])
    assert given.origin is not None
    assert given.origin.overrides[0] == "stages.0.lr=0.001"
    again = load_recipe(given.origin.path, set={"size": 24})
    assert again.size == 24
    assert load_recipe("two_phase", data=place / "photos").source == str(place / "photos")
    assert load_recipe(place / "tiny.py", exact=True).cache == "off"
    assert plan(given, set={"bs": 4}).stages[0].bs == 4


def test_the_recorded_words_repeat_the_run_on_the_command_line(place: Path) -> None:
    """A text that looks like a number stays one; data, weights and random weights are fields too."""
    from fastrecipes.cli.opening import open_recipe

    recipe = load_recipe(
        place / "tiny.py", data=place / "photos", set={"stages.1.unfreeze": "layer3", "monitor": "1"}, scale=3
    )
    assert recipe.origin is not None
    words = recipe.origin.words
    sets = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
    same = open_recipe(str(place / "tiny.py"), sets, data=None, scale=3, weights=None, no_pretrained=False)
    assert (same.stages, same.monitor, same.source) == (recipe.stages, recipe.monitor, recipe.source)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"set": {"stages.9.lr": 1}}, "set stages.9.lr=1: no stage 9; stages are numbered 0 to 1"),
        ({"set": {"stages.0.lrr": 1}}, "set stages.0.lrr=1: Stage has no field 'lrr'; did you mean 'lr'?"),
        ({"set": {"stages.0.epochs": 0}}, "set stages.0.epochs=0: expected a whole number >= 1, got 0"),
        ({"scale": 0}, "scale=0: expected a number > 0, such as 0.1"),
        ({"data": "nowhere"}, "data: nowhere: no such folder; --data DIR gives the folder of the images"),
    ],
)
def test_a_wrong_change_is_one_line(place: Path, changes: dict[str, Any], words: str) -> None:
    """As on the command line, for a file and for a recipe; an unknown option is Python's own error."""
    with pytest.raises(RecipeError) as refused:
        load_recipe(place / "tiny.py", **changes)
    assert str(refused.value) == words
    with pytest.raises(TypeError, match="unknown option 'dat'"):
        plan(place / "tiny.py", dat="photos")  # type: ignore[call-arg]


def test_a_run_leaves_what_the_command_line_leaves(ran: Any, place: Path) -> None:
    """Report and plots too; and it says what the command says."""
    assert {path.name for path in ran.folder.iterdir()} >= {"report.html", "plots", "history.csv", "checkpoints"}
    assert (ran.folder / "plots" / "overview.png").exists()
    assert f"best accuracy: {ran.best['accuracy']:.4f}" in repr(ran)
    assert ran.status == "finished"


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # matplotlib's, of fastai's images
def test_learn_is_fastais_own(ran: Any, place: Path) -> None:
    """Its validation is the last epoch's; what is done with it changes nothing in the run."""
    from fastai.interpret import ClassificationInterpretation
    from fastai.learner import Learner

    learn = ran.learn
    assert type(learn) is Learner
    last = ran.history[-1]
    with learn.no_bar():
        loss, accuracy = learn.validate()
        assert (loss, accuracy) == (pytest.approx(last["valid_loss"], rel=1e-5), pytest.approx(last["accuracy"]))
        assert learn.dls.valid.bs == 8
        assert learn.dls.one_batch()[0].shape[-1] == 40
        assert learn.path == ran.folder
        before = {name: t.clone() for name, t in ran.net.state_dict().items()}
        label, _, probs = learn.predict(next((place / "photos" / "circle").iterdir()))
        assert label in learn.dls.vocab
        assert float(probs.sum()) == pytest.approx(1, abs=1e-5)
        assert ClassificationInterpretation.from_learner(learn).confusion_matrix().sum() == 12
        learn.show_results()
        learn.fine_tune(1)
    assert all(torch.equal(before[name], t) for name, t in ran.net.state_dict().items())


def test_a_learner_of_any_stage(place: Path) -> None:
    """Before the second stage: its size, and the blocks frozen that the first has frozen."""
    paused = run(place / "tiny.py", until=1, out=place / "parts")
    assert "paused before stages.1" in repr(paused)
    assert paused.learn.dls.one_batch()[0].shape[-1] == 32
    frozen = [not any(p.requires_grad for p in group) for group in paused.learn.opt.param_lists]
    assert frozen == [True] * paused.plan.stages[0].freeze_to + [False] * len(paused.plan.stages[0].trained)


def test_lr_find_changes_nothing(place: Path) -> None:
    """No file, no weight of a later run; what is found is what the command finds."""
    files = sorted(place.rglob("*"))
    found = lr_find(place / "tiny.py", num_it=30)
    assert sorted(place.rglob("*")) == files
    assert set(found.suggestions) == {"valley", "steep", "minimum", "slide"}
    assert "for the recipe: lr=" in repr(found)
    with pytest.raises(RecipeError, match="--stage 2: tiny has 2 stages, 0 to 1"):
        lr_find(place / "tiny.py", 2)


def test_compare_takes_runs_and_names(ran: Any, place: Path) -> None:
    """The verdict is the command's."""
    other = run(place / "tiny.py", set={"stages.0.lr": 1e-3}, out=place / "runs")
    told = compare(ran, other)
    assert told.verdict.startswith("no difference shown between ")
    assert told.winner is None
    assert {side.name for side in compare("tiny", out=place / "runs").comparison.sides} == {
        s.name for s in told.comparison.sides
    }
    assert told._repr_html_().count("<img") == 1  # type: ignore[attr-defined]


def test_pages_escape_what_data_says(tmp_path: Path) -> None:
    """Names of classes and files are text, in HTML and in rich's own markup."""
    from rich.table import Table
    from rich.text import Text

    table = Table("[bold]head", "n")
    table.add_row(r"\[red]<script>alert(1)</script>", "1")
    html = html_of([table, Text("a\x1b[2J[b] & \u202e"), "", "c"])
    assert "<script>" not in html
    assert "[red]&lt;script&gt;" in html
    assert "a\\x1b[2J[b] &amp; \\u202e" in html
    assert "\x1b" not in text_of([table])


def test_a_class_with_markup_in_its_name(tmp_path: Path, recipe_file: Write) -> None:
    """It reaches plan, run and comparison as it is."""
    photos = make_images(tmp_path / "odd")
    (photos / "circle").rename(photos / "[red]<b>x")
    shown = plan(recipe_file(), data=photos)._repr_html_()  # type: ignore[attr-defined]
    assert "<b>x" not in shown
    assert shown.count("<img") == 1


CELLS = """
from IPython.display import DisplayHandle
drawn, plain = [], DisplayHandle.update
DisplayHandle.update = lambda self, data, **kw: (drawn.append(data["text/html"]), plain(self, data, **kw))[1]
from fastrecipes import load_recipe, lr_find, plan, run
recipe = load_recipe("tiny.py", set={"stages.1.epochs": 20})
---
plan(recipe)
---
done = run(recipe)
---
done
---
lr_find(recipe, num_it=30)
---
run(recipe, set={"stages.7.lr": 1})
---
print("".join(drawn))
"""


@pytest.fixture(scope="module")
def notebook(place: Path) -> list[Any]:
    """The cells of a notebook that was run in a real kernel; the one before the last fails."""
    cells = [nbformat.v4.new_code_cell(text.strip()) for text in CELLS.split("---")]
    book = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(
        book, timeout=300, kernel_name="python3", allow_errors=True, resources={"metadata": {"path": str(place)}}
    ).execute()
    return book.cells


def outputs(cell: Any, kind: str) -> list[Any]:
    """The outputs of one kind."""
    return [one for one in cell.outputs if one.output_type == kind]


def test_a_notebook_shows_results_as_tables_and_pictures(notebook: list[Any]) -> None:
    """No escape of a terminal anywhere, nothing on stderr, and text for where HTML is not shown."""
    for cell, pictures in ((notebook[1], 1), (notebook[3], 1), (notebook[4], 1)):
        (shown,) = outputs(cell, "execute_result")
        assert shown.data["text/html"].count("<img") == pictures
        assert "<table>" in shown.data["text/html"]
        assert "stages.0" in shown.data["text/plain"]
    for cell in notebook[:5]:
        text = json.dumps(cell.outputs)
        assert not re.search(r"\\u001b|\\r", text), text[:2000]
        assert not [one for one in outputs(cell, "stream") if one.name == "stderr"], cell.outputs


def test_a_notebook_shows_a_run_under_way(notebook: list[Any]) -> None:
    """Lines on stdout; bars that are one piece of HTML, kept up to date and empty in the end."""
    text = "".join(one.text for one in outputs(notebook[2], "stream"))
    assert "stages.1 epoch 20/20: train_loss" in text
    bars = outputs(notebook[2], "display_data")
    assert bars
    assert {one.data["text/html"] for one in bars} == {""}
    (told,) = outputs(notebook[-1], "stream")
    assert re.search(r"stages.1 (train|validate) \d+/20.*<progress value=\"\d+.*images/s", told.text)


def test_a_notebook_shows_an_error_as_its_line(notebook: list[Any]) -> None:
    """No traceback through our own lines."""
    (error,) = outputs(notebook[5], "error")
    assert error.traceback == ["error: set stages.7.lr=1: no stage 7; stages are numbered 0 to 1"]


def test_names_of_the_face_are_functions(place: Path) -> None:
    """No module of the package shadows one, whatever was imported before."""
    for name in ("load_recipe", "plan", "run", "lr_find", "compare"):
        assert callable(getattr(fastrecipes, name)), name
        assert name in fastrecipes.__all__
    assert run is not train
