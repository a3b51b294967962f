"""Overlap of two masks, and how their volumes compare."""

import math
from collections.abc import Sequence

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
    common, total = _common_and_total(prediction, truth)
    return 2 * common / total if total else 1.0


def iou(prediction: NDArray[np.generic], truth: NDArray[np.generic]) -> float:
    """Return the intersection over union (Jaccard index), |A and B| / |A or B|; the rest as `dice`."""
    common, total = _common_and_total(prediction, truth)
    return common / (total - common) if total else 1.0


def volume_ml(mask: NDArray[np.generic], spacing_dhw_mm: Sequence[float] | NDArray[np.float64]) -> float:
    """Return the volume of a mask in millilitres, for a grid whose axes are at right angles.

    Args:
        mask: (D, H, W); a voxel belongs to the object where it is not zero.
        spacing_dhw_mm: three sizes of a voxel.
    """
    return np.count_nonzero(mask) * math.prod(map(float, spacing_dhw_mm)) / 1000.0


def _common_and_total(prediction: NDArray[np.generic], truth: NDArray[np.generic]) -> tuple[int, int]:
    """Return |A and B| and |A| + |B| in voxels."""
    if prediction.shape != truth.shape:
        raise ValueError(f"the masks have shapes {prediction.shape} and {truth.shape}, which must be equal")
    predicted, true = prediction != 0, truth != 0
    total = np.count_nonzero(predicted) + np.count_nonzero(true)
    return int(np.count_nonzero(predicted & true)), int(total)
