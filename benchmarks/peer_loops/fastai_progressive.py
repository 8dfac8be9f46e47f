"""Plain fastai: one Learner whose loaders are made anew for each size, one `fit_one_cycle` a size, the DataBlock of the recipe.

`Normalize` is given by hand, since only the first loaders would get it. fastai's rates do not reach their end by the last step.
"""

from __future__ import annotations

from functools import partial

import torch
from fastai.vision.all import LabelSmoothingCrossEntropy, Learner, OptimWrapper, accuracy, set_seed

from peer_loops.fastai_learner import loaded
from peer_loops.progressive import LR, sizes
from peer_loops.work import Stopwatch, Work

MOMS, PCT_START, DIV, FINAL_DIV = (0.95, 0.85, 0.95), 0.3, 25, 1e4  # as in the recipe
SMOOTHING, WD, MIN_SCALE = 0.1, 1e-4, 0.35


def train(name: str, work: Work, watch: Stopwatch) -> None:
    """A fit for each size."""
    set_seed(work.seed)
    loaders = [loaded(work, size, MIN_SCALE) for size in sizes(work.size)]
    learn = Learner(
        loaders[0], work.net(), loss_func=LabelSmoothingCrossEntropy(SMOOTHING), metrics=accuracy, wd=WD,
        opt_func=partial(OptimWrapper, opt=torch.optim.SGD, momentum=MOMS[0]),
    )  # fmt: skip
    watch.stage_begins()
    for dls in loaders:
        learn.dls = dls
        with learn.no_bar():
            learn.fit_one_cycle(
                work.epochs, LR, div=DIV, div_final=DIV * FINAL_DIV, pct_start=PCT_START, moms=MOMS, wd=WD
            )
        watch.stage_done(float(learn.recorder.values[-1][-1]))
