"""What torchvision's classification networks are made of: one table, one line of patterns a family."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastrecipes.errors import RecipeError

if TYPE_CHECKING:
    from torch import nn

    from fastrecipes.nets.fetch import Remote

__all__ = [
    "FAMILIES", "Family", "build", "builders", "groups", "head", "last_layers", "modern", "names",
    "native_size", "remote", "stats",
]  # fmt: skip


@dataclass(frozen=True)
class Family:
    """How one family (a module of `torchvision.models`) is built, cut into blocks and read from old files.

    `head`: path of the classifier.
    `blocks`: name of a block -> pattern that its parameters' names start with, bottom to top; `{}` in a name
    is what the pattern's group caught. A function where the patterns depend on the network.
    `options`: arguments for the builder.
    `sized`: the builder's argument for the one image size that the network then takes.
    `renamed`: (pattern, replacement) for tensor names of older files.
    `unused`: pattern of what a file may hold in excess.
    """

    head: str
    blocks: Mapping[str, str] | Callable[[nn.Module], Mapping[str, str]]
    options: Mapping[str, Any] = field(default_factory=dict)
    sized: str = ""
    renamed: tuple[tuple[str, str], ...] = ()
    unused: str = ""


def _between_pools(net: nn.Module) -> dict[str, str]:
    """Patterns for networks that are one list of layers, `features`: a block ends at each max-pool."""
    runs: list[list[str]] = [[]]
    for i, layer in net.get_submodule("features").named_children():
        if type(layer).__name__ == "MaxPool2d":
            runs.append([])
        elif next(layer.parameters(), None) is not None:
            runs[-1].append(i)
    kept = [run for run in runs if run]
    return {
        "stem" if run is kept[0] else f"features.{run[0]}": rf"features\.(?:{'|'.join(run)})\."
        for run in kept
    }


_FEATURES = {"features.{}": r"features\.(\d+)\."}
# In ConvNeXt and Swin the even layers shrink the image for the stage that follows.
_PAIRS = {
    "stem": r"features\.0\.",
    "features.1": r"features\.1\.",
    "features.3": r"features\.[23]\.",
    "features.5": r"features\.[45]\.",
    "features.7": r"features\.[67]\.",
}
_DENSE = {
    "stem": r"features\.(?:conv0|norm0)\.",
    "features.denseblock1": r"features\.denseblock1\.",
    "features.denseblock2": r"features\.(?:transition1|denseblock2)\.",
    "features.denseblock3": r"features\.(?:transition2|denseblock3)\.",
    "features.denseblock4": r"features\.(?:transition3|denseblock4)\.",
}
_MNAS = {"stem": r"layers\.[0-7]\.", "layers.{}": r"layers\.([89]|1[0-3])\.", "layers.14": r"layers\.1[45]\."}
_VIT = {
    "stem": r"class_token|conv_proj\.|encoder\.pos_embedding",
    "encoder.layers.encoder_layer_{}": r"encoder\.layers\.encoder_layer_(\d+)\.",
}
# The published weights of these two were trained with 0.5 as mean and std; with `transform_input` they take
# images normalised as ImageNet's. torchvision sets it when it loads the weights.
_INCEPTION = {"aux_logits": False, "init_weights": True, "transform_input": True}
_AUX = r"AuxLogits\.|aux\d\."

FAMILIES = {
    "alexnet": Family("classifier", _between_pools),
    "convnext": Family("classifier", _PAIRS),
    "densenet": Family(
        "classifier", _DENSE, renamed=((r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\.", r"\1\2."),)
    ),
    "efficientnet": Family("classifier", _FEATURES),
    "googlenet": Family(
        "fc", {"stem": r"conv\d\.", "inception{}": r"inception(\d)"}, _INCEPTION, unused=_AUX
    ),
    "inception": Family("fc", {"stem": r"Conv2d_", "Mixed_{}": r"Mixed_(\d)"}, _INCEPTION, unused=_AUX),
    "maxvit": Family("classifier", {"stem": r"stem\.", "blocks.{}": r"blocks\.(\d+)\."}, sized="input_size"),
    "mnasnet": Family("classifier", _MNAS),
    "mobilenetv2": Family("classifier", _FEATURES),
    "mobilenetv3": Family("classifier", _FEATURES),
    "regnet": Family("fc", {"stem": r"stem\.", "trunk_output.block{}": r"trunk_output\.block(\d)\."}),
    "resnet": Family("fc", {"stem": r"(?:conv1|bn1)\.", "layer{}": r"layer(\d)\."}),
    "shufflenetv2": Family("fc", {"stem": r"conv1\.", "stage{}": r"stage(\d)\.", "conv5": r"conv5\."}),
    "squeezenet": Family("classifier", _between_pools),
    "swin_transformer": Family("head", _PAIRS),
    "vgg": Family("classifier", _between_pools),
    "vision_transformer": Family(
        "heads",
        _VIT,
        sized="image_size",
        renamed=((r"mlp\.linear_1\.", "mlp.0."), (r"mlp\.linear_2\.", "mlp.3.")),
    ),
}


def builders() -> dict[str, Callable[..., nn.Module]]:
    """Name -> function of each classification network that is served here."""
    from torchvision import models

    found = {name: models.get_model_builder(name) for name in models.list_models(module=models)}
    return {name: f for name, f in found.items() if f.__module__.rpartition(".")[2] in FAMILIES}


def names() -> list[str]:
    """All names that `torchvision/NAME` may say."""
    return sorted(builders())


def _family(name: str) -> Family:
    return FAMILIES[builders()[name].__module__.rpartition(".")[2]]


def _weights(name: str) -> Any | None:
    from torchvision.models import get_model_weights

    return getattr(get_model_weights(name), "DEFAULT", None)


def native_size(name: str) -> tuple[int, bool]:
    """The image size in pixels that the default weights were tested with, and whether no other fits."""
    weights = _weights(name)
    return (weights.transforms().crop_size[0] if weights else 224), bool(_family(name).sized)


def build(name: str, n_classes: int, size: int | None) -> nn.Module:
    """A network with random weights and `n_classes` outputs; `size` makes no difference to torchvision's."""
    family, (native, _) = _family(name), native_size(name)
    sized = (
        {family.sized: (native, native) if family.sized == "input_size" else native} if family.sized else {}
    )
    return builders()[name](weights=None, num_classes=n_classes, **family.options, **sized)


def head(net: nn.Module, name: str) -> tuple[str, ...]:
    """Paths of the whole classifier."""
    return (_family(name).head,)


def last_layers(net: nn.Module, name: str) -> tuple[str, ...]:
    """Paths of the layers that `n_classes` shapes: the last one in the classifier that has a weight."""
    top = _family(name).head
    layers = [
        path for path, m in net.get_submodule(top).named_modules() if getattr(m, "weight", None) is not None
    ]
    return (f"{top}.{layers[-1]}".rstrip("."),)


def groups(net: nn.Module, name: str) -> list[tuple[str, list[str]]]:
    """(block name, names of its parameters), bottom to top; a nameless last one is what no pattern asked for.

    Raises RecipeError where that rest is more than norms: the table knows another version of the network.
    """
    family = _family(name)
    patterns = family.blocks if isinstance(family.blocks, Mapping) else family.blocks(net)
    found: dict[str, list[str]] = {}
    for path, _ in net.named_parameters():
        if not path.startswith(f"{family.head}."):
            found.setdefault(_block_of(path, patterns), []).append(path)
    rest = found.pop("", [])
    if any(net.get_parameter(path).ndim > 1 for path in rest):
        raise RecipeError(
            f"arch: torchvision/{name} cannot be cut into blocks: no rule covers {', '.join(rest[:3])}"
        )
    return [*found.items(), *([("", rest)] if rest else [])]


def _block_of(path: str, patterns: Mapping[str, str]) -> str:
    for name, pattern in patterns.items():
        if match := re.match(pattern, path):
            return name.format(*match.groups())
    return ""


def stats(name: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and standard deviation of the images that the default weights were trained with."""
    weights = _weights(name)
    preset = weights.transforms() if weights else None
    return (tuple(preset.mean), tuple(preset.std)) if preset else None


def remote(name: str) -> Remote | None:
    """Where the default weights are kept, or nothing where torchvision has none."""
    from fastrecipes.nets.fetch import HubFile

    weights = _weights(name)
    return HubFile(f"torchvision {weights.name}", weights.url) if weights else None


def modern(state: dict[str, Any], net: nn.Module, name: str) -> dict[str, Any]:
    """A state dict with the tensor names of today's torchvision, and no more than the network has."""
    family = _family(name)
    for old, new in family.renamed:
        state = {re.sub(old, new, key): value for key, value in state.items()}
    return {k: v for k, v in state.items() if not (family.unused and re.match(family.unused, k))}
