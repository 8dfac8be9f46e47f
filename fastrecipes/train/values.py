"""What fastai's Recorder noted of the epoch that has just ended."""

from __future__ import annotations

from typing import Any

__all__ = ["epoch_values"]


def epoch_values(learn: Any) -> dict[str, float | None] | None:
    """train_loss, valid_loss and the metrics by name; None where a callback ended the epoch before its record.

    A value that was not come to, since a callback ended the epoch before its validation, is None.
    """
    if len(learn.recorder.values) != learn.epoch + 1:
        return None
    names = list(learn.recorder.metric_names)[1:-1]  # without fastai's epoch and time
    values = [*learn.final_record, *([None] * len(names))]
    return {name: None if value is None else float(value) for name, value in zip(names, values, strict=False)}
