"""`fastrecipes advise`: what it finds in the data, what it chooses and why, and the recipe that it writes."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import COLOURS, Told, make_images

from fastrecipes import load_recipe, plan_recipe
from fastrecipes.advise.facts import Facts, Machine, Network, find_network
from fastrecipes.advise.notes import later, notes
from fastrecipes.advise.rules import CHOICES, Rule, decide
from fastrecipes.advise.survey import Survey, survey
from fastrecipes.advise.written import parts_of, recipe_text
from fastrecipes.record.history import read_history

Cli = Callable[..., Told]

CPU, GPU = Machine(False, "a CPU, 2 threads of 2 cores"), Machine(True, "a GPU (80 GB)")
RESNET = ("stem", "layer1", "layer2", "layer3", "layer4")
NET = Network("tf_efficientnet_lite0", True, False, RESNET, None)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No look at the network, wherever the tests run."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return


def facts(n: int = 1000, *, machine: Machine = CPU, network: Network = NET, **changes: Any) -> Facts:
    """What is known of `n` training images in two even classes, with some of it changed."""
    given: dict[str, Any] = {
        "folder": Path("photos"), "train": Counter(a=n // 2, b=n - n // 2), "valid": Counter(a=n // 8, b=n // 8),
        "own_parts": False, "sides": (200, 256, 300), "unreadable": (), "repeated": 0, "across": 0, "contrary": (),
    }  # fmt: skip
    return Facts(Survey(**given | changes), machine, network, 20)


def value(known: Facts, field: str) -> Any:
    return decide(known)[field].value


# What is found


def test_survey_counts_what_is_there(tmp_path: Path) -> None:
    """Classes, sizes, the same file twice and in two classes, files that cannot be read."""
    data = make_images(tmp_path / "photos", n=10)
    shutil.copy(data / "circle" / "00.png", data / "circle" / "again.png")
    shutil.copy(data / "cross" / "00.png", data / "square" / "wrong.png")
    (data / "cross" / "text.png").write_text("no image")
    found = survey(data)
    assert [found.of(label) for label in found.classes] == [11, 10, 11]
    assert found.sides == (48, 48, 48)
    assert found.unreadable == (("cross/text.png", "no image"),)
    assert found.contrary == ("cross/00.png", "square/wrong.png")
    assert (found.repeated, found.own_parts) == (4, False)


def test_survey_keeps_the_datas_own_parts(tmp_path: Path) -> None:
    """As `FolderSplitter` does, test/ left out; the same file in both is counted."""
    for part, n in (("train", 6), ("val", 3), ("test", 2)):
        make_images(tmp_path / part, n=n)
    found = survey(tmp_path)
    assert (found.train.total(), found.valid.total(), found.own_parts) == (18, 9, True)
    assert found.across == 9


# What is chosen


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (499, [(10, "head", 1e-3), (20, 0.2, 1e-4)]),
        (500, [(10, "head", 1e-3), (30, 0.2, 1e-4)]),
        (2000, [(10, "head", 1e-3), (30, 0.2, 1e-4)]),
        (2001, [(10, "head", 1e-3), (45, 0.2, 1e-4)]),
        (5001, [(5, "head", 1e-3), (15, 0.2, 1e-4), (20, 0.4, 1e-5)]),
    ],
)
def test_stages_follow_the_number_of_images(n: int, expected: list[Any]) -> None:
    """The adjustment table of the two-phase training, and its three phases."""
    assert [(part.epochs, part.unfreeze, part.lr) for part in value(facts(n), "stages")] == expected


@pytest.mark.parametrize(
    ("known", "field", "expected"),
    [
        (facts(), "size", 128),
        (facts(machine=GPU), "size", 224),
        (facts(sides=(40, 100, 300)), "size", 96),
        (facts(sides=(20, 28, 30)), "size", 32),
        (facts(sides=(40, 100, 300), network=replace(NET, only_size=224)), "size", 224),
        (facts(), "bs", 32),
        (facts(80), "bs", 10),
        (facts(6), "bs", 2),
        (facts(3000, machine=GPU), "bs", 64),
        (facts(5001), "early_size", 0.5),
        (facts(5000), "early_size", 1.0),
        (facts(), "monitor", "accuracy"),
        (facts(train=Counter(a=900, b=300), valid=Counter(a=90, b=30)), "monitor", "f1_macro"),
        (facts(unreadable=(("a/x.jpg", "no image"),)), "on_bad_image", "report"),
        (facts(network=replace(NET, pretrained=False)), "pretrained", False),
        (replace(facts(), estimate=10.0), "shorten", 1.0),
        (replace(facts(), estimate=80.0), "shorten", 0.25),
        (replace(facts(), estimate=40.0), "faster", 1.0),
        (replace(facts(), estimate=80.0), "faster", 2.0),
    ],
)
def test_other_choices(known: Facts, field: str, expected: Any) -> None:
    """Each with its reason."""
    assert value(known, field) == expected


def test_from_scratch_is_one_stage() -> None:
    """There is nothing to protect."""
    (part,) = value(facts(network=replace(NET, pretrained=False)), "stages")
    assert part.unfreeze == "all"


def test_every_field_has_a_rule_that_always_holds() -> None:
    """The last of its rules."""
    last = {rule.field: rule for rule in CHOICES}
    assert set(decide(facts())) == set(last)
    assert all(rule.when(facts()) and rule.when(facts(10, machine=GPU)) for rule in last.values())


def test_a_new_rule_is_one_line() -> None:
    """It goes before the rules that it overrules."""
    mine = Rule("size", lambda f: f.n_classes == 2, lambda f: 64, "{f.n_classes} classes only", "mine")
    assert decide(facts(), [mine, *CHOICES])["size"].reason == "2 classes only"


def test_epochs_fit_the_time() -> None:
    """In the proportion of the table, one at least."""
    for estimate, expected in ((80.0, [2, 7]), (9999.0, [1, 1]), (19.0, [10, 30])):
        assert [part.epochs for part in parts_of(decide(replace(facts(), estimate=estimate)))] == expected
    assert [part.lr for part in parts_of(decide(replace(facts(), estimate=80.0)))] == [2e-3, 2e-4]


def test_shares_become_the_networks_own_blocks() -> None:
    """A fifth of ResNet's blocks is layer4, two fifths are layer3 and layer4; other networks in proportion."""
    assert [NET.top(share) for share in (0.2, 0.4)] == ["layer4", "layer3"]
    nine = replace(NET, blocks=tuple("abcdefghi"))
    assert [nine.top(share) for share in (0.2, 0.4, 0.01)] == ["h", "f", "i"]
    assert nine.above("h") == ("h", "i")


def test_notes_tell_what_is_wrong_with_the_data() -> None:
    """Only what holds."""
    assert list(notes(facts(4000))) == []
    (busy,) = notes(facts(4000, machine=replace(CPU, load=3.21)))
    assert busy.startswith("other programs keep this machine busy (load 3.2 a core): the times are too long")
    told = list(
        notes(facts(40, contrary=("a/1.jpg", "b/2.jpg"), repeated=4, train=Counter(a=35, b=5), valid=Counter(a=9, b=1)))
    )
    assert told == [
        "2 images are in two classes or more, the same file, such as a/1.jpg: one of the labels is wrong",
        "4 images are there twice or more: `fastrecipes split` keeps the same file in one part",
        "class 'b' has few images (6): what validation says of it is chance; add some",
        "10 validation images: one of them is 10.0% of the accuracy, so small differences mean nothing",
        "fewer than 400 images in all: the two-phase training asks for 400 or more",
    ]  # fmt: skip


def test_later_options_are_overrides_of_the_recipe() -> None:
    """The rest of the adjustment table, as words for the command line."""
    told = dict(later(facts(), parts_of(decide(facts()))))
    assert (
        told["the loss jumps, the accuracy goes up and down"] == "--set stages.0.lr=0.00033 --set stages.1.lr=3.3e-05"
    )
    assert told["the most accuracy, at any time"] == "--set stages.0.epochs=15 --set stages.1.epochs=45"
    assert told["a quick answer will do"] == "--set stages.0.epochs=5 --set stages.1.epochs=15"
    assert told["training is over 15 % better than validation"] == "--set stages.1.epochs=20"
    assert "--set stages.1.unfreeze=layer3" in told.values()


def test_a_network_whose_weights_cannot_be_had() -> None:
    """It is said, and trained from scratch."""
    found = find_network(CPU, "test_resnet", 3)
    assert (found.name, found.pretrained, found.given) == ("timm/test_resnet", False, True)
    assert found.blocks == RESNET


def test_a_network_of_one_size() -> None:
    """Its own size is used: this one takes no 128 px."""
    assert find_network(CPU, "torchvision/vit_b_16", 3).only_size == 224
    assert find_network(CPU, "eva02_tiny_patch14_224", 3).only_size == 224
    assert find_network(CPU, "test_resnet", 3).only_size is None


# What is written


def test_the_written_recipe_loads_plans_and_runs(cli: Cli, tmp_path: Path, monkeypatch: Any) -> None:
    """As it stands; its other options work too; a second writing is refused."""
    data, file = make_images(tmp_path / "photos", n=16), tmp_path / "mine.py"
    monkeypatch.chdir(tmp_path)
    told = cli("advise", data, "--arch", "test_resnet", "--write", "mine.py")
    assert told.code == 0, told.err
    assert told.out.endswith("mine.py\nnext: fastrecipes plan mine.py\n")
    plan, _ = plan_recipe(load_recipe(file))
    assert (plan.n_train, plan.n_valid, plan.stages[0].size, plan.stages[0].bs) == (39, 9, 32, 4)
    assert all(len(line) <= 120 for line in file.read_text().splitlines())
    done = cli("run", "mine.py", "--scale", "0.01")
    assert done.code == 0, done.err
    (folder,) = (tmp_path / "runs" / "mine").iterdir()
    assert len(read_history(folder / "history.csv")) == 1
    again = cli("advise", data, "--write", "mine.py")
    assert (again.code, again.err) == (2, "error: --write mine.py: exists already; give another name\n")


def test_an_uneven_damaged_set(cli: Cli, tmp_path: Path, monkeypatch: Any) -> None:
    """Macro F1 picks the best epoch, and what cannot be read is left out: the recipe still runs."""
    data = make_images(tmp_path / "photos", n=12)
    make_images(tmp_path / "more", n=30, labels=("cross",))
    for path in (tmp_path / "more" / "cross").iterdir():
        path.rename(data / "cross" / f"more-{path.name}")
    (data / "cross" / "text.png").write_text("no image")
    monkeypatch.chdir(tmp_path)
    told = cli("advise", data, "--arch", "test_resnet", "--write", "mine.py", "--minutes", "0.001")
    assert told.code == 0, told.err
    assert "note: images that cannot be read: 1, such as cross/text.png (no image); repair or remove them" in told.out
    recipe = load_recipe(tmp_path / "mine.py")
    assert recipe.loss_func.weight == "balanced"
    assert (recipe.monitor, recipe.on_bad_image, recipe.stages[0].epochs) == ("f1_macro", "report", 1)
    done = cli("run", "mine.py")
    assert done.code == 0, done.err
    assert "best f1_macro: " in done.out


@pytest.mark.parametrize("n", [300, 1000, 6000])
def test_stages_of_the_text(n: int, tmp_path: Path) -> None:
    """What the file says is what was chosen, the blocks by name."""
    known = facts(n)
    text = recipe_text(known, decide(known), tmp_path / "mine.py")
    (tmp_path / "mine.py").write_text(text)
    stages = load_recipe(tmp_path / "mine.py").stages
    assert [(s.epochs, s.lr) for s in stages] == [(p.epochs, p.lr) for p in parts_of(decide(known))]
    assert [s.unfreeze for s in stages] == ["head", "layer4", "layer3"][: len(stages)]
    assert [s.size for s in stages] == ([64, 64, None] if n == 6000 else [None, None])


@pytest.mark.parametrize("name", ['a"""\nimport sys', "it's", "both\"'", "back\\slash\\", "new\nline\r\u2028x", "{f}"])
def test_no_name_becomes_code(name: str, tmp_path: Path) -> None:
    """Folders and classes come from data: in the file they are words and nothing else."""
    known = facts(folder=tmp_path / name, train=Counter({name: 900, "b": 100}), valid=Counter({name: 90, "b": 10}))
    known = replace(known, machine=Machine(False, name))
    file = tmp_path / "mine.py"
    file.write_text(recipe_text(known, decide(known), Path(name)), encoding="utf-8")
    recipe = load_recipe(file)
    assert recipe.source == str((tmp_path / name).resolve())
    assert "import sys" not in file.read_text().splitlines()
    assert sys.modules  # nothing above ended the program


@pytest.mark.parametrize(
    ("spoil", "words", "message"),
    [
        (shutil.rmtree, [], "{D}: no such folder; give the folder of the images, one folder per class in it"),
        (lambda d: [shutil.rmtree(d), d.touch()], [], "{D}: is a file; give the folder of the images, one folder per class in it"),
        (lambda d: [p.unlink() for p in d.rglob("*.png")], [], "data: {D}: no images found; expected one folder per class with .jpg or .png files"),
        (lambda d: [shutil.rmtree(d / c) for c in ("circle", "cross")], [], "data: only one class 'square' in {D}; at least 2 are needed, one folder for each"),
        (lambda d: [p.write_text("x") for p in d.rglob("*.png")], [], "data: none of the 24 images in {D} can be read; repair them"),
        (lambda d: [p.unlink() for p in (d / "cross").iterdir()], ["--arch", "test_resnet"], "data: class 'cross' has no images; add some to {D}/cross or remove the folder"),
        (lambda d: (d / "mine.py").touch(), ["--write", "{D}/mine.py"], "--write {D}/mine.py: exists already; give another name"),
        (lambda d: None, ["--write", "mine.txt"], "--write mine.txt: expected the name of a new recipe file that ends in .py"),
        (lambda d: None, ["--write", "no/such/mine.py"], "--write no/such/mine.py: no/such is no folder; make it first"),
        (lambda d: None, ["--minutes", "0"], "--minutes 0: expected a number > 0, such as 20"),
        (lambda d: None, ["--minutes", "nan"], "--minutes nan: expected a number > 0, such as 20"),
        (lambda d: None, ["--arch", "test_resnet1"], None),
    ],
)  # fmt: skip
def test_wrong_input(
    cli: Cli, tmp_path: Path, monkeypatch: Any, spoil: Any, words: list[str], message: str | None
) -> None:
    """One clear line, exit code 2, nothing written."""
    data = make_images(tmp_path / "photos", n=8)
    assert len(COLOURS) == 3
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    spoil(data)
    told = cli("advise", data, *(word.replace("{D}", str(data)) for word in words))
    if message is None:
        assert told.err.startswith(
            "error: --arch test_resnet1: 'test_resnet1' is unknown to timm and torchvision; close: "
        )
        assert told.err.count("\n") == 1
    else:
        assert told.err == f"error: {message.replace('{D}', str(data))}\n"
    assert (told.out, told.code) == ("", 2)
    assert list((tmp_path / "here").iterdir()) == []
