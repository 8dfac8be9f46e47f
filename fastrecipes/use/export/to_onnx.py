"""ONNX: the whole program, for onnxruntime and whatever else reads it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastrecipes.use.export.reader import Reader, of_program
from fastrecipes.use.export.shapes import dynamic_shapes
from fastrecipes.use.export.subject import Subject
from fastrecipes.use.export.words import numpy_usage

FILE = "model.onnx"
_EXTRA = "'fastrecipes[onnx]'"
PACKAGES = {"onnx": _EXTRA, "onnxscript": _EXTRA, "onnxruntime": _EXTRA}


def write(subject: Subject, folder: Path) -> None:
    """One file; the metadata are its `metadata_props`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, to those who export, about its own insides
        made: Any = torch.onnx.export(
            subject.program, (subject.example,), dynamo=True, external_data=False, verbose=False,
            input_names=[subject.input], output_names=["probabilities"], dynamic_shapes=dynamic_shapes(subject),
        )  # fmt: skip
    model = made.model_proto
    _forget_sources(model)
    for key, value in subject.about.items():
        model.metadata_props.add(key=key, value=value)
    (folder / FILE).write_bytes(model.SerializeToString())


def _forget_sources(model: Any) -> None:
    """Take out where in whose files each step was written, which torch notes for its developers."""
    for graph in (model.graph, *model.functions):
        for part in (graph, *graph.node, *graph.value_info):
            del part.metadata_props[:]
            if hasattr(part, "doc_string"):
                part.doc_string = ""


def reader(subject: Subject, folder: Path) -> Reader:
    """onnxruntime on the CPU."""
    from onnxruntime import InferenceSession, SessionOptions  # type: ignore[import-not-found]  # an extra

    options = SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = InferenceSession(str(folder / FILE), options, providers=["CPUExecutionProvider"])

    def run(x: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {subject.input: x.numpy()})[0])

    return of_program(subject, run)


def usage(subject: Subject) -> str:
    """With numpy and Pillow alone."""
    return numpy_usage(
        subject,
        "pip install onnxruntime pillow",
        ["import onnxruntime"],
        f"""session = onnxruntime.InferenceSession("{FILE}")
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])""",
        f'session.run(None, {{"{subject.input}": {subject.input}}})[0][0]',
    )
