"""safetensors: the weights alone, under the names that the network's library gives them. Reading one runs no code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load, save

from fastrecipes.nets.arch import build_net
from fastrecipes.nets.library import library_of
from fastrecipes.use.export.reader import Reader, of_network
from fastrecipes.use.export.subject import Subject
from fastrecipes.use.export.words import asked_simply, code

FILE = "model.safetensors"
PACKAGES: dict[str, str] = {}


def write(subject: Subject, folder: Path) -> None:
    """One file; the metadata stand in its header."""
    state = {name: tensor.contiguous().clone() for name, tensor in subject.net.state_dict().items()}
    (folder / FILE).write_bytes(save(state, metadata=subject.about))


def reader(subject: Subject, folder: Path) -> Reader:
    """The weights in a network that is built anew."""
    path = folder / FILE
    with safe_open(str(path), framework="np") as file:
        assert file.metadata() == subject.about
    net = build_net(subject.arch, len(subject.vocab), size=subject.built_for, head=subject.head).eval()
    net.load_state_dict(load(path.read_bytes()))
    return of_network(subject, net)


def usage(subject: Subject) -> str:
    """By the library that the network comes from; with a head of the recipe's own by fastrecipes."""
    opened = f"""state = load_file("{FILE}")
net.load_state_dict(state)
with safe_open("{FILE}", framework="pt") as file:
    classes = json.loads(file.metadata()["classes"])"""
    install, imported, built = _built(subject)
    before = "\n".join([
        "import json\n", "import numpy", *sorted(["import torch", *imported]), "from PIL import Image, ImageOps",
        "from safetensors import safe_open", "from safetensors.torch import load_file",
    ])  # fmt: skip
    return code(install, before, f"{built}\n{opened}", asked_simply(subject))


def _built(subject: Subject) -> tuple[str, list[str], str]:
    """What to install and to import, and Python that builds the network."""
    library, name, n = subject.arch.library, subject.arch.name, len(subject.vocab)
    if subject.own_head:
        head = subject.trained.info.get("fields", {}).get("head")
        built = f'net = build_net(find_arch("{subject.arch}"), {n}, size={subject.built_for}, head={head}).eval()'
        imports = ["from fastrecipes.declare.heads import *", "from fastrecipes.nets.arch import build_net, find_arch"]
        return "pip install fastrecipes", imports, built
    options: dict[str, Any] = library_of(subject.arch).options(subject.net, name)
    said = "".join(f", {option}={value!r}" for option, value in options.items())
    if library == "timm":
        built = f'net = timm.create_model("{name}", num_classes={n}{said}).eval()'
    else:
        built = f"net = torchvision.models.{name}(num_classes={n}{said}).eval()"
    return f"pip install {library} safetensors numpy pillow", [f"import {library}"], built
