"""What a network said of images."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["Predictions"]


class Predictions(NamedTuple):
    """Probabilities and true classes, image by image."""

    probs: np.ndarray  # float32 (images, classes)
    targets: np.ndarray  # int64 (images,): places in the vocabulary
