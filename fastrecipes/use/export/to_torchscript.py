"""TorchScript: the whole program as `.pt`, for programs in C++ and older torch. torch itself calls it deprecated."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.jit._trace import TracerWarning

from fastrecipes.errors import RecipeError
from fastrecipes.use.export.reader import Reader, of_program
from fastrecipes.use.export.subject import Subject
from fastrecipes.use.export.words import first_line, torch_usage

FILE = "model.pt"
PACKAGES: dict[str, str] = {}
_SOURCES = ".debug_pkl"  # where in whose files each step was written
_ENDS = ("version", ".data/serialization_id")  # the writer adds them itself


def write(subject: Subject, folder: Path) -> None:
    """One file; the metadata are its extra files, a text a name."""
    with _quietly():
        try:
            program: Any = torch.jit.trace(subject.program, (subject.example,), check_trace=False)
        except Exception as e:
            raise RecipeError(f"--to torchscript: {subject.arch} cannot be traced: {first_line(e)}") from e
        buffer = io.BytesIO()
        torch.jit.save(program, buffer, _extra_files=subject.about)
    (folder / FILE).write_bytes(_without_sources(buffer.getvalue()))


def _without_sources(data: bytes) -> bytes:
    """The same archive less its notes for developers, which name folders of this machine."""
    old, buffer = torch._C.PyTorchFileReader(io.BytesIO(data)), io.BytesIO()
    new = torch._C.PyTorchFileWriter(buffer)
    for name in old.get_all_records():
        if not name.endswith((_SOURCES, *_ENDS)):
            record = old.get_record(name)
            new.write_record(name, record, len(record))
    new.write_end_of_file()
    return buffer.getvalue()


@contextmanager
def _quietly() -> Iterator[None]:
    """Without torch's word that TorchScript is deprecated, and without its guesses of what a trace fixes: it is checked."""
    with warnings.catch_warnings(), torch.no_grad():
        for word in ("trace", "trace_method", "save", "load"):
            warnings.filterwarnings("ignore", rf"`torch\.jit\.{word}` is deprecated", FutureWarning)
            warnings.filterwarnings("ignore", rf"`torch\.jit\.{word}` is deprecated", DeprecationWarning)
        warnings.simplefilter("ignore", TracerWarning)
        yield


def reader(subject: Subject, folder: Path) -> Reader:
    """torch, with nothing but the file."""
    with _quietly():
        return of_program(subject, torch.no_grad()(torch.jit.load(folder / FILE)))


def usage(subject: Subject) -> str:
    """With torch and Pillow."""
    return torch_usage(
        subject,
        "pip install torch numpy pillow",
        f"""about = {{"classes": ""}}
net = torch.jit.load("{FILE}", _extra_files=about)
classes = json.loads(about["classes"])""",
    )
