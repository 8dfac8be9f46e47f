"""What was trained, written for other programs: it says what the network says, whole or not at all, and needs no code of ours."""

from __future__ import annotations

import errno
import getpass
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Told, make_images
from fastai.data.block import CategoryBlock, DataBlock
from fastai.data.transforms import get_image_files, parent_label
from fastai.vision.augment import RandomResizedCrop, RandomResizedCropGPU, Resize, aug_transforms
from fastai.vision.core import PILImage, imagenet_stats
from fastai.vision.data import ImageBlock
from PIL import Image
from torch import nn

from fastrecipes import RunError, load_recipe, run
from fastrecipes.data.known import Known, known_transforms
from fastrecipes.data.view import View
from fastrecipes.record.checkpoint import load_checkpoint
from fastrecipes.record.files import whole_folder
from fastrecipes.use.export.agreement import LIMIT, Agreement
from fastrecipes.use.export.export import Exported, export
from fastrecipes.use.export.formats import format_named, format_names
from fastrecipes.use.export.program import program_of
from fastrecipes.use.export.resample import Resample
from fastrecipes.use.export.subject import subject_of
from fastrecipes.use.trained import Trained, load

Write = Callable[..., Path]
Cli = Callable[..., Told]

FORMATS = ["fastai", "hf", "onnx", "safetensors", "torch-export", "torchscript"]
PROGRAMS = ["onnx", "torch-export", "torchscript"]
SIDES = [(50, 300), (300, 40), (33, 57), (7, 90), (40, 40), (200, 90)]


def noise(h: int, w: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(h + w).integers(0, 256, (h, w, 3), dtype=np.uint8))


def pixels(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image))[None]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, shapes: Path) -> Trained:
    """A run of two stages of a small network of timm's; read only."""
    from conftest import TINY

    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.py").write_text(TINY.replace("SOURCE", repr(str(shapes))))
    return load(run(load_recipe(folder / "tiny.py"), out=folder / "runs").folder, device="cpu")


def a_run(recipe_file: Write, tmp_path: Path, *replaced: tuple[str, str], recipe: bool = False) -> Trained:
    path = recipe_file(*replaced)
    folder = run(load_recipe(path), out=tmp_path / "runs").folder
    return load(folder, device="cpu", recipe=path if recipe else None)


# the resize, and what follows it


@pytest.mark.parametrize("kind", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("cut", [(40, 40), (31, 65)])
@pytest.mark.parametrize(
    ("method", "pad_mode"),
    [("crop", "zeros"), ("squish", "zeros"), ("pad", "zeros"), ("pad", "border"), ("pad", "reflection")],
)
def test_the_resize_is_pils_bit_for_bit(kind: str, cut: tuple[int, int], method: str, pad_mode: str) -> None:
    """Whatever the image's size, and traced with another one."""
    mode = getattr(Image.Resampling, kind.upper())
    item: Any = Resize(cut, method=method, pad_mode=pad_mode, resamples=(mode, Image.Resampling.NEAREST))  # type: ignore[arg-type]
    resample = Resample(cut, method, pad_mode, kind)
    for side in SIDES:
        image = noise(*side)
        expected = np.asarray(item(PILImage.create(image), split_idx=1))
        assert np.array_equal(resample(pixels(image))[0].permute(1, 2, 0).numpy(), expected), side


@pytest.mark.parametrize("loader", ["one pass", "fastai"])
@pytest.mark.parametrize(
    ("item", "batch"),
    [
        (Resize(40), aug_transforms(size=32)),
        (Resize(32), []),
        (Resize(32, method="squish"), aug_transforms()),  # type: ignore[arg-type]
        (Resize((40, 50)), aug_transforms(size=(32, 44), min_scale=0.6)),
        (Resize(90), aug_transforms(size=32)),
        (RandomResizedCrop(32, min_scale=0.3), []),
        (Resize(60), [RandomResizedCropGPU(32)]),
    ],
)
def test_a_program_sees_what_validation_sees(item: Any, batch: list[Any], loader: str) -> None:
    """For every way of images that a run records."""
    block = DataBlock(
        blocks=[ImageBlock, CategoryBlock],
        get_items=get_image_files,
        get_y=parent_label,
        item_tfms=item,
        batch_tfms=batch,
    )
    known = known_transforms(block)
    assert isinstance(known, Known)
    view = View(known, tuple(imagenet_stats[0]), tuple(imagenet_stats[1]), loader)
    program = program_of(nn.Identity(), nn.Identity(), view)
    for side in SIDES[:3]:
        image = noise(*side)
        assert (program(pixels(image))[0] - view.tensor(image)).abs().max() < 1e-5


def test_an_image_of_the_cuts_size_stays_as_it_is() -> None:
    """Who resizes in his own way is not resized again."""
    image = noise(40, 40)
    assert torch.equal(Resample((40, 40))(pixels(image))[0].permute(1, 2, 0), pixels(image)[0].float())


# every format


def test_the_formats_are_the_modules_that_lie_there() -> None:
    """A new one is a new file; each has what the others have."""
    assert format_names() == FORMATS
    for name in FORMATS:
        form = format_named(name)
        assert all(hasattr(form, part) for part in ("FILE", "PACKAGES", "write", "reader", "usage"))


@pytest.fixture(scope="module")
def exported(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exported]:
    """The run in a format, written once; read only."""
    folder = tmp_path_factory.mktemp("exported")
    return cache(lambda to: export(trained, to, dest=folder / to))


@pytest.mark.parametrize("to", FORMATS)
def test_what_is_exported_says_what_the_network_says(
    trained: Trained, exported: Any, tmp_path: Path, monkeypatch: Any, capsys: Any, to: str
) -> None:
    """On real images; and the Python that the model card shows, without this package, names the same classes."""
    done = exported(to)
    assert {file.name for file in done.files} >= {"README.md", format_named(to).FILE}
    assert re.fullmatch(
        r"checked on 12 images of the run's validation set: largest difference of a probability (0\.0e\+00|\d\.\de-(0[5-9]|1\d)), "
        "the same first class for 12 of 12",
        done.checked[0],
    )
    noise(70, 90).save(done.folder / "photo.jpg", quality=100)
    expected = trained.probs(trained.view.tensor(done.folder / "photo.jpg")[None])[0]
    monkeypatch.chdir(done.folder)
    said = asked_as_the_card_says(monkeypatch, capsys)
    assert list(said) == [trained.vocab[i] for i in expected.argsort(descending=True)]
    assert max(abs(said[label] - float(p)) for label, p in zip(trained.vocab, expected, strict=True)) < 1e-4


def asked_as_the_card_says(monkeypatch: Any, capsys: Any) -> dict[str, float]:
    """What the Python of the card that lies here prints where our package cannot be imported: class -> probability."""
    (code,) = re.findall(r"```python\n(.*?)```", Path("README.md").read_text(), re.DOTALL)
    for name in [name for name in sys.modules if name.partition(".")[0] == "fastrecipes"]:
        monkeypatch.setitem(sys.modules, name, None)
    capsys.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(code, {})
    lines = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    return {label: float(p) for label, p in (line.rsplit(": ", 1) for line in lines)}


@pytest.mark.parametrize("to", FORMATS)
def test_nothing_tells_of_this_machine(trained: Trained, exported: Any, shapes: Path, to: str) -> None:
    """No folder, host or user, in any file, compressed parts too."""
    done = exported(to)
    words = [
        str(shapes.parent),
        str(trained.folder.parent.parent),
        str(done.folder.parent),
        sys.prefix,
        str(Path(torch.__file__).parent),
    ]
    words += [
        str(Path(__file__).parent.parent),
        f"{os.sep}{socket.gethostname()}",
        f"{os.sep}home{os.sep}{getpass.getuser()}",
    ]
    for file in done.files:
        data = file.read_bytes()
        parts = [data]
        if zipfile.is_zipfile(io.BytesIO(data)):
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                parts += [archive.read(name) for name in archive.namelist()]
        for word in words:
            assert not any(word.encode() in part for part in parts), (file.name, word)


def test_every_file_tells_what_it_is(trained: Trained, exported: Any) -> None:
    """Classes, size, mean and std, network and run, where each format has its place for such."""
    import onnx
    from safetensors import safe_open

    about = subject_of(trained).about
    assert json.loads(about["classes"]) == ["circle", "cross", "square"]
    assert (about["size"], about["arch"], about["run"]) == ("[40, 40]", "timm/test_resnet", trained.name)
    made = {to: exported(to).folder for to in FORMATS}
    onnx_props = onnx.load(made["onnx"] / "model.onnx").metadata_props
    assert {prop.key: prop.value for prop in onnx_props} == about
    with safe_open(str(made["safetensors"] / "model.safetensors"), framework="np") as file:
        assert file.metadata() == about
    found = dict.fromkeys(about, "")
    torch.export.load(made["torch-export"] / "model.pt2", extra_files=found)
    assert found == about
    config = json.loads((made["hf"] / "config.json").read_text())
    assert (config["architecture"], config["num_classes"]) == ("test_resnet", 3)
    assert config["label_names"] == ["circle", "cross", "square"]
    assert config["pretrained_cfg"]["input_size"] == [3, 40, 40]
    assert (config["pretrained_cfg"]["crop_pct"], config["pretrained_cfg"]["interpolation"]) == (1.0, "bilinear")


def test_the_card_tells_how_sure_the_result_is(trained: Trained, tmp_path: Path) -> None:
    """The interval is scipy's, of Wilson's score; class names cannot break out of Markdown."""
    named = replace(trained, run=replace_vocab(trained, ("<b>a|b*", "`cross`", "square")))
    export(named, "safetensors", dest=tmp_path / "e")
    card = (tmp_path / "e" / "README.md").read_text()
    accuracy = (trained.best or {})["accuracy"]
    assert re.search(
        rf"- accuracy {accuracy:.4f} on 12 validation images \(95 % interval 0\.\d{{3}} to [01]\.\d{{3}}\)", card
    )
    assert "0. \\<b\\>a\\|b\\*" in card
    assert "| 1 | 2 | 40 | 8 |" in card
    assert not card.startswith("---")
    export(trained, "hf", dest=tmp_path / "hub")
    assert (tmp_path / "hub" / "README.md").read_text().startswith("---\nlibrary_name: timm\n")


def replace_vocab(trained: Trained, vocab: tuple[str, ...]) -> Any:
    import copy

    renamed = copy.copy(trained.run)
    renamed.info = {**trained.info, "plan": {**trained.info["plan"], "vocab": list(vocab)}}
    return renamed


# networks and heads


HEADS = [
    ("test_resnet", "mlp(widths=[8], batchnorm=True)"),
    ("test_resnet", "concat_pool(widths=[8])"),
    ("test_resnet", "fastai_head()"),
    ("test_vit", "concat_pool(widths=[8])"),
    ("test_vit", "linear()"),
]


@pytest.mark.parametrize(("arch", "head"), HEADS)
def test_heads_become_layers_of_others(recipe_file: Write, tmp_path: Path, arch: str, head: str) -> None:
    """In the fastai export no class of ours is left, of any head or pooling; programs take them as they are."""
    trained = a_run(
        recipe_file, tmp_path, ('"test_resnet"', f'"{arch}"'), ("pretrained=False", f"pretrained=False,\n    head={head}"),
        ("sgd\n", f"{head.partition('(')[0]}, sgd\n"), ("unfreeze=1", "unfreeze='head'"), ("size=40", "size=32"),
    )  # fmt: skip
    for to in ("fastai", "safetensors", "torchscript"):
        assert export(trained, to, dest=tmp_path / to).checked[0].endswith("12 of 12")


def test_averaged_weights_in_half_precision(recipe_file: Write, tmp_path: Path) -> None:
    """What is exported is the average, in fp32; how far the run's own precision lay from that is told."""
    path = recipe_file(
        ("pretrained=False", 'pretrained=False,\n    ema=0.9,\n    precision="bf16",\n    channels_last=True')
    )
    folder = run(load_recipe(path), out=tmp_path / "runs").folder
    done = export(load(folder, device="cpu"), "torchscript", dest=tmp_path / "e")
    assert done.checked[1].startswith("the run computed in bf16, this is fp32: largest difference of a probability ")


def test_a_torchvision_network_with_a_twin_in_timm(recipe_file: Write, tmp_path: Path) -> None:
    """resnet18 has the same tensors in both libraries."""
    trained = a_run(recipe_file, tmp_path, ('"test_resnet"', "resnet18"))
    export(trained, "hf", dest=tmp_path / "e")
    assert json.loads((tmp_path / "e" / "config.json").read_text())["architecture"] == "resnet18"


CODE = (
    "\n\ndef data(size):",
    "\n\ndef darker(x: PILImage):\n    return PILImage.create(Image.eval(x, lambda v: v // 2))\n\n\ndef named(path):\n    return path.parent.name\n\n\ndef data(size):",
)


def test_images_that_code_loads(recipe_file: Write, tmp_path: Path, shapes: Path) -> None:
    """The program takes tensors; in the fastai export the recipe's own functions are by value, without their folder."""
    trained = a_run(
        recipe_file, tmp_path, CODE, ("item_tfms=Resize(int(size * 1.14))", "item_tfms=[darker, Resize(int(size * 1.14))]"),
        ("get_y=parent_label", "get_y=named"), recipe=True,
    )  # fmt: skip
    done = export(trained, "torchscript", dest=tmp_path / "t")
    assert done.checked[1] == "images are loaded by code of the recipe, which is not in the file"
    assert f"float32 (n, 3, {trained.size}, {trained.size})" in (tmp_path / "t" / "README.md").read_text()
    export(trained, "fastai", dest=tmp_path / "f")
    data = (tmp_path / "f" / "model.pkl").read_bytes()
    assert b"darker" in data
    assert str(tmp_path).encode() not in data
    code = (
        "import sys, warnings\nsys.modules['fastrecipes'] = None\nwarnings.simplefilter('ignore')\n"
        "from fastai.learner import load_learner\nfrom fastai.data.transforms import get_image_files\n"
        f"learn = load_learner({str(tmp_path / 'f' / 'model.pkl')!r})\nfiles = sorted(get_image_files({str(shapes)!r}))[::8]\n"
        "probs, targets = learn.get_preds(dl=learn.dls.test_dl(files, with_labels=True, num_workers=0))\n"
        "assert [learn.dls.vocab[i] for i in targets] == [f.parent.name for f in files]\n"
        "one = learn.predict(files[0])\nassert (one[2] - probs[0]).abs().max() < 1e-5\nprint(probs.tolist())"
    )
    done_there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    assert done_there.returncode == 0, done_there.stderr
    said = torch.tensor(json.loads(done_there.stdout.splitlines()[-1]))
    files = sorted(get_image_files(shapes))[::8]
    expected = torch.cat([trained.probs(trained.view.tensor(file)[None]) for file in files])
    assert (said - expected).abs().max() < 1e-5


# whole or not at all


def test_what_says_something_else_is_not_kept(trained: Trained, tmp_path: Path, monkeypatch: Any) -> None:
    """A file whose weights were written wrong."""
    form: Any = format_named("safetensors")
    plain = form.save

    def spoilt(state: dict[str, torch.Tensor], **about: Any) -> bytes:
        return plain({name: t * 1.5 if t.is_floating_point() else t for name, t in state.items()}, **about)

    monkeypatch.setattr(form, "save", spoilt)
    with pytest.raises(RunError, match="export: what was written differs from the run's network"):
        export(trained, "safetensors", dest=tmp_path / "e")
    assert list(tmp_path.iterdir()) == []
    nan = torch.full((2, 3), torch.nan)
    assert Agreement.of(nan, torch.full((2, 3), 1 / 3)).largest > LIMIT


def test_a_full_disk_leaves_nothing(trained: Trained, tmp_path: Path, monkeypatch: Any) -> None:
    """Nor does a disk that cannot be written."""

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(RunError) as told:
        export(trained, "safetensors", dest=tmp_path / "e")
    assert (
        str(told.value)
        == f"--dest {tmp_path / 'e'}: the disk is full; nothing is left there; give a folder with more room"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("at", ["write_bytes", "write_text", "rename"])
def test_a_killed_export_leaves_no_half(trained: Trained, tmp_path: Path, at: str) -> None:
    """Killed as it writes weights, the card, or just before the folder gets its name: none is there, and the next is whole."""
    code = (
        f"import os, signal\nfrom pathlib import Path\nPath.{at} = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from fastrecipes.use.trained import load\nfrom fastrecipes.use.export.export import export\n"
        f"export(load({str(trained.folder)!r}, device='cpu'), 'safetensors', dest={str(tmp_path / 'e')!r})"
    )
    root = str(Path(__file__).parent.parent)
    killed = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env={**os.environ, "PYTHONPATH": root}, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "e").exists()
    assert [path.suffix for path in tmp_path.iterdir()] == [".partial"]
    export(trained, "safetensors", dest=tmp_path / "e")
    assert [path.name for path in tmp_path.iterdir()] == ["e"]
    assert {path.name for path in (tmp_path / "e").iterdir()} == {"README.md", "model.safetensors"}


def test_two_at_once(tmp_path: Path) -> None:
    """Who is second to finish finds a folder there, and leaves it alone."""
    folder = tmp_path / "e"

    def slow() -> None:
        with whole_folder(folder) as part:
            (part / "b").touch()
            folder.mkdir()
            (folder / "a").touch()

    with pytest.raises(FileExistsError):
        slow()
    assert [path.name for path in tmp_path.rglob("*")] == ["e", "a"]


# the images that it is checked on, the command


def test_a_run_whose_images_are_gone(recipe_file: Write, tmp_path: Path) -> None:
    """It is checked on generated images, or on those of --sample; and that is said."""
    data = make_images(tmp_path / "data")
    path = recipe_file()
    text = re.sub(r"source='[^']*'|source=\"[^\"]*\"", f"source={str(data)!r}", path.read_text())
    path.write_text(text)
    trained = load(run(load_recipe(path), out=tmp_path / "runs").folder, device="cpu")
    data.rename(tmp_path / "moved")
    assert "8 generated images" in export(trained, "safetensors", dest=tmp_path / "a").checked[0]
    done = export(trained, "safetensors", dest=tmp_path / "b", sample=tmp_path / "moved")
    assert done.checked[0].startswith("checked on 32 images of moved: ")


def test_the_command(cli: Cli, trained: Trained, tmp_path: Path) -> None:
    """Files with their sizes, what was checked, where it is told how to use it; by default inside the run folder."""
    shutil.copytree(trained.folder, tmp_path / "copy")
    told = cli("export", tmp_path / "copy", "--to", "safetensors", "--checkpoint", "last")
    folder = tmp_path / "copy" / "exports" / "safetensors"
    lines = told.out.splitlines()
    assert (told.code, told.err) == (0, "")
    assert re.fullmatch(rf"{re.escape(str(folder / 'README.md'))}  \d\.\d kB", lines[0])
    assert lines[2].startswith("checked on 12 images of the run's validation set: ")
    assert lines[-1] == f"how to use it: {folder / 'README.md'}"
    state = load_checkpoint(trained.folder / "checkpoints" / "last.safetensors")["learner"]["model"]
    from safetensors.torch import load_file

    written = load_file(folder / "model.safetensors")
    assert all(torch.equal(written[name], tensor) for name, tensor in state.items())
