"""The optimiser of a recipe, made on the network's parameters before anything trains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fastai.optimizer import Adam
from torch import nn

from fastrecipes.declare.recipe import Recipe
from fastrecipes.errors import RecipeError
from fastrecipes.planning.plan import StagePlan
from fastrecipes.record.checkpoint import holds

__all__ = ["hypers_of", "optimiser_problems"]


def hypers_of(recipe: Recipe, groups: Sequence[Sequence[nn.Parameter]]) -> Mapping[str, Any]:
    """The hyper-parameters of the head's group under fastai's names. Raises `RecipeError` where they cannot be."""
    opt_func: Any = recipe.opt_func or Adam
    try:
        hypers = opt_func([list(group) for group in groups], lr=1e-3).hypers[-1]
    except RecipeError:
        raise
    except Exception as e:
        raise RecipeError(f"opt_func: cannot be made: {type(e).__name__}: {str(e).partition(chr(10))[0]}") from e
    lost = [f"{name} ({type(value).__name__})" for name, value in hypers.items() if not holds(value)]
    if lost:
        raise RecipeError(f"opt_func: no checkpoint can hold its {', '.join(lost)}; choose another optimiser")
    return hypers


def optimiser_problems(stages: Sequence[StagePlan], hypers: Mapping[str, Any]) -> Iterator[str]:
    """What a stage asks of the optimiser that it does not have."""
    for stage in stages:
        if stage.wd is not None and "wd" not in hypers:
            yield f"stages[{stage.index}].wd: opt_func has no weight decay; leave wd out or choose another optimiser"
        if stage.at(0).mom is not None and "mom" not in hypers:
            yield f"stages[{stage.index}].schedule: moves the momentum, and opt_func has none; leave moms out"
