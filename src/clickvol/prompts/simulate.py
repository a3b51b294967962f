"""Clicks that a user might make, drawn from a known mask."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from clickvol.geometry.coordinates import PatchPoint
from clickvol.shapes import BACKGROUND_LABEL, FOREGROUND_LABEL


def extra_clicks(
    first: PatchPoint,
    label: NDArray[np.bool_],
    max_clicks: int,
    share: float,
    rng: np.random.Generator,
) -> tuple[list[PatchPoint], list[int]]:
    """Add further clicks to a first one in some of the cases.

    Clicks inside are random voxels of the object; clicks outside are 4 to 16 voxels from such a voxel, in
    a random direction, where the object is not.

    Args:
        first: the first click, inside the object.
        label: (D, H, W) of the patch.
        max_clicks: most clicks in all, the first included.
        share: probability of any further click.
        rng: source of the randomness.

    Returns:
        The clicks in patch voxels and their labels (1 inside, 0 outside), the first one first.
    """
    points, signs = [first], [FOREGROUND_LABEL]
    inside = np.argwhere(label)
    if rng.random() >= share or len(inside) == 0:
        return points, signs
    for _ in range(int(rng.integers(1, max_clicks))):
        voxel = inside[rng.integers(len(inside))].astype(float)
        if rng.random() < 0.5:
            points.append(PatchPoint.of(voxel))
            signs.append(FOREGROUND_LABEL)
            continue
        direction = rng.standard_normal(3)
        outside = voxel + direction / np.linalg.norm(direction) * rng.uniform(4, 16)
        index = np.rint(outside).astype(int)
        if (index >= 0).all() and (index < label.shape).all() and not label[tuple(index)]:
            points.append(PatchPoint.of(outside))
            signs.append(BACKGROUND_LABEL)
    return points, signs


def click_into_error(
    predicted: NDArray[np.bool_], label: NDArray[np.bool_], rng: np.random.Generator
) -> tuple[PatchPoint, int] | None:
    """Draw a click into what a prediction got wrong, away from the border of the error if possible.

    Args:
        predicted: (D, H, W).
        label: (D, H, W).
        rng: source of the randomness.

    Returns:
        The click and its label (1 where the object was missed, 0 where background was marked), or None
        for a prediction without error.
    """
    wrong = predicted != label
    core = ndimage.binary_erosion(wrong)
    candidates = np.argwhere(core if core.any() else wrong)
    if len(candidates) == 0:
        return None
    voxel = candidates[rng.integers(len(candidates))]
    sign = FOREGROUND_LABEL if label[tuple(voxel)] else BACKGROUND_LABEL
    return PatchPoint.of(voxel), sign


def published_clicks(
    label: NDArray[np.bool_],
    num_foreground: int,
    num_others: int,
    others_from: Literal["everywhere", "background"],
    rng: np.random.Generator,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw the clicks of a training patch as the published methods do, uniformly and with replacement.

    Args:
        label: (D, H, W) of the patch.
        num_foreground: clicks inside the object; none where there is no object.
        num_others: further clicks.
        others_from: from "everywhere", the object included, as released, or from the "background" (from
            everywhere where there is none).
        rng: source of the randomness.

    Returns:
        Voxels (N, 3) in (d, h, w), and labels (N,): 1 for those drawn inside, 0 for the others.
    """
    inside = np.flatnonzero(label)
    background = np.flatnonzero(~label)
    drawn = rng.choice(inside, num_foreground) if len(inside) else np.empty(0, dtype=np.int64)
    if others_from == "background" and len(background):
        others = rng.choice(background, num_others)
    else:
        others = rng.integers(0, label.size, num_others)
    voxels = np.stack(np.unravel_index(np.concatenate([drawn, others]), label.shape), axis=1)
    labels = np.repeat([FOREGROUND_LABEL, BACKGROUND_LABEL], [len(drawn), len(others)])
    return voxels.astype(np.int64), labels.astype(np.int64)
