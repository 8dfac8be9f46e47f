"""Values written into the text of a recipe: the recipe that then loads is the one that `--set` makes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import RECIPES, Told
from test_recipes import NAMES, small

from fastrecipes import RecipeError, load_recipe
from fastrecipes.declare.described import described
from fastrecipes.read.edit import edited, epochs_said
from fastrecipes.read.override import apply_overrides, parse_override

Cli = Callable[..., Told]
SETS = [
    "stages.0.epochs=7",
    "stages.0.lr=[1e-4]",
    "stages.0.early_stop=EarlyStop(monitor='accuracy', patience=3)",
    "stages.0.unfreeze=all",
    "schedule=Cosine(min=1e-6)",
    "sampling=balanced",
    "mix=MixUpCutMix(mixup=0.2, cutmix=1.0)",
    "loss_func=cross_entropy(label_smoothing=0.1, weight='balanced')",
    "pretrained=True",
    "source=my photos/größe",
    "arch=torchvision/resnet18",
    "init_from=None",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_recipe_loads_as_with_set(name: str, tmp_path: Path) -> None:
    """Every field is what the command line would have made of it, and no comment is lost."""
    before = (RECIPES / f"{name}.py").read_text()
    after = edited(before, SETS)
    file = tmp_path / f"{name}.py"
    file.write_text(after)
    overrides = [parse_override(text) for text in SETS]
    assert described(load_recipe(file)) == described(apply_overrides(load_recipe(RECIPES / f"{name}.py"), overrides))
    assert [line.partition("#")[2] for line in before.splitlines() if "#" in line] == [
        line.partition("#")[2] for line in after.splitlines() if "#" in line
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_recipe_plans_when_changed(name: str, cli: Cli, shapes: Path, tmp_path: Path) -> None:
    """What the doctor prescribes most often."""
    sets = ["stages.0.epochs=3", "stages.0.lr=1e-3", "mix=MixUpCutMix(mixup=0.2, cutmix=1.0)", "sampling=balanced"]
    file = tmp_path / f"{name}.py"
    file.write_text(edited((RECIPES / f"{name}.py").read_text(), sets))
    told = cli("plan", file, "--data", shapes, "--no-pretrained", "--set", "arch=test_resnet", *small(name))
    assert told.code == 0, told.err
    assert "3 x " in told.out or " 3 " in told.out


@pytest.mark.parametrize(
    ("text", "sets", "after"),
    [
        (
            "from fastrecipes import (\n    Recipe,\n    Stage,\n)\nrecipe = Recipe(stages=[Stage(epochs=1)])\n",
            ["mix=MixUpCutMix()"],
            "from fastrecipes import (\n    Recipe,\n    Stage,\n)\nfrom fastrecipes import MixUpCutMix\n"
            "recipe = Recipe(stages=[Stage(epochs=1)], mix=MixUpCutMix())\n",
        ),
        (
            "from fastrecipes import *\nrecipe = Recipe(\n    mix=None,  # none\n    bs=8,\n)",
            ["mix=MixUpCutMix()", "wd=0.1"],
            "from fastrecipes import *\nrecipe = Recipe(\n    mix=MixUpCutMix(),  # none\n    wd=0.1,\n    bs=8,\n)",
        ),
        (
            "recipe = Recipe(loss_func=cross_entropy(label_smoothing=0.1), stages=[Stage(epochs=N, lr=1)])",
            ["loss_func.label_smoothing=0.2", "loss_func.weight=balanced", "stages.0.epochs=4"],
            'recipe = Recipe(loss_func=cross_entropy(label_smoothing=0.2, weight="balanced"), stages=[Stage(epochs=4, lr=1)])',
        ),
        ('ß = "ä"; recipe = Recipe(source="ö", bs=8)', ["bs=4", "source=ü"], 'ß = "ä"; recipe = Recipe(source="ü", bs=4)'),
        ("recipe = Recipe(\r\n    bs=8,\r\n)\r\n", ["bs=4"], "recipe = Recipe(\r\n    bs=4,\r\n)\r\n"),
    ],
)  # fmt: skip
def test_only_the_value_changes(text: str, sets: list[str], after: str) -> None:
    """Comments, layout and the rest of the file stay."""
    assert edited(text, sets) == after


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("recipe = Recipe(stages=[Stage(epochs=n) for n in (1, 2)])", "stages.0.epochs"),
        ("recipe = Recipe(stages=[*first, Stage(epochs=1)])", "stages.0.epochs"),
        ("recipe = Recipe(stages=STAGES)", "stages.0.epochs"),
        ("recipe = Recipe(stages=[Stage(epochs=1)])", "stages.1.epochs"),
        ("recipe = Recipe(**common)", "bs"),
        ("recipe = Recipe()", "bs"),
        ("recipe = Recipe(lr=(1e-3))", "bs"),
        ("recipe = Recipe(schedule=SCHEDULE)", "schedule.pct_start"),
    ],
)
def test_what_is_not_written_out_is_refused(text: str, path: str) -> None:
    """One line that names the place."""
    with pytest.raises(RecipeError) as e:
        edited(text, [f"{path}=3"], name="mine.py")
    assert str(e.value) == f"mine.py: {path}: is not written out in the file, so it cannot be changed there"


@pytest.mark.parametrize(
    "text",
    [
        "recipe = make()\nrecipe = Recipe(bs=1)",
        "from mine import recipe",
        "if x:\n    recipe = Recipe(bs=1)",
        "recipe = r",
    ],
)
def test_a_recipe_that_is_made_in_another_way_is_refused(text: str) -> None:
    """Which line is meant cannot be told."""
    with pytest.raises(RecipeError, match=r"^mine.py: bs: the file does not say recipe = Recipe\(...\) once$"):
        edited(text, ["bs=3"], name="mine.py")


def test_words_need_an_import() -> None:
    """Where nothing is imported from the package there is no line to add them to."""
    with pytest.raises(RecipeError, match=r"^mine.py: imports nothing from fastrecipes, and would need MixUpCutMix$"):
        edited("import fastrecipes as f\nrecipe = f.Recipe(bs=1)", ["mix=MixUpCutMix()"], name="mine.py")


def test_epochs_that_a_text_says() -> None:
    """Stage by stage; those that it computes are unknown."""
    assert epochs_said("recipe = Recipe(stages=[Stage(epochs=3), Stage(epochs=N)])") == [3, None]
    assert epochs_said("recipe = Recipe(stages=STAGES)") == []
