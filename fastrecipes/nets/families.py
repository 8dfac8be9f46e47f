"""The families of torchvision's classification networks: one table, a line or two for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

__all__ = ["FAMILIES", "Family"]


@dataclass(frozen=True)
class Family:
    """How one family (a module of `torchvision.models`) is built, cut into blocks and read from old files.

    `head`: path of the classifier.
    `place`: path, where it is not `head`, of what a head of the recipe's own takes the place of: a norm that the
    classifier begins with stays.
    `pools`: paths of the layers that make one vector of the map, in order; empty where the classifier does it, None
    where it is done by a function.
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
    place: str = ""
    pools: tuple[str, ...] | None = ("avgpool",)
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
    return {"stem" if run is kept[0] else f"features.{run[0]}": rf"features\.(?:{'|'.join(run)})\." for run in kept}


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
    "convnext": Family("classifier", _PAIRS, place="classifier.2", pools=("avgpool", "classifier.1")),
    "densenet": Family(
        "classifier", _DENSE, pools=None, renamed=((r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\.", r"\1\2."),)
    ),
    "efficientnet": Family("classifier", _FEATURES),
    "googlenet": Family("fc", {"stem": r"conv\d\.", "inception{}": r"inception(\d)"}, _INCEPTION, unused=_AUX),
    "inception": Family("fc", {"stem": r"Conv2d_", "Mixed_{}": r"Mixed_(\d)"}, _INCEPTION, unused=_AUX),
    "maxvit": Family("classifier", {"stem": r"stem\.", "blocks.{}": r"blocks\.(\d+)\."}, pools=(), sized="input_size"),
    "mnasnet": Family("classifier", _MNAS, pools=None),
    "mobilenetv2": Family("classifier", _FEATURES, pools=None),
    "mobilenetv3": Family("classifier", _FEATURES),
    "regnet": Family("fc", {"stem": r"stem\.", "trunk_output.block{}": r"trunk_output\.block(\d)\."}),
    "resnet": Family("fc", {"stem": r"(?:conv1|bn1)\.", "layer{}": r"layer(\d)\."}),
    "shufflenetv2": Family("fc", {"stem": r"conv1\.", "stage{}": r"stage(\d)\.", "conv5": r"conv5\."}, pools=None),
    "squeezenet": Family("classifier", _between_pools, pools=()),
    "swin_transformer": Family("head", _PAIRS),
    "vgg": Family("classifier", _between_pools),
    "vision_transformer": Family(
        "heads",
        _VIT,
        pools=None,
        sized="image_size",
        renamed=((r"mlp\.linear_1\.", "mlp.0."), (r"mlp\.linear_2\.", "mlp.3.")),
    ),
}
