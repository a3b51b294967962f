"""The measures of one mask against the truth: what each is called, how it is printed and how it is computed.

A measure that only two masks are needed for is one line in `mask_measures`; tables, files and reports follow.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from clickvol.metrics.lesions import LesionScores, lesion_scores
from clickvol.metrics.overlap import boundary_f, dice, iou, pixel_error, volume_ml
from clickvol.metrics.surface import SurfaceDistances, surface_distances

NSD_TOLERANCES_MM = (1.0, 2.0, 5.0)
"""Tolerances of the normalised surface Dice where no others are chosen; ProMISe-3D and 3DSAM-adapter report
5 mm (released code)."""


@dataclass(frozen=True)
class MaskPair:
    """A mask and the truth, (D, H, W) bool, and the three sizes of a voxel, each above 0.

    ValueError from the measures, when shapes differ or are not of three axes, or for another spacing.
    """

    prediction: NDArray[np.bool_]
    truth: NDArray[np.bool_]
    spacing_dhw_mm: Sequence[float] | NDArray[np.float64]

    @cached_property
    def surfaces(self) -> SurfaceDistances:
        """The distances between both surfaces, computed once for all measures."""
        return surface_distances(self.prediction, self.truth, self.spacing_dhw_mm)

    @cached_property
    def lesions(self) -> LesionScores:
        """What the mask is worth lesion by lesion, computed once for all measures."""
        return lesion_scores(self.prediction, self.truth)

    @property
    def truth_ml(self) -> float:
        """Volume of the truth."""
        return volume_ml(self.truth, self.spacing_dhw_mm)

    @property
    def mask_ml(self) -> float:
        """Volume of the mask."""
        return volume_ml(self.prediction, self.spacing_dhw_mm)


@dataclass(frozen=True, slots=True)
class Measure:
    """A column of scores.

    Attributes:
        name: in files.
        title: in tables and on axes, with the unit.
        digits: behind the point.
        compute: from two masks to the number; None where they have none.
        with_interval: its interval stands beside the mean; with all of them a row would not fit on a page.
    """

    name: str
    title: str
    digits: int
    compute: Callable[[MaskPair], float | None]
    with_interval: bool = False


def nsd_name(tolerance_mm: float) -> str:
    """Return the name of the surface Dice at a tolerance."""
    return f"nsd_{tolerance_mm:g}mm"


def mask_measures(nsd_tolerances_mm: Sequence[float] = NSD_TOLERANCES_MM) -> tuple[Measure, ...]:
    """Return all measures in the order of the columns, with the surface Dice at these tolerances.

    Empty masks: two empty ones agree (Dice, IoU and NSD 1), an empty one against another does not (0); surface
    distances are None in both cases; measures of lesions as `metrics.lesions.LesionScores` says.
    """
    return (
        Measure("dice", "Dice", 3, lambda pair: dice(pair.prediction, pair.truth), with_interval=True),
        Measure("iou", "IoU", 3, lambda pair: iou(pair.prediction, pair.truth)),
        *map(_surface_dice, nsd_tolerances_mm),
        Measure("hd95_mm", "HD95 (mm)", 1, lambda pair: pair.surfaces.hausdorff_mm(95.0)),
        Measure("assd_mm", "ASSD (mm)", 2, lambda pair: pair.surfaces.average_mm()),
        Measure("volume_error_ml", "abs. volume error (ml)", 1, lambda pair: abs(pair.mask_ml - pair.truth_ml)),
        Measure("lesion_recall", "lesion recall", 3, lambda pair: pair.lesions.recall),
        Measure("lesion_precision", "lesion precision", 3, lambda pair: pair.lesions.precision),
        Measure("lesion_f1", "lesion F1", 3, lambda pair: pair.lesions.f1),
        Measure("lesion_dice", "Dice per lesion", 3, lambda pair: pair.lesions.dice),
    )


def picture_measures() -> tuple[Measure, ...]:
    """Return the measures of a picture's mask, a volume of one slice; empty masks as `mask_measures`."""
    overlaps = (measure for measure in mask_measures(()) if measure.name in ("dice", "iou"))
    return (
        *overlaps,
        Measure("mae", "MAE", 4, lambda pair: pixel_error(pair.prediction, pair.truth)),
        Measure("boundary_f", "boundary F", 3, lambda pair: boundary_f(pair.prediction[0], pair.truth[0])),
    )


def score_pictures(prediction: NDArray[np.generic], truth: NDArray[np.generic]) -> dict[str, float | None]:
    """Compare the mask of a picture with the truth, both (1, H, W): all of `picture_measures` by name."""
    pair = MaskPair(prediction != 0, truth != 0, (1.0, 1.0, 1.0))
    return {measure.name: measure.compute(pair) for measure in picture_measures()}


def _surface_dice(tolerance_mm: float) -> Measure:
    title = f"NSD {tolerance_mm:g} mm"
    return Measure(
        nsd_name(tolerance_mm), title, 3, lambda pair: pair.surfaces.nsd(tolerance_mm), with_interval=True
    )


def score_masks(
    prediction: NDArray[np.generic],
    truth: NDArray[np.generic],
    spacing_dhw_mm: Sequence[float] | NDArray[np.float64],
    nsd_tolerances_mm: Sequence[float] = NSD_TOLERANCES_MM,
) -> dict[str, float | None]:
    """Compare a mask with the truth: all of `mask_measures` by name, and `truth_ml` and `mask_ml`.

    Both are (D, H, W), the object where they are not zero. ValueError as `MaskPair`.
    """
    pair = MaskPair(prediction != 0, truth != 0, spacing_dhw_mm)
    scores = {measure.name: measure.compute(pair) for measure in mask_measures(nsd_tolerances_mm)}
    return scores | {"truth_ml": pair.truth_ml, "mask_ml": pair.mask_ml}
