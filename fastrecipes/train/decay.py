"""Weight decay that leaves out normalisation layers and biases, for torch's optimisers too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from fastai.optimizer import OptimWrapper, set_item_pg
from torch import nn

__all__ = ["DecayApart"]


class DecayApart(OptimWrapper):
    """A torch optimiser behind fastai's wrapper whose parameters in `apart` never decay: `wd_bn_bias=False`.

    fastai's wrapper ignores that setting. Here torch has, after a group for each layer group, one more for each that has
    such parameters; to fastai they stay one group with one entry in `hypers`, those of the decaying part.
    """

    opt: Any

    def __init__(self, wrapper: OptimWrapper, apart: Iterable[nn.Parameter]) -> None:
        super().__init__(opt=wrapper.opt)
        self.fwd_map, self.bwd_map = wrapper.fwd_map, wrapper.bwd_map
        self.state, self.frozen_idx = wrapper.state, wrapper.frozen_idx
        self._n = len(self.opt.param_groups)
        self._layer_group = list(range(self._n))  # of each of torch's groups
        self._split({id(p) for p in apart})
        self._param_lists: list[list[nn.Parameter]] = [[] for _ in range(self._n)]
        for i, group in zip(self._layer_group, self.opt.param_groups, strict=True):
            self._param_lists[i] += group["params"]

    def _split(self, apart: set[int]) -> None:
        for i, group in enumerate(list(self.opt.param_groups)):
            kept = [p for p in group["params"] if id(p) not in apart]
            left_out = [p for p in group["params"] if id(p) in apart]
            if left_out:
                hypers = {name: value for name, value in group.items() if name not in ("params", "param_names")}
                group["params"] = kept
                self.opt.add_param_group({**hypers, "params": left_out, "weight_decay": 0.0})
                self._layer_group.append(i)

    @property
    def hypers(self) -> Sequence[dict[str, Any]]:  # type: ignore[override]  # read only
        """Hyper-parameters of each layer group, under fastai's names."""
        return _Hypers(self.opt.param_groups[: self._n], self.fwd_map)

    @property
    def param_lists(self) -> list[list[nn.Parameter]]:  # type: ignore[override]  # never set
        """Parameters of each layer group, those that decay first."""
        return self._param_lists

    def _set_hyper(self, k: str, v: Any) -> None:
        for j, (i, group) in enumerate(zip(self._layer_group, self.opt.param_groups, strict=True)):
            set_item_pg(group, self.bwd_map[k], 0.0 if k == "wd" and j >= self._n else v[i])

    @classmethod
    def of(cls, opt: Any, apart: Iterable[nn.Parameter]) -> Any:
        """`opt` with `apart` left out of its decay; as it is where it is fastai's own or has no decay."""
        takes = isinstance(opt, OptimWrapper) and "wd" in opt.bwd_map
        return cls(opt, apart) if takes else opt


class _Hypers(Sequence):  # type: ignore[type-arg]
    """What each of torch's groups holds beside its parameters, made when it is asked for: it is, several times a step."""

    def __init__(self, groups: list[dict[str, Any]], names: Mapping[str, str]) -> None:
        self._groups, self._names = groups, names

    def __len__(self) -> int:
        return len(self._groups)

    def __getitem__(self, i: Any) -> Any:
        found = self._groups[i]
        return list(map(self._named, found)) if isinstance(i, slice) else self._named(found)

    def _named(self, group: Mapping[str, Any]) -> dict[str, Any]:
        return {self._names.get(name, name): value for name, value in _flat(group)}


def _flat(group: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What a group holds beside its parameters, pairs of betas one by one: fastai's `detuplify_pg`, five times as fast."""
    for name, value in group.items():
        if not isinstance(value, (tuple, list)):
            yield name, value
        elif name != "params":
            yield from ((f"{name}__{i}", one) for i, one in enumerate(value))
