"""Which network is meant, by library and name, and that network built anew."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from fastrecipes.errors import RecipeError
from fastrecipes.nets.blank import REFUSALS, answer, reason_of
from fastrecipes.nets.library import Arch, library_of

if TYPE_CHECKING:
    from torch import nn

__all__ = ["build_net", "check_size", "find_arch", "image_stats", "named_like"]

Three = tuple[float, float, float]
MakeHead = Callable[[int, int], Any]

LIBRARIES = ("torchvision", "timm")
_ALLOWED = "a torchvision function (resnet34), a timm name, 'torchvision/NAME' or 'timm/NAME'"
_IMAGENET: tuple[Three, Three] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def find_arch(arch: object) -> Arch:
    """The network that a recipe's `arch` means: a torchvision function, a timm name, or "library/NAME".

    Raises RecipeError for anything else, with close matches of a name that nobody knows.
    """
    if isinstance(arch, Arch):
        return arch
    if isinstance(arch, str):
        library, name = _split(arch)
        return _known(library or "timm", name)
    if callable(arch):
        return _function(arch)
    raise RecipeError(f"arch: {arch!r} is not a network; expected {_ALLOWED}")


def named_like(recipe_arch: object, given: str) -> str:
    """ "library/NAME" of a name given on the command line for a recipe whose `arch` is `recipe_arch`.

    A bare name means the recipe's own library; where only the other library has it, that one.
    Raises RecipeError for a name that is in neither, with close matches from both.
    """
    library, name = _split(given)
    if library:
        return str(_known(library, name))
    first = find_arch(recipe_arch).library
    order = sorted(LIBRARIES, key=lambda each: each != first)
    for each in order:
        if _has(each, name):
            return f"{each}/{name}"
    near = [f"{each}/{match}" for each in order for match in _close(each, name)]
    raise RecipeError(f"arch: {name!r} is unknown to {' and '.join(order)}" + _listed(near))


def _split(given: str) -> tuple[str, str]:
    library, slash, name = given.partition("/")
    return (library, name) if slash and library in LIBRARIES else ("", given)


def _names(library: str, name: str) -> list[str]:
    from fastrecipes.nets import in_timm, in_torchvision

    return in_torchvision.names() if library == "torchvision" else in_timm.names(tags="." in name)


def _has(library: str, name: str) -> bool:
    return name in _names(library, name)


def _close(library: str, name: str) -> list[str]:
    return get_close_matches(name, _names(library, name), n=2, cutoff=0.6)


def _listed(near: list[str]) -> str:
    return f"; close: {', '.join(near)}" if near else ""


def _known(library: str, name: str) -> Arch:
    if _has(library, name):
        return Arch(library, name)
    hint = _listed(_close(library, name))
    if library == "timm" and _has("torchvision", name):
        hint = f"; torchvision has it: 'torchvision/{name}'{hint}"
    raise RecipeError(f"arch: {name!r} is unknown to {library}{hint}")


def _function(arch: Any) -> Arch:
    from fastrecipes.nets.in_torchvision import builders

    for name, builder in builders().items():
        if builder is arch:
            return Arch("torchvision", name)
    called = getattr(arch, "__name__", repr(arch))
    raise RecipeError(f"arch: {called} is none of torchvision's classification networks; expected {_ALLOWED}")


def build_net(
    arch: Arch, n_classes: int, *, size: int | None = None, head: MakeHead | None = None, meta: bool = False
) -> nn.Module:
    """The whole network of `arch` with random weights and `n_classes` outputs; nothing is downloaded.

    `size`: pixels that it must take, checked. `head`: stands where the library's classifier stood; None keeps that.
    `meta`: on torch's meta device, where it can be built there.
    Raises RecipeError where it cannot take `size` or `head`.
    """
    if not meta:
        return _built(arch, n_classes, size, head)
    import torch

    try:
        with torch.device("meta"):
            return _built(arch, n_classes, size, head)
    except (NotImplementedError, RuntimeError):  # the library reads numbers from tensors while it builds
        return _built(arch, n_classes, size, head)


def _built(arch: Arch, n_classes: int, size: int | None, head: MakeHead | None) -> nn.Module:
    net = library_of(arch).build(arch.name, n_classes, size)
    if size is not None:
        check_size(net, arch, size)
    if head is not None:
        from fastrecipes.nets.heads import put_head

        put_head(net, arch, head, n_classes, size or library_of(arch).native_size(arch.name)[0])
    return net


def check_size(net: nn.Module, arch: Arch, size: int, *, built_for: int | None = None) -> None:
    """Raise RecipeError where `net` cannot take square images of `size` pixels: it is given a blank one.

    `built_for`: pixels that it was built for and takes, to tell; None: those of its pretrained weights are told.
    """
    native, only = library_of(arch).native_size(arch.name)
    reason = f"it takes {native} px only" if only and native != size else _refusal(net, size)
    if reason:
        other = f"{native} px fits" if built_for is None else f"the first stage's {built_for} px fits"
        fits = "" if only else f"; {other}"
        raise RecipeError(f"arch: {arch} cannot take {size} px images: {reason}{fits}")


def _refusal(net: nn.Module, size: int) -> str:
    try:
        answer(net, size)
    except NotImplementedError:  # not every operation exists on the meta device
        return ""
    except REFUSALS as e:
        return reason_of(e)
    return ""


def image_stats(arch: Arch) -> tuple[Three, Three]:
    """Mean and standard deviation by channel that the pretrained weights expect (else ImageNet's)."""
    return library_of(arch).stats(arch.name) or _IMAGENET
