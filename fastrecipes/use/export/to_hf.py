"""hf: a folder for timm and the Hugging Face Hub, `model.safetensors` and `config.json`; reading one runs no code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save
from timm.data.config import resolve_model_data_config
from timm.data.transforms_factory import create_transform
from timm.models._hub import save_config_for_hf

from fastrecipes.errors import RecipeError
from fastrecipes.nets.library import library_of
from fastrecipes.use.export.reader import Reader, of_network
from fastrecipes.use.export.subject import Subject
from fastrecipes.use.export.words import asked_simply, code, simple

FILE = "model.safetensors"
PACKAGES: dict[str, str] = {}
_KEPT = (
    "architecture",
    "first_conv",
    "classifier",
    "input_size",
    "fixed_input_size",
    "pool_size",
)  # of timm's own config
_CROPS = {"crop": "center", "pad": "border", "resize": "squash"}
_CLOSE = 1e-3


def write(subject: Subject, folder: Path) -> None:
    """Weights and config; class names are its `label_names`. Raises RecipeError where timm has no such network."""
    net, options = _in_timm(subject)
    config = {name: value for name, value in net.pretrained_cfg.items() if name in _KEPT}
    mean, std = subject.stats
    size: Any = (3, *subject.size)
    config |= {"interpolation": "bilinear", "crop_pct": 1.0, "crop_mode": _CROPS[simple(subject).fit]}
    net.pretrained_cfg = config | {"mean": mean, "std": std, "num_classes": len(subject.vocab), "input_size": size}
    if net.pretrained_cfg.get("pool_size"):
        net.pretrained_cfg.pop("pool_size")
    names = {"num_classes": len(subject.vocab), "label_names": list(subject.vocab), "run": subject.trained.name}
    save_config_for_hf(net, str(folder / "config.json"), model_config=names, model_args=options)
    state = {name: tensor.contiguous().clone() for name, tensor in net.state_dict().items()}
    (folder / FILE).write_bytes(save(state, metadata={"format": "pt", **subject.about}))


def _in_timm(subject: Subject) -> tuple[Any, dict[str, Any]]:
    """timm's network with these weights, and the arguments that build it beside the number of classes."""
    if subject.own_head:
        raise RecipeError(
            "--to hf: the network has a head of the recipe's own, which timm cannot build; give another format, or head=None"
        )
    arch = subject.arch
    options = library_of(arch).options(subject.net, arch.name) if arch.library == "timm" else {}
    try:
        net: Any = timm.create_model(arch.name, num_classes=len(subject.vocab), **options)
        net.load_state_dict(subject.net.state_dict())
    except (RuntimeError, TypeError) as e:
        raise _none(subject, "timm has none like it") from e
    net.eval().requires_grad_(requires_grad=False)
    x = torch.linspace(-2, 2, 3 * subject.size[0] * subject.size[1]).view(1, 3, *subject.size)
    if (net(x).softmax(1) - subject.probs(x)).abs().max() > _CLOSE:
        raise _none(subject, "timm's of this name computes something else")
    return net, options


def _none(subject: Subject, why: str) -> RecipeError:
    return RecipeError(f"--to hf: {subject.arch} is not timm's, and {why}; give another format")


def reader(subject: Subject, folder: Path) -> Reader:
    """By timm, from the folder alone."""
    net: Any = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    assert tuple(net.pretrained_cfg["label_names"]) == subject.vocab
    transform: Any = create_transform(**resolve_model_data_config(net), is_training=False)
    return of_network(subject, net, {"by timm's create_transform": lambda image: transform(image.convert("RGB"))})


def usage(subject: Subject) -> str:
    """By timm."""
    before = "import numpy\nimport timm\nimport torch\nfrom PIL import Image, ImageOps"
    opened = """net = timm.create_model("local-dir:.", pretrained=True).eval()  # hf-hub:NAME/MODEL where it lies on the Hub
classes = net.pretrained_cfg["label_names"]"""
    said = code("pip install timm numpy pillow", before, opened, asked_simply(subject))
    return f"""{said}

`timm.data.create_transform(**timm.data.resolve_model_data_config(net))` is one resize to the network's size, which is less like the
run's own than the lines above; how much that matters is measured below.
"""
