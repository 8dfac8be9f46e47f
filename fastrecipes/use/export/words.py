"""How to use what was exported, as Python that a model card shows: photo.jpg in, the likeliest classes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fastai.vision.augment import RandomResizedCrop

from fastrecipes.data.view import View
from fastrecipes.use.export.subject import Subject

__all__ = ["TOLD", "asked_simply", "code", "first_line", "numpy_usage", "simple", "torch_usage"]

TOLD = """for i in probs.argsort()[::-1][:3]:
    print(f"{classes[i]}: {probs[i]:.4f}")"""
_FITTED = {
    "crop": """scale = min(image.width / {w}, image.height / {h})
w, h = int(scale * {w}), int(scale * {h})
left, top = (image.width - w) // 2, (image.height - h) // 2
image = image.crop((left, top, left + w, top + h)).resize(({w}, {h}), Image.Resampling.BILINEAR)""",
    "pad": "image = ImageOps.pad(image, ({w}, {h}), Image.Resampling.BILINEAR)",
    "resize": "image = image.resize(({w}, {h}), Image.Resampling.BILINEAR)",
}
_OWN_CODE = (
    "Its input is `images`, float32 (n, 3, {h}, {w}), as the validation of the recipe's own DataBlock gives them: "
    "resizing is code of the recipe, which no file of this format holds."
)
_PIXELS = (
    "Its input is `pixels`, uint8 (n, height, width, 3), RGB, of any size; images of one size can go together. Resize, crop, "
    "normalisation and softmax are inside, with the very weights of Pillow's resize. An image that already has the size "
    "to which the program resizes goes through unchanged."
)


def first_line(error: BaseException) -> str:
    """The first line of an error that says something."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def code(install: str, *parts: str) -> str:
    """What to install, and the parts of a program, in Markdown."""
    return f"    {install}\n\n```python\n" + "\n\n".join(parts) + "\n```"


def _input(subject: Subject) -> str:
    if subject.input == "pixels":
        return 'pixels = numpy.asarray(Image.open("photo.jpg").convert("RGB"))[None]'
    h, w = subject.size
    return f'images = numpy.load("images.npy").astype("float32")  # (n, 3, {h}, {w}), resized and normalised'


def _about_input(subject: Subject) -> str:
    h, w = subject.size
    return _PIXELS if subject.input == "pixels" else _OWN_CODE.format(h=h, w=w)


def numpy_usage(subject: Subject, install: str, imports: Sequence[str], opened: str, asked: str) -> str:
    """A program that is asked with a numpy array. `asked`: the expression that gives the probabilities of one image."""
    before = "\n".join(["import json\n", "import numpy", *imports, "from PIL import Image"])
    return (
        code(install, before, opened, f"{_input(subject)}\nprobs = {asked}\n{TOLD}") + f"\n\n{_about_input(subject)}\n"
    )


def torch_usage(subject: Subject, install: str, opened: str) -> str:
    """A program that is asked with a tensor."""
    before = "import json\n\nimport numpy\nimport torch\nfrom PIL import Image"
    asked = (
        f"{_input(subject)}\nwith torch.no_grad():\n    probs = net(torch.tensor({subject.input}))[0].numpy()\n{TOLD}"
    )
    return code(install, before, opened, asked) + f"\n\n{_about_input(subject)}\n"


class Simple(NamedTuple):
    """How PIL and torch load an image nearly as the run does."""

    fit: str
    """crop: the middle of the cut's shape; pad or resize: PIL's function"""
    cut: tuple[int, int]
    """height, width that it makes"""
    size: tuple[int, int]
    """height, width that torch makes of that, with the corners where they were"""


def simple(subject: Subject) -> Simple:
    """In the run's own two steps where these are a resize and one more to the network's size, else in one."""
    size = subject.size
    if not isinstance(subject.view, View):
        return Simple("crop", size, size)
    known = subject.view.known
    if type(known.item) is RandomResizedCrop:
        return Simple("resize", size, size)
    fit = {"squish": "resize", "pad": "pad"}.get(str(known.item.method), "crop")
    twice = known.crop is None and all(a <= 2 * b for a, b in zip(known.cut, size, strict=True))
    return Simple(fit, known.cut if twice else size, size)


def asked_simply(subject: Subject) -> str:
    """Python that loads photo.jpg so, and asks `net` for `classes`."""
    fit, (h, w), size = simple(subject)
    mean, std = subject.stats
    fitted = _FITTED[fit].format(w=w, h=h)
    again = f'\nx = torch.nn.functional.interpolate(x, {list(size)}, mode="bilinear", align_corners=True)'
    return f"""image = Image.open("photo.jpg").convert("RGB")
{fitted}
x = torch.tensor(numpy.array(image)).permute(2, 0, 1)[None] / 255{again if (h, w) != size else ""}
x = (x - torch.tensor({mean}).view(3, 1, 1)) / torch.tensor({std}).view(3, 1, 1)
with torch.no_grad():
    probs = net(x).softmax(1)[0].numpy()
{TOLD}"""
