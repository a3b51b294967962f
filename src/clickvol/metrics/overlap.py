"""Overlap of two masks."""

import numpy as np
from numpy.typing import NDArray


def dice(prediction: NDArray[np.generic], truth: NDArray[np.generic]) -> float:
    """Return the Dice coefficient, 2 |A and B| / (|A| + |B|).

    Args:
        prediction: any shape; a voxel belongs to the object where it is not zero.
        truth: the same shape.

    Returns:
        0 to 1. Two empty masks agree: 1.0. One empty mask against a non-empty one: 0.0.

    Raises:
        ValueError: when the shapes differ.
    """
    if prediction.shape != truth.shape:
        msg = f"the masks have shapes {prediction.shape} and {truth.shape}, which must be equal"
        raise ValueError(msg)
    predicted, true = prediction != 0, truth != 0
    total = np.count_nonzero(predicted) + np.count_nonzero(true)
    if total == 0:
        return 1.0
    return float(2 * np.count_nonzero(predicted & true) / total)
