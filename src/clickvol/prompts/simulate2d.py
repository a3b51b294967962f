"""Points that a user might give on a 2D image, drawn from a known mask."""

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import ClickError
from clickvol.shapes import BACKGROUND_LABEL, FOREGROUND_LABEL


def num_positive_points(num_points: int) -> int:
    """Return how many of N points lie in the object: floor(N / 2), but one of one.

    The rule of the released ProMISe-2D code, for points drawn and for points predicted.
    """
    return 1 if num_points == 1 else num_points // 2


def sample_points(
    mask: NDArray[np.bool_], num_points: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Draw N points in the object and outside it, uniformly and with replacement, in random order.

    The first `num_positive_points` are drawn in the object, the rest outside it; then they are shuffled.
    Where the object is empty all points are drawn outside it, and where it fills the image all are drawn in
    it (the released code fails on empty masks; the second rule is its mirror image). A label therefore
    always tells what lies under its point.

    Returns:
        (N, 2) pixel centres in the order (x, y), integers as float, x in [0, W), y in [0, H); and (N,)
        labels, 1 in the object and 0 outside it.

    Raises:
        ClickError: for a mask without pixels or not two-dimensional, or fewer than one point.
    """
    if mask.ndim != 2 or mask.size == 0:
        raise ClickError(f"the mask has shape {mask.shape}, but points are drawn from one (H, W) with pixels")
    if num_points < 1:
        raise ClickError(f"{num_points} points were asked for; ask for at least 1")
    inside, outside = np.flatnonzero(mask), np.flatnonzero(~mask)
    num_inside = num_positive_points(num_points)
    if len(inside) == 0:
        num_inside = 0
    elif len(outside) == 0:
        num_inside = num_points
    chosen = np.concatenate(
        [
            _draw(inside, num_inside, rng),
            _draw(outside, num_points - num_inside, rng),
        ]
    )
    chosen = rng.permutation(chosen)
    row, column = np.unravel_index(chosen, mask.shape)
    labels = np.where(mask.reshape(-1)[chosen], FOREGROUND_LABEL, BACKGROUND_LABEL)
    return np.stack([column, row], axis=1).astype(np.float64), labels.astype(np.int64)


def _draw(candidates: NDArray[np.int64], number: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return so many of the candidates, with replacement; none of none."""
    if number == 0:
        return candidates[:0]
    return candidates[rng.integers(len(candidates), size=number)]
