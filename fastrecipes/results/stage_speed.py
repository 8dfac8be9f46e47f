"""What the times of the stages mean: a table, what each is bound by, and the same as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

from rich.table import Table

from fastrecipes.train.bench_stage import ROUNDS, SIDES, StageSpeed
from fastrecipes.train.step_clock import PARTS

__all__ = ["speed_json", "speed_lines", "speed_table"]

_NAMES = {"this": "fastrecipes", "fastai": "plain fastai", "limit": "bare loop"}


def speed_table(speeds: Sequence[StageSpeed]) -> Table:
    """Images a second of every part and of the whole step, a row for each way to train a stage."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("stage", "", *PARTS, "whole step"):
        table.add_column(name, justify="left" if name in ("stage", "") else "right")
    for speed in speeds:
        for i, side in enumerate(SIDES):
            cells = (_speed(speed, side, part) for part in (*PARTS, "whole"))
            table.add_row(speed.stage.label if i == 0 else "", _NAMES[side], *cells)
    return table


def _speed(speed: StageSpeed, side: str, part: str) -> str:
    seconds = speed.sides[side].seconds(part)
    return f"{speed.stage.bs / seconds:,.0f}/s" if seconds else ""


def speed_lines(speeds: Sequence[StageSpeed]) -> Iterator[str]:
    """One line a stage: how many times as fast as plain fastai, how near to the limit, bound by what."""
    for speed in speeds:
        stage, (part, share) = speed.stage, speed.bound
        what = f"{stage.size} px, bs {stage.bs}, {speed.precision}, trains {stage.trains}"
        yield (
            f"{stage.label} ({what}): {_times(speed.ratios('fastai'))} as fast as plain fastai, "
            f"{median(speed.ratios('limit')):.0%} of the bare loop; bound by {part} ({share:.0%} of a step)"
        )
    yield f"images a second, medians of {ROUNDS} rounds; a bare loop has its one batch at hand and trains nothing else"


def _times(ratios: Sequence[float]) -> str:
    return f"{median(ratios):.2f} times ({min(ratios):.2f} to {max(ratios):.2f})"


def speed_json(speeds: Sequence[StageSpeed]) -> str:
    """All rounds, in seconds a batch."""
    return json.dumps([_as_dict(speed) for speed in speeds], indent=1)


def _as_dict(speed: StageSpeed) -> dict[str, Any]:
    stage, (part, share) = speed.stage, speed.bound
    return {
        "stage": stage.index, "size": stage.size, "bs": stage.bs, "trains": list(stage.trained), "precision": speed.precision,
        "seconds_a_batch": {side: [dict(one) for one in speed.sides[side].rounds] for side in SIDES},
        "times_fastai": speed.ratios("fastai"), "share_of_limit": speed.ratios("limit"),
        "bound_by": part, "bound_share": share,
    }  # fmt: skip
