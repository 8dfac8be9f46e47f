"""The state of a Learner as plain values: one protocol for whatever changes while a stage trains.

A callback says its state with `state_dict()` and `load_state_dict(state)`. One that does not (fastai's, or a user's)
is asked for its attributes: all that a checkpoint can hold (tensors, numbers, texts, lists and dicts of them) is kept,
and the state of those that have one themselves (a network of averaged weights). Random generators have no state here, since every draw is a function of its place (`data.draws`).
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from fastai.callback.core import Callback
from fastai.optimizer import Lookahead, Optimizer
from fastcore.foundation import L
from torch import nn

from fastrecipes.record.checkpoint import holds
from fastrecipes.train.losses import on_cpu

__all__ = ["Position", "callback_state", "learner_state", "learner_state_later", "load_learner_state", "unsaved"]

State = dict[str, Any]
_RECORDED = ("lrs", "iters", "losses", "values")


@dataclass(frozen=True, order=True)
class Position:
    """Where a run stands: the next batch that it will train on, all counted from 0.

    `batch` is the number of batches of an epoch where only its validation is still to do.
    """

    stage: int = 0
    epoch: int = 0
    batch: int = 0

    def state_dict(self) -> State:
        """The three numbers."""
        return asdict(self)


def learner_state(learn: Any) -> State:
    """All that changes as `learn` trains, between two batches."""
    return learner_state_later(learn)()


def learner_state_later(learn: Any) -> Callable[[], State]:
    """The same as a function, to be called before the next step: until then neither the weights nor the optimiser change.

    All else is that of now, whatever callbacks do in a validation.
    """
    net, opt, now = learn.model, learn.opt, _state_beside_weights(learn)
    return lambda: {"model": net.state_dict(), "optimizer": opt.state_dict(), **now}


def _state_beside_weights(learn: Any) -> State:
    return {
        "train_iter": learn.train_iter,
        "n_parts": learn.n_parts,
        "compiled": learn.compiled,
        "compiled_prefix": learn.prefix is not None and learn.prefix.is_compiled,
        "features": learn.features is not None,
        "precision": learn.precision.state_dict(),
        "n_waiting": learn.n_waiting,
        "waiting": waiting_gradients(learn) if learn.n_waiting else [],
        "pct_train": learn.pct_train,  # a sum of floats: computed anew it would differ in the last bit
        "recorder": _recorder_state(learn.recorder),
        "loss_func": learn.loss_func.state_dict() if isinstance(learn.loss_func, nn.Module) else {},
        "callbacks": {name: callback_state(cb) for name, cb in _callbacks(learn).items()},
    }


def load_learner_state(learn: Any, state: Mapping[str, Any]) -> None:
    """Bring `learn`, made for the same stage, to where `learner_state` was taken."""
    learn.model.load_state_dict(state["model"])
    _load_optimizer(learn.opt, copy.deepcopy(dict(state["optimizer"])))
    for name in ("train_iter", "pct_train", "n_parts", "n_waiting"):
        setattr(learn, name, state[name])
    learn.compiled = learn.compiled and state["compiled"]  # a compiler that has failed is not asked again
    if learn.prefix is not None and not state.get("compiled_prefix"):
        learn.prefix.as_it_is()
    if not state.get("features", True):  # there was no room for them
        learn.features = None
    learn.precision.load_state_dict(state["precision"])
    for p, grad in zip(learn.model.parameters(), state["waiting"], strict=False):
        p.grad = None if grad is None else _beside(grad, p)
    _load_recorder(learn.recorder, state["recorder"])
    if state["loss_func"]:
        learn.loss_func.load_state_dict(state["loss_func"])
    for name, cb in _callbacks(learn).items():
        if name in state["callbacks"]:
            _load_callback(cb, copy.deepcopy(state["callbacks"][name]))


def waiting_gradients(learn: Any) -> list[torch.Tensor | None]:
    """Copies of the gradients, a network's parameters in their order."""
    return [None if p.grad is None else p.grad.detach().clone() for p in learn.model.parameters()]


def callback_state(cb: Any) -> State:
    """The state of one callback: what it says, or all its attributes that can be kept. A copy."""
    if _says(cb):
        return {"said": copy.deepcopy(cb.state_dict())}
    own = {name: value for name, value in vars(cb).items() if name != "learn"}
    return {
        "plain": {name: copy.deepcopy(value) for name, value in own.items() if holds(value)},
        "objects": {name: copy.deepcopy(value.state_dict()) for name, value in own.items() if _is_apart(value, cb)},
    }


def unsaved(learn: Any) -> dict[tuple[str, str], Any]:
    """Attributes of callbacks that no checkpoint can hold, by (callback, attribute).

    They are taken to be constant (a distribution, a list of modules). One that is another object later than when the
    stage began is state that a resumed run would lose.
    """
    return {
        (name, attribute): value
        for name, cb in _callbacks(learn).items()
        if not _says(cb)
        for attribute, value in vars(cb).items()
        if attribute != "learn" and not (holds(value) or callable(value) or _says(value))
    }


def _is_apart(value: Any, cb: Any) -> bool:
    """Whether `value` has a state of its own that is not the network's."""
    return _says(value) and not any(value is module for module in cb.learn.model.modules())


def _says(value: object) -> bool:
    """Whether an object's class has the protocol; callbacks hand unknown names on to the network, which has it."""
    return hasattr(type(value), "state_dict") and hasattr(type(value), "load_state_dict")


def _callbacks(learn: Any) -> dict[str, Callback]:
    """The callbacks by name, numbered where two share one; fastai's Recorder is kept on its own."""
    found: dict[str, Callback] = {}
    for cb in learn.cbs:
        if cb is not learn.recorder:
            same = sum(name.partition("#")[0] == cb.name for name in found)
            found[f"{cb.name}#{same}" if same else cb.name] = cb
    return found


def _load_callback(cb: Any, state: State) -> None:
    if "said" in state:
        cb.load_state_dict(state["said"])
        return
    vars(cb).update(state["plain"])
    for name, held in state["objects"].items():
        if name in vars(cb):
            vars(cb)[name].load_state_dict(held)


def _recorder_state(recorder: Any) -> State:
    losses = on_cpu(recorder.losses)
    return {name: list(getattr(recorder, name)) for name in _RECORDED if name != "losses"} | {
        "losses": torch.stack(losses) if losses else None,
        "smooth_loss": {"count": recorder.smooth_loss.count, "val": recorder.smooth_loss.val},
        "metrics": [{k: v for k, v in vars(m).items() if holds(v)} for m in recorder._train_mets[1:]],
    }


def _load_recorder(recorder: Any, state: Mapping[str, Any]) -> None:
    for name in _RECORDED:
        setattr(recorder, name, list(state[name]) if state[name] is not None else [])
    recorder.smooth_loss.count, recorder.smooth_loss.val = state["smooth_loss"]["count"], state["smooth_loss"]["val"]
    if recorder.losses:
        recorder.learn.smooth_loss = recorder.smooth_loss.value
    for metric, held in zip(recorder._train_mets[1:], state["metrics"], strict=True):
        vars(metric).update(copy.deepcopy(held))


def _load_optimizer(opt: Any, state: State) -> None:
    opt.load_state_dict(state)
    if isinstance(opt, Lookahead):
        if opt.slow_weights is not None:
            pairs = zip(opt.slow_weights, opt.param_lists, strict=True)
            opt.slow_weights = L(L(map(_beside, slow, fast)) for slow, fast in pairs)
        opt = opt.opt  # state and rates are those of the optimiser within
    if isinstance(opt, Optimizer):
        opt.hypers = L(opt.hypers)
        opt.state = defaultdict(dict, {p: {k: _beside(v, p) for k, v in s.items()} for p, s in opt.state.items()})
    else:
        for p, held in opt.opt.state.items():
            held.update({name: _beside(value, p) for name, value in held.items()})


def _beside(value: Any, p: torch.Tensor) -> Any:
    """An optimiser's tensor on the device and in the memory format of its parameter: other strides may round otherwise."""
    if not isinstance(value, torch.Tensor) or value.shape != p.shape:
        return value
    return torch.empty_like(p.data, dtype=value.dtype).copy_(value)
