"""Distances between the surfaces of two masks, in the definition of DeepMind's surface-distance.

The surface consists of one element at every corner of voxels that has voxels of both kinds around it.
An element counts with its area (`surface_elements`), lies at its corner, and its distance is the one
to the nearest element of the other surface. Outside of the array is outside of the object, so a mask
that touches the border has a surface there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from clickvol.geometry.box import bounding_box
from clickvol.metrics.surface_elements import NUM_CODES, element_areas_mm2, neighbour_codes


@dataclass(frozen=True, slots=True, eq=False)
class SurfaceDistances:
    """How far each element of either surface is from the other surface.

    Attributes:
        from_prediction_mm, from_truth_mm: (n,), (m,); None where one of the masks is empty.
        prediction_areas_mm2, truth_areas_mm2: (n,), (m,), of the elements; of length 0 for an empty mask.
    """

    from_prediction_mm: NDArray[np.float64] | None
    from_truth_mm: NDArray[np.float64] | None
    prediction_areas_mm2: NDArray[np.float64]
    truth_areas_mm2: NDArray[np.float64]

    def nsd(self, tolerance_mm: float) -> float:
        """Return the normalised surface Dice: the share of both surfaces within the tolerance of the other.

        Two empty masks: 1.0. One empty mask: 0.0.
        """
        if self.from_prediction_mm is None or self.from_truth_mm is None:
            return 0.0 if self.prediction_areas_mm2.size or self.truth_areas_mm2.size else 1.0
        near = self.prediction_areas_mm2[self.from_prediction_mm <= tolerance_mm].sum()
        near += self.truth_areas_mm2[self.from_truth_mm <= tolerance_mm].sum()
        return float(near / (self.prediction_areas_mm2.sum() + self.truth_areas_mm2.sum()))

    def hausdorff_mm(self, percent: float = 95.0) -> float | None:
        """Return the robust Hausdorff distance: 95 gives HD95, 100 the plain one; None for an empty mask.

        Per surface, the smallest distance within which at least this share of its area lies; of the
        two surfaces, the larger. Definitions that count elements instead of area differ.
        """
        if self.from_prediction_mm is None or self.from_truth_mm is None:
            return None
        return max(
            _distance_of_share(self.from_prediction_mm, self.prediction_areas_mm2, percent / 100),
            _distance_of_share(self.from_truth_mm, self.truth_areas_mm2, percent / 100),
        )

    def average_mm(self) -> float | None:
        """Return the mean distance over the area of both surfaces (ASSD); None where one mask is empty."""
        if self.from_prediction_mm is None or self.from_truth_mm is None:
            return None
        weighted = self.from_prediction_mm @ self.prediction_areas_mm2
        weighted += self.from_truth_mm @ self.truth_areas_mm2
        return float(weighted / (self.prediction_areas_mm2.sum() + self.truth_areas_mm2.sum()))


def surface_distances(
    prediction: NDArray[np.generic],
    truth: NDArray[np.generic],
    spacing_dhw_mm: Sequence[float] | NDArray[np.float64],
) -> SurfaceDistances:
    """Measure how far the surfaces of two masks (D, H, W) are from each other.

    Each mask is cropped to what is in it, so the time depends on the object and not on the scan. ValueError
    when the shapes differ or are not of three axes, or the spacing is not three numbers above 0.
    """
    if prediction.shape != truth.shape or prediction.ndim != 3:
        raise ValueError(
            f"the masks have shapes {prediction.shape} and {truth.shape}, which must be equal and of three axes"
        )
    spacing = np.asarray(spacing_dhw_mm, dtype=np.float64)
    if spacing.shape != (3,) or not (np.isfinite(spacing) & (spacing > 0)).all():
        raise ValueError(f"the spacing must be three numbers of mm above 0, not {spacing_dhw_mm}")
    predicted_corners, predicted_areas = _surface(prediction, spacing)
    true_corners, true_areas = _surface(truth, spacing)
    both = predicted_areas.size > 0 and true_areas.size > 0
    return SurfaceDistances(
        from_prediction_mm=_nearest_mm(predicted_corners, true_corners, spacing) if both else None,
        from_truth_mm=_nearest_mm(true_corners, predicted_corners, spacing) if both else None,
        prediction_areas_mm2=predicted_areas,
        truth_areas_mm2=true_areas,
    )


def _surface(
    mask: NDArray[np.generic], spacing_mm: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the elements of a surface: corners (n, 3), counted from the array's first, and areas (n,)."""
    box = bounding_box(mask)
    if box is None:
        return np.zeros((0, 3), np.int64), np.zeros(0)
    codes = neighbour_codes(mask[box.slices] != 0)
    corners = np.argwhere((codes != 0) & (codes != NUM_CODES - 1))
    d, h, w = map(float, spacing_mm)
    return corners + box.start_dhw, element_areas_mm2((d, h, w))[codes[tuple(corners.T)]]


def _nearest_mm(
    corners: NDArray[np.int64], others: NDArray[np.int64], spacing_mm: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the distance (n,) from each corner (n, 3) to the nearest of the others (m, 3)."""
    _, nearest = KDTree(others * spacing_mm).query(corners * spacing_mm)
    # From whole steps: a distance of five voxels of 0.2 mm is 1 mm, wherever they lie in the scan.
    return np.asarray(np.linalg.norm((corners - others[nearest]) * spacing_mm, axis=1))


def _distance_of_share(
    distances_mm: NDArray[np.float64], areas_mm2: NDArray[np.float64], share: float
) -> float:
    order = np.argsort(distances_mm)
    covered = np.cumsum(areas_mm2[order]) / areas_mm2.sum()
    # Rounding may leave the last sum just below a share of one.
    return float(distances_mm[order[min(int(np.searchsorted(covered, share)), len(order) - 1)]])
