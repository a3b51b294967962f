"""Lesion by lesion: how many a mask hits, how much of the mask is one, and how well each is drawn."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from clickvol.geometry.box import bounding_box

_NEIGHBOURS = np.ones((3, 3, 3))


@dataclass(frozen=True, slots=True, kw_only=True)
class LesionScores:
    """What a mask is worth lesion by lesion, 0 to 1.

    Attributes:
        recall: share of the lesions of the truth that the mask hits; None without a lesion in the truth.
        precision: share of the parts of the mask that hit the truth; None for an empty mask.
        f1: harmonic mean of both; 0 where one of both masks alone is empty, None where both are.
        dice: mean over the lesions of the truth of the Dice of a lesion with all parts of the mask that
            touch it, 0 for one that is missed; None without a lesion in the truth. A part that touches two
            lesions counts wholly for each.
    """

    recall: float | None
    precision: float | None
    f1: float | None
    dice: float | None


def lesion_scores(
    prediction: NDArray[np.generic], truth: NDArray[np.generic], *, smallest_voxels: int = 1
) -> LesionScores:
    """Compare a mask (D, H, W) with the truth lesion by lesion.

    A lesion is a component of the truth whose voxels touch by a face, an edge or a corner; a part is one of the
    prediction. They hit each other where they share at least one voxel. Components with fewer voxels than
    `smallest_voxels` are left out; 1 counts all, so that nothing is left out unsaid (chosen). ValueError when
    the shapes differ or are not of three axes.
    """
    if prediction.shape != truth.shape or truth.ndim != 3:
        raise ValueError(
            f"the masks have shapes {prediction.shape} and {truth.shape}, which must be equal and of three axes"
        )
    box = bounding_box((prediction != 0) | (truth != 0))
    if box is None:
        return LesionScores(recall=None, precision=None, f1=None, dice=None)
    lesions, lesion_sizes = _components(truth[box.slices], smallest_voxels)
    parts, part_sizes = _components(prediction[box.slices], smallest_voxels)
    if not len(lesion_sizes):
        wrong = 0.0 if len(part_sizes) else None
        return LesionScores(recall=None, precision=wrong, f1=wrong, dice=None)
    both = (lesions > 0) & (parts > 0)
    # Every lesion and part that touch, once, from 0; a table of all of both would not fit into memory.
    pairs = np.unique(np.stack([lesions[both], parts[both]], axis=1) - 1, axis=0)
    shared = np.bincount(lesions[both] - 1, minlength=len(lesion_sizes))
    touching = np.bincount(pairs[:, 0], weights=part_sizes[pairs[:, 1]], minlength=len(lesion_sizes))
    recall = float((shared > 0).mean())
    precision = len(np.unique(pairs[:, 1])) / len(part_sizes) if len(part_sizes) else None
    dice = 2 * shared / (lesion_sizes + touching)
    f1 = 2 * recall * precision / (recall + precision) if recall and precision else 0.0
    return LesionScores(recall=recall, precision=precision, f1=f1, dice=float(dice.mean()))


def _components(mask: NDArray[np.generic], smallest_voxels: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return the number of each voxel's component, 1 to n, 0 for none, and the (n,) sizes."""
    numbers, count = ndimage.label(mask != 0, structure=_NEIGHBOURS)
    sizes = np.bincount(numbers.ravel(), minlength=count + 1)
    kept = sizes >= smallest_voxels
    kept[0] = False
    renumbered = np.where(kept, np.cumsum(kept), 0)
    return renumbered[numbers].astype(np.int32), sizes[kept]
