"""A network cut into named blocks, stem to head, without touching it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastrecipes.errors import RecipeError, did_you_mean
from fastrecipes.nets.library import Arch, library_of

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Block", "Blocks", "cut", "modules_of", "parameters_of"]


@dataclass(frozen=True)
class Block:
    """A part of a network: its `name`, and the paths of the modules and parameters that it is made of."""

    name: str
    members: tuple[str, ...]


@dataclass(frozen=True)
class Blocks:
    """The blocks of one network: `body`, bottom to top, and the `head` (the whole classifier).

    >>> blocks = Blocks((Block("stem", ("conv1",)), Block("layer1", ("layer1",))), Block("head", ("fc",)))
    >>> blocks.n_unfrozen("layer1"), blocks.n_unfrozen("all")
    (1, 2)
    """

    body: tuple[Block, ...]
    head: Block

    def __iter__(self) -> Iterator[Block]:
        return iter(self.groups)

    @property
    def groups(self) -> tuple[Block, ...]:
        """All blocks, bottom to top, the head last."""
        return (*self.body, self.head)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the body's blocks, bottom to top."""
        return tuple(block.name for block in self.body)

    def n_unfrozen(self, unfreeze: float | str) -> int:
        """How many of the body's top blocks train beside the head.

        `unfreeze`: a number of blocks, a share of them in (0, 1], the lowest one's name, "head" or "all".
        Raises RecipeError for what this network does not have.
        """
        if isinstance(unfreeze, str):
            return self._from_name(unfreeze)
        if isinstance(unfreeze, float) and not isinstance(unfreeze, bool):
            return self._from_share(unfreeze)
        return self._from_count(unfreeze)

    def _from_name(self, unfreeze: str) -> int:
        if unfreeze in ("head", "all"):
            return len(self.body) if unfreeze == "all" else 0
        if unfreeze in self.names:
            return len(self.body) - self.names.index(unfreeze)
        hint = did_you_mean(unfreeze, [*self.names, "head", "all"]) or ";"
        others = (
            f"blocks: {', '.join(self.names)}; or their number from the top: 1 trains {self.names[-1]} and the head"
        )
        raise RecipeError(f"unfreeze={unfreeze!r}: no block of that name{hint} {others}")

    def _from_share(self, unfreeze: float) -> int:
        if not 0 <= unfreeze <= 1:
            raise RecipeError(f"unfreeze={unfreeze!r}: a share of the blocks is above 0 and at most 1.0")
        n = len(self.body)
        # 10 * (1 - 0.9) is 0.9999999999999998 and means 1.
        return len(self.body[int(n * (1 - unfreeze) + 1e-9) :])

    def _from_count(self, unfreeze: int) -> int:
        n = len(self.body)
        if isinstance(unfreeze, bool) or not isinstance(unfreeze, int) or not 0 <= unfreeze <= n:
            raise RecipeError(f"unfreeze={unfreeze!r}: the network has {n} blocks ({', '.join(self.names)})")
        return unfreeze


def cut(net: nn.Module, arch: Arch) -> Blocks:
    """The blocks of `net`, which `build_net` made of `arch`.

    Each parameter is in exactly one block, and no block is empty.
    Raises RecipeError where no such cut is known.
    """
    library = library_of(arch)
    tops = library.head(net, arch.name)
    groups = _norms_down(net, library.groups(net, arch.name))
    body = tuple(_block(net, name, paths, joined) for name, paths, joined in groups)
    blocks = Blocks(body, Block("head", tops))
    _check(net, arch, blocks)
    return blocks


def _norms_down(net: nn.Module, groups: Iterable[tuple[str, list[str]]]) -> list[tuple[str, list[str], list[str]]]:
    """(name, parameters, norms' parameters that join them): norms alone go to the block below."""
    found: list[tuple[str, list[str], list[str]]] = []
    for name, paths in groups:
        if found and all(net.get_parameter(path).ndim < 2 for path in paths):
            found[-1][2].extend(paths)
        else:
            found.append((name, paths, []))
    return found


def _block(net: nn.Module, name: str, paths: list[str], joined: list[str]) -> Block:
    named = name or _largest(net, _members(net, paths))
    # A layer below the classifier that its library calls "head" is not what `unfreeze="head"` means.
    return Block("pre_head" if named == "head" else named, _members(net, [*paths, *joined]))


def _members(net: nn.Module, paths: Iterable[str]) -> tuple[str, ...]:
    """The shortest paths that hold exactly the parameters `paths`, in the network's order."""
    wanted = set(paths)
    found: dict[str, None] = {}
    others = [path for path, _ in net.named_parameters() if path not in wanted]
    for path in (path for path, _ in net.named_parameters() if path in wanted):
        found[_shortest(path, others)] = None
    return tuple(found)


def _shortest(path: str, others: list[str]) -> str:
    parts = path.split(".")
    for n in range(1, len(parts)):
        prefix = ".".join(parts[:n])
        if not any(other.startswith(f"{prefix}.") for other in others):
            return prefix
    return path


def _largest(net: nn.Module, members: tuple[str, ...]) -> str:
    sizes = {m: sum(p.numel() for _, p in parameters_of(net, Block("", (m,)))) for m in members}
    return max(members, key=lambda m: sizes[m])


def _check(net: nn.Module, arch: Arch, blocks: Blocks) -> None:
    held = [[path for path, _ in parameters_of(net, block)] for block in blocks]
    times = Counter(path for paths in held for path in paths)
    wrong = [path for path, _ in net.named_parameters() if times[path] != 1]
    names = [block.name for block in blocks]
    if wrong or not blocks.body or not all(held) or len(set(names)) != len(names):
        what = f": {', '.join(wrong[:3])} would be in no block or in two" if wrong else f" ({', '.join(names)})"
        raise RecipeError(f"arch: {arch} cannot be cut into blocks{what}")


def parameters_of(net: nn.Module, block: Block) -> list[tuple[str, nn.Parameter]]:
    """(path, parameter) of each parameter of `block`, in the network's order."""
    inside = tuple(f"{member}." for member in block.members)
    return [(path, p) for path, p in net.named_parameters() if path in block.members or path.startswith(inside)]


def modules_of(net: nn.Module, block: Block) -> list[nn.Module]:
    """The modules that `block` is made of (bare parameters have none), to put into eval mode and the like."""
    modules = dict(net.named_modules())
    return [modules[member] for member in block.members if member in modules]
