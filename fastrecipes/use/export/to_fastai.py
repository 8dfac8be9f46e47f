"""fastai: a Learner for `load_learner`, with fastai's, timm's and torchvision's classes alone in it. A pickle: reading one runs code."""

from __future__ import annotations

import io
import pickletools
import re
import warnings
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from fastai.data.block import CategoryBlock, DataBlock
from fastai.data.transforms import parent_label
from fastai.learner import Learner, load_learner
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import accuracy
from fastai.vision.core import PILImage
from fastai.vision.data import ImageBlock
from fasttransform import Transform
from PIL import Image
from torch import Tensor

from fastrecipes.data.view import View
from fastrecipes.errors import RecipeError
from fastrecipes.use.export.by_value import by_value
from fastrecipes.use.export.plain import plain_net
from fastrecipes.use.export.reader import Reader
from fastrecipes.use.export.subject import Subject
from fastrecipes.use.export.words import TOLD, code

FILE = "model.pkl"
PACKAGES: dict[str, str] = {}
_OURS = re.compile(r"fastrecipes(\.\w+)*( [A-Za-z_][\w.]*)?")  # a module, and perhaps a name in it


def write(subject: Subject, folder: Path) -> None:
    """One file. Functions of a recipe's own are in it by value. Raises RecipeError where a class of ours would have to be."""
    learn = _learner(subject)
    learn.about = dict(subject.about)
    buffer = io.BytesIO()
    with by_value(subject.trained.recipe) as pickle_module:
        torch.save(learn, buffer, pickle_module=pickle_module)
    data = buffer.getvalue()
    ours = sorted(named_in(data))
    if ours:
        raise RecipeError(
            f"--to fastai: the file would need fastrecipes to be read ({', '.join(ours)}); leave that out of the recipe's data "
            "or head, or give another format"
        )
    (folder / FILE).write_bytes(data)


def named_in(data: bytes) -> set[str]:
    """Every module of ours that reading a file of `torch.save` would import; nothing is unpickled for it."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        texts = [text for _, text, _ in pickletools.genops(archive.read(name)) if isinstance(text, str)]
    return {text.split(" ")[0] for text in texts if _OURS.fullmatch(text)}


def _learner(subject: Subject) -> Any:
    """A Learner with the run's validation transforms and no items."""
    view: Any = subject.view
    if isinstance(view, View):
        item_tfms, getter = [view.known.item], parent_label
    else:
        item_tfms, getter = view.block.item_tfms, view.block.getters[-1]
    with TemporaryDirectory() as folder:
        dls = _one_image(_seen(item_tfms), _seen(view.batch_tfms), Path(folder), subject.vocab)
    for labels in (dls.train_ds.tls[1], dls.valid_ds.tls[1]):
        labels.tfms.fs[0] = Transform(getter)
    dls = dls.new_empty()
    dls.path = Path()
    learn: Any = Learner(dls, plain_net(subject.net), loss_func=CrossEntropyLossFlat(), metrics=accuracy, path=Path())
    learn.opt = None
    return learn


def _seen(tfms: Any) -> list[Any]:
    """Without the transforms that training images alone go through."""
    return [tfm for tfm in tfms if getattr(tfm, "split_idx", None) != 0]


def _one_image(item_tfms: list[Any], batch_tfms: list[Any], folder: Path, vocab: tuple[str, ...]) -> Any:
    """Dataloaders of one image, at which fastai wants to look as it makes them."""
    file = folder / "image.png"
    Image.new("RGB", (64, 64)).save(file)
    block: Any = DataBlock(
        blocks=[ImageBlock, CategoryBlock(vocab=list(vocab), sort=False)], get_items=lambda _: [file, file],
        get_y=lambda _: vocab[0], splitter=lambda _: ([0], [1]), item_tfms=item_tfms, batch_tfms=batch_tfms,
    )  # fmt: skip
    return block.dataloaders(folder, path=folder, bs=1, num_workers=0, device=torch.device("cpu"))


def reader(subject: Subject, folder: Path) -> Reader:
    """By fastai's `load_learner` and `predict`."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "load_learner` uses Python's insecure pickle", UserWarning)
        learn: Any = load_learner(folder / FILE)
    assert tuple(map(str, learn.dls.vocab)) == subject.vocab

    def one(image: Image.Image) -> Tensor:
        with learn.no_bar(), learn.no_logging():
            return torch.as_tensor(learn.predict(PILImage.create(image.convert("RGB")))[2])

    return Reader(one)


def usage(subject: Subject) -> str:
    """By fastai."""
    timm = "timm " if subject.arch.library == "timm" else ""
    said = code(
        f"pip install fastai {timm}".rstrip(),
        "from fastai.learner import load_learner\nfrom fastai.vision.core import PILImage",
        f"""learn = load_learner("{FILE}")
classes = learn.dls.vocab""",
        f"""image = PILImage.create("photo.jpg")
with learn.no_bar():
    probs = learn.predict(image)[2].numpy()
{TOLD}""",
    )
    return f"""{said}

Many images: `learn.get_preds(dl=learn.dls.test_dl(files))`. PNGs with transparency and grey images are read as RGB, as in the
run. **The file is a pickle: `load_learner` runs what is in it. Load it only where you trust who wrote it**, and with the
versions of fastai, torch and {subject.arch.library} named below; the other formats run nothing.
"""
