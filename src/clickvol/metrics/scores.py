"""All scores of one mask against the truth."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clickvol.metrics.lesions import lesion_recall
from clickvol.metrics.overlap import dice, iou, volume_ml
from clickvol.metrics.surface import surface_distances

TOLERANCES_MM = (1.0, 2.0, 5.0)
"""Tolerances of the normalised surface Dice; ProMISe-3D and 3DSAM-adapter report 5 mm (released code)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskScores:
    """How well a mask agrees with the truth.

    Empty masks: two empty ones agree (Dice, IoU and NSD 1), an empty one against a non-empty one
    does not (0); surface distances are None in both cases.

    Attributes:
        dice, iou: 0 to 1.
        nsd: normalised surface Dice at the tolerances asked for, in their order, 0 to 1.
        hd95_mm: the larger of both surfaces' distance within which 95 % of its area lies; or None.
        assd_mm: mean distance over the area of both surfaces; or None.
        truth_ml, mask_ml: volumes.
        lesion_recall: share of the truth's 26-connected lesions that the mask hits; None without any.
    """

    dice: float
    iou: float
    nsd: tuple[float, ...]
    hd95_mm: float | None
    assd_mm: float | None
    truth_ml: float
    mask_ml: float
    lesion_recall: float | None


def score_masks(
    prediction: NDArray[np.generic],
    truth: NDArray[np.generic],
    spacing_dhw_mm: Sequence[float] | NDArray[np.float64],
    tolerances_mm: tuple[float, ...] = TOLERANCES_MM,
) -> MaskScores:
    """Compare a mask with the truth.

    Args:
        prediction: (D, H, W); a voxel belongs to the object where it is not zero.
        truth: the same shape.
        spacing_dhw_mm: three sizes of a voxel, each above 0.
        tolerances_mm: of the normalised surface Dice.

    Returns:
        The scores; see `MaskScores` for empty masks.

    Raises:
        ValueError: when the shapes differ or are not of three axes, or the spacing is not three
            numbers above 0.
    """
    predicted, true = prediction != 0, truth != 0
    distances = surface_distances(predicted, true, spacing_dhw_mm)
    return MaskScores(
        dice=dice(predicted, true),
        iou=iou(predicted, true),
        nsd=tuple(distances.nsd(tolerance) for tolerance in tolerances_mm),
        hd95_mm=distances.hausdorff_mm(95.0),
        assd_mm=distances.average_mm(),
        truth_ml=volume_ml(true, spacing_dhw_mm),
        mask_ml=volume_ml(predicted, spacing_dhw_mm),
        lesion_recall=lesion_recall(predicted, true),
    )
