"""What timm's networks are made of, asked from timm itself."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from fastrecipes.errors import RecipeError

if TYPE_CHECKING:
    from torch import nn

    from fastrecipes.nets.fetch import Remote

__all__ = [
    "build",
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

# timm's suffix for "joins the group before".
_JOINS = (99999,)
# What `open_map` changes in the arguments that timm keeps of a network.
_OPENED = ("num_classes", "global_pool", "fc_norm")
# A network of one fixed size takes one of these, in this order of preference.
_ANY_SIZE = ({"dynamic_img_size": True}, {"strict_img_size": False})


def names(*, tags: bool = False) -> list[str]:
    """All names that `timm/NAME` may say; with `tags`, those that name the pretrained weights too."""
    import timm

    return timm.list_models() + (timm.list_models(include_tags=True) if tags else [])


def _cfg(name: str) -> Any:
    from timm.models import get_pretrained_cfg

    return get_pretrained_cfg(name)


def native_size(name: str) -> tuple[int, bool]:
    """The image size in pixels that the weights were trained for, and False: others may fit."""
    cfg = _cfg(name)
    return (cfg.input_size[-1] if cfg else 224), False


def build(name: str, n_classes: int, size: int | None) -> nn.Module:
    """A network with random weights and `n_classes` outputs, for several image sizes where timm's can be.

    Raises RecipeError where a network of one size cannot be built for `size` pixels.
    """
    import timm

    cfg = _cfg(name)
    for options in _size_options(cfg, size):
        try:
            return timm.create_model(name, pretrained=False, num_classes=n_classes, **options)
        except TypeError as e:
            if not any(option in str(e) for option in options):
                raise
        except (AssertionError, ValueError, RuntimeError) as e:
            if "img_size" not in options or isinstance(e, NotImplementedError):
                raise
            raise RecipeError(f"arch: timm/{name} cannot take {size} px images; {cfg.input_size[-1]} px fits") from e
    raise AssertionError("the last choice has no option that a network could refuse")


def _size_options(cfg: Any, size: int | None) -> list[dict[str, Any]]:
    if cfg is None or not cfg.fixed_input_size:
        return [{}]
    other = [{"img_size": size}] if size not in (None, cfg.input_size[-1]) else []
    return [*_ANY_SIZE, *other, {}]


def options(net: nn.Module, name: str) -> dict[str, Any]:
    """The arguments that `net` was built with, beside the number of classes."""
    return {option: value for option, value in _kept_args(net).items() if option not in _OPENED}


def _kept_args(net: nn.Module) -> dict[str, Any]:
    """What timm keeps of the arguments; older ones keep nothing."""
    kept = getattr(net, "_model_args", None)
    if kept is not None:
        return dict(kept)
    return {"dynamic_img_size": True} if getattr(net, "dynamic_img_size", False) else {}


def head(net: nn.Module, name: str) -> tuple[str, ...]:
    """Paths of the last layer that `get_classifier` returns, and of its twin in a distilled network.

    Raises RecipeError for an encoder, which has none.
    """
    if not hasattr(net, "get_classifier"):
        raise RecipeError(f"arch: timm/{name} cannot be cut into blocks: it has no classifier")
    got = net.get_classifier()  # pyright: ignore[reportCallIssue]
    tops = got if isinstance(got, tuple | list) else (got,)
    paths = [path for path, m in net.named_modules() if any(m is top for top in tops)]
    twins = [path for path in last_layers(net, name) if not any(f"{path}.".startswith(f"{p}.") for p in paths)]
    return (*paths, *twins)


def places(net: nn.Module, name: str) -> tuple[str, ...]:
    """Paths of what a head of the recipe's own takes the place of: the last layer, and its twin."""
    return head(net, name)


def open_map(net: nn.Module, name: str, pool: nn.Module) -> bool:
    """Take the network's own pooling out, so that the last layer is given the map or all tokens; never puts `pool` in.

    Raises what timm raises where it cannot.
    """
    n_classes = net.num_classes
    net.reset_classifier(0, "")  # pyright: ignore[reportCallIssue]
    net.num_classes = n_classes
    return False


def last_layers(net: nn.Module, name: str) -> tuple[str, ...]:
    """Paths of the layers that `n_classes` shapes."""
    named = net.pretrained_cfg.get("classifier") or ()  # pyright: ignore[reportAttributeAccessIssue,reportCallIssue]
    paths = {path for path, _ in net.named_modules()}
    return tuple(path for path in ((named,) if isinstance(named, str) else named) if path in paths)


def groups(net: nn.Module, name: str) -> list[tuple[str, list[str]]]:
    """(block name, names of its parameters), bottom to top; only the first, the stem, has a name yet.

    Raises RecipeError where timm offers no groups.
    """
    from timm.models import group_parameters

    tops = tuple(f"{path}." for path in head(net, name))
    found = group_parameters(net, _apart(_matcher(net, name)))
    kept = [[path for path in found[i] if not path.startswith(tops)] for i in sorted(found)]
    return [("" if i else "stem", paths) for i, paths in enumerate(group for group in kept if group)]


def _matcher(net: nn.Module, name: str) -> Any:
    try:
        return net.group_matcher(coarse=True)  # pyright: ignore[reportCallIssue]
    except (AttributeError, AssertionError):
        pass
    stages = [info["module"] for info in getattr(net, "feature_info", [])]
    inside = tuple(f"{stage}." for stage in stages)
    paths = [path for path, _ in net.named_parameters()]
    first = next((i for i, path in enumerate(paths) if inside and path.startswith(inside)), 0)
    if not first:
        raise RecipeError(f"arch: timm/{name} cannot be cut into blocks: timm names no groups of its layers")
    below = "|".join(re.escape(path) for path in paths[:first])
    return {"stem": f"^(?:{below})$", "stages": [(f"^{re.escape(s)}\\.", (i,)) for i, s in enumerate(stages)]}


def _apart(matcher: Any) -> Any:
    """`matcher` with what follows the last stage (a last convolution, a norm) as a group of its own."""
    if not isinstance(matcher, dict):
        return matcher
    return {key: _rules_apart(rules) if isinstance(rules, list | tuple) else rules for key, rules in matcher.items()}


def _rules_apart(rules: Any) -> list[tuple[str, Any]]:
    # A pattern that catches a number means the stage of that number, not what follows the last one.
    return [
        (rule, (_JOINS[0] - 1,) if suffix == _JOINS and not re.compile(rule).groups else suffix)
        for rule, suffix in rules
    ]


def stats(name: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and standard deviation of the images that the pretrained weights were trained with."""
    cfg = _cfg(name)
    return (tuple(cfg.mean), tuple(cfg.std)) if cfg and len(cfg.mean) == len(cfg.std) == 3 else None


def remote(name: str) -> Remote | None:
    """Where the pretrained weights are kept, or nothing where timm has none that can be read as tensors."""
    from fastrecipes.nets.fetch import HubFile, HuggingFace

    cfg = _cfg(name)
    if cfg is None:
        return None
    what = f"timm {name}" if "." in name or not cfg.tag else f"timm {name}.{cfg.tag}"
    if cfg.hf_hub_id:
        return HuggingFace(what, cfg.hf_hub_id, cfg.hf_hub_filename)
    return HubFile(what, cfg.url) if isinstance(cfg.url, str) and not cfg.url.endswith(".npz") else None


def modern(state: dict[str, Any], net: nn.Module, name: str) -> dict[str, Any]:
    """A state dict in timm's names and shapes of today, or as it was where timm does not know its form.

    timm is asked to load it into a second network with the file's own classes, strictly: nothing is left out.
    """
    import timm
    import torch

    overlay = {"state_dict": state, "custom_load": False}
    try:
        with torch.random.fork_rng(devices=[]):
            other = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **options(net, name))
    except (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        return state
    return other.state_dict()
