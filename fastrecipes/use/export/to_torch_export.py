"""torch.export: the whole program as `.pt2`, which torch runs without the network's Python code."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import torch
from torch.export import ExportedProgram, export, load, save

from fastrecipes.use.export.reader import Reader, of_program
from fastrecipes.use.export.shapes import dynamic_shapes
from fastrecipes.use.export.subject import Subject
from fastrecipes.use.export.words import torch_usage

FILE = "model.pt2"
PACKAGES: dict[str, str] = {}
_DEVELOPERS = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn")


def write(subject: Subject, folder: Path) -> None:
    """One file; the metadata are its extra files, a text a name."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = export(subject.program, (subject.example,), dynamic_shapes=dynamic_shapes(subject))
        _forget_sources(program)
        buffer = io.BytesIO()
        save(program, buffer, extra_files=subject.about)
    (folder / FILE).write_bytes(buffer.getvalue())


def _forget_sources(program: ExportedProgram) -> None:
    """Take out where in whose files each step was written."""
    for module in program.graph_module.modules():
        for node in getattr(getattr(module, "graph", None), "nodes", ()):
            for name in _DEVELOPERS:
                node.meta.pop(name, None)


def reader(subject: Subject, folder: Path) -> Reader:
    """torch, with nothing but the file."""
    return of_program(subject, torch.no_grad()(load(folder / FILE).module()))


def usage(subject: Subject) -> str:
    """With torch and Pillow."""
    return torch_usage(
        subject,
        "pip install torch numpy pillow",
        f"""about = {{"classes": ""}}
net = torch.export.load("{FILE}", extra_files=about).module()
classes = json.loads(about["classes"])""",
    )
