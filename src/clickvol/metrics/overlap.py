"""Overlap of two masks, and how their volumes compare."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from clickvol.io.in_memory import MaskLike, arrays_of

# Part of the diagonal that two boundaries may be apart; of the DAVIS benchmark.
_BOUNDARY_TOLERANCE = 0.008


def dice(prediction: NDArray[np.generic] | MaskLike, truth: NDArray[np.generic] | MaskLike) -> float:
    """Return the Dice coefficient of two masks, 2 |A and B| / (|A| + |B|), 0 to 1.

    Both are arrays of one shape, objects where they are not zero, or both have a place: a `Mask`, an image of
    nibabel or SimpleITK, a MetaTensor. Two empty masks agree: 1.0. One empty mask against a non-empty one: 0.0.
    ValueError when the shapes differ, BadGeometryError when the grids do or only one mask has a place.
    """
    common, total = _common_and_total(*arrays_of(prediction, truth))
    return 2 * common / total if total else 1.0


def iou(prediction: NDArray[np.generic], truth: NDArray[np.generic]) -> float:
    """Return the intersection over union (Jaccard index), |A and B| / |A or B|; the rest as `dice`."""
    common, total = _common_and_total(prediction, truth)
    return common / (total - common) if total else 1.0


def pixel_error(prediction: NDArray[np.generic], truth: NDArray[np.generic]) -> float:
    """Return the part of the pixels in which two masks of one shape differ: the mean absolute error (MAE)."""
    common, total = _common_and_total(prediction, truth)
    return (total - 2 * common) / truth.size


def boundary_f(prediction: NDArray[np.generic], truth: NDArray[np.generic]) -> float:
    """Return the F measure of the boundaries of two masks (H, W) (Perazzi et al., DAVIS, CVPR 2016), 0 to 1.

    2 P R / (P + R): P is the part of the boundary of the mask that is within a tolerance of the true one, R the
    part of the true one within it of the mask's. The tolerance is .008 of the picture's diagonal, rounded up;
    boundaries are the object's pixels with a side to the outside, not where the picture ends. 1 where neither
    has a boundary, 0 where one of them has none.
    """
    edges = [(mask != 0) & ~ndimage.binary_erosion(mask != 0, border_value=1) for mask in (prediction, truth)]
    counts = [int(edge.sum()) for edge in edges]
    if 0 in counts:
        return float(counts == [0, 0])
    tolerance = math.ceil(_BOUNDARY_TOLERANCE * math.hypot(*truth.shape))
    near = [ndimage.distance_transform_edt(~edge) <= tolerance for edge in edges]
    precision, recall = ((edges[n] & near[1 - n]).sum() / counts[n] for n in (0, 1))
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def volume_ml(mask: NDArray[np.generic], spacing_dhw_mm: Sequence[float] | NDArray[np.float64]) -> float:
    """Return the volume of a mask (D, H, W) in millilitres, for a grid whose axes are at right angles."""
    return np.count_nonzero(mask) * math.prod(map(float, spacing_dhw_mm)) / 1000.0


def _common_and_total(prediction: NDArray[np.generic], truth: NDArray[np.generic]) -> tuple[int, int]:
    """Return |A and B| and |A| + |B| in voxels."""
    if prediction.shape != truth.shape:
        raise ValueError(f"the masks have shapes {prediction.shape} and {truth.shape}, which must be equal")
    predicted, true = prediction != 0, truth != 0
    total = np.count_nonzero(predicted) + np.count_nonzero(true)
    return int(np.count_nonzero(predicted & true)), int(total)
