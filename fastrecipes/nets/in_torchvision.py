"""What torchvision's classification networks are made of, as the table of families says."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from fastrecipes.errors import RecipeError
from fastrecipes.nets.families import FAMILIES, Family

if TYPE_CHECKING:
    from torch import nn

    from fastrecipes.nets.fetch import Remote

__all__ = [
    "build",
    "builders",
    "groups",
    "head",
    "last_layers",
    "modern",
    "names",
    "native_size",
    "open_map",
    "options",
    "places",
    "remote",
    "stats",
]


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
    return builders()[name](weights=None, num_classes=n_classes, **_options(name))


def _options(name: str) -> dict[str, Any]:
    family, (native, _) = _family(name), native_size(name)
    sized = {family.sized: (native, native) if family.sized == "input_size" else native} if family.sized else {}
    return {**family.options, **sized}


def options(net: nn.Module, name: str) -> dict[str, Any]:
    """The arguments that `net` was built with, beside the number of classes."""
    return _options(name)


def head(net: nn.Module, name: str) -> tuple[str, ...]:
    """Paths of the whole classifier."""
    return (_family(name).head,)


def places(net: nn.Module, name: str) -> tuple[str, ...]:
    """Path of what a head of the recipe's own takes the place of."""
    return (_family(name).place or _family(name).head,)


def open_map(net: nn.Module, name: str, pool: nn.Module) -> bool:
    """Put `pool` in place of the network's own pooling; False where the classifier is given the map itself.

    Raises ValueError where a function does the pooling.
    """
    from torch import nn

    pools = _family(name).pools
    if pools is None:
        raise ValueError("it pools by a function, not by a layer")
    for path in pools:
        net.set_submodule(path, pool if path == pools[-1] else nn.Identity())
    return bool(pools)


def last_layers(net: nn.Module, name: str) -> tuple[str, ...]:
    """Paths of the layers that `n_classes` shapes: the last one in the classifier that has a weight."""
    top = _family(name).head
    layers = [path for path, m in net.get_submodule(top).named_modules() if getattr(m, "weight", None) is not None]
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
        raise RecipeError(f"arch: torchvision/{name} cannot be cut into blocks: no rule covers {', '.join(rest[:3])}")
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
