"""Slices in any order to one regular stack: sorted, checked, and with its affine."""

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import BadGeometryError, DicomSeriesError
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.dicom.reading.slices import DicomSlice

# Direction cosines are stored as decimal text, sometimes with four decimals.
_MAX_COSINE_DIFFERENCE = 1e-3
_MAX_SPACING_DIFFERENCE_MM = 1e-3

# Two slices closer than this are at the same place.
_SAME_POSITION_MM = 1e-3

# A gap this many times the usual one lacks at least one slice.
_MISSING_GAP_RATIO = 1.5

# Positions may be rounded to 0.1 mm: 0.05 mm for a slice, and as much for the two end slices that
# the regular grid is laid through. On thick slices 2 % of the spacing is no more visible.
_MAX_OFFSET_MM = 0.11
_MAX_OFFSET_RATIO = 0.02

_MAX_LISTED = 3


def stack_slices(slices: list[DicomSlice]) -> tuple[list[DicomSlice], VolumeGrid, tuple[str, ...]]:
    """Sort slices along their normal and lay a regular grid through them.

    Args:
        slices: at least one, in any order.

    Returns:
        The slices in the order of the array's d axis, which grows along (row x column direction);
        the grid, sheared where the gantry was tilted; and a sentence for each thing a user should know.

    Raises:
        DicomSeriesError: mixed sizes, spacings or orientations, two slices at one place, or slices
            that are missing or irregularly spaced.
        BadGeometryError: spacing or orientation that cannot be used.
    """
    _check_alike(slices)
    _check_orientation(slices[0])
    row, column = slices[0].orientation_lps[:3], slices[0].orientation_lps[3:]
    normal = np.cross(row, column)
    ordered = sorted(slices, key=lambda s: float(normal @ s.position_lps_mm))
    positions = np.array([s.position_lps_mm for s in ordered])

    notes: tuple[str, ...] = ()
    if len(ordered) == 1:
        thickness = ordered[0].thickness_mm or 1.0
        step = normal * thickness
        if ordered[0].thickness_mm is None:
            notes = ("There is one slice without a thickness; 1 mm is assumed.",)
    else:
        _check_gaps(ordered, positions @ normal)
        step = (positions[-1] - positions[0]) / (len(ordered) - 1)
        _check_regular(ordered, positions, step)

    spacing_h, spacing_w = ordered[0].spacing_hw_mm
    affine_lps = np.eye(4)
    # PixelSpacing is (between rows, between columns): the column index w moves along the row.
    affine_lps[:3, 0] = row * spacing_w
    affine_lps[:3, 1] = column * spacing_h
    affine_lps[:3, 2] = step
    affine_lps[:3, 3] = positions[0]
    num_h, num_w = ordered[0].shape_hw
    grid = VolumeGrid.from_ijk_lps((num_w, num_h, len(ordered)), affine_lps)
    return ordered, grid, notes


def _check_alike(slices: list[DicomSlice]) -> None:
    first = slices[0]
    for other in slices[1:]:
        if other.shape_hw != first.shape_hw:
            what = f"sizes (rows, columns): {first.shape_hw} and {other.shape_hw}"
        elif _differ(other.spacing_hw_mm, first.spacing_hw_mm, _MAX_SPACING_DIFFERENCE_MM):
            what = f"pixel spacings: {first.spacing_hw_mm} and {other.spacing_hw_mm} mm"
        elif _differ(other.orientation_lps, first.orientation_lps, _MAX_COSINE_DIFFERENCE):
            what = "orientations (is a localizer among them?)"
        else:
            continue
        raise DicomSeriesError(
            f"the series has mixed {what}, in {first.name} and {other.name}; one regular stack is "
            "expected, so take out the slices that do not belong to it"
        )


def _differ(
    one: NDArray[np.float64] | tuple[float, float],
    other: NDArray[np.float64] | tuple[float, float],
    tolerance: float,
) -> bool:
    return not np.allclose(one, other, rtol=0, atol=tolerance)


def _check_orientation(first: DicomSlice) -> None:
    axes = first.orientation_lps.reshape(2, 3)
    if not np.allclose(axes @ axes.T, np.eye(2), rtol=0, atol=1e-2):
        raise BadGeometryError(
            f"{first.name}: ImageOrientationPatient {first.orientation_lps.tolist()} is not two "
            "perpendicular unit vectors; repair or export the series again"
        )


def _check_gaps(ordered: list[DicomSlice], heights_mm: NDArray[np.float64]) -> None:
    gaps_mm = np.diff(heights_mm)
    for index in np.flatnonzero(gaps_mm < _SAME_POSITION_MM)[:1]:
        x, y, z = ordered[index].position_lps_mm
        raise DicomSeriesError(
            f"{ordered[index].name} and {ordered[index + 1].name} are duplicated: both lie at "
            f"({x:g}, {y:g}, {z:g}) mm LPS; one slice per position is expected, so keep one time "
            "point or one copy"
        )
    # The lower median: of two different gaps, the wider one is the one with something missing.
    usual_mm = float(np.sort(gaps_mm)[(len(gaps_mm) - 1) // 2])
    wide = np.flatnonzero(gaps_mm > _MISSING_GAP_RATIO * usual_mm)
    if wide.size:
        num_missing = sum(round(float(gaps_mm[i]) / usual_mm) - 1 for i in wide)
        places = ", ".join(f"{heights_mm[i]:.2f} and {heights_mm[i + 1]:.2f} mm" for i in wide[:_MAX_LISTED])
        more = f" and {wide.size - _MAX_LISTED} more gaps" if wide.size > _MAX_LISTED else ""
        plural = "slice is" if num_missing == 1 else "slices are"
        raise DicomSeriesError(
            f"{num_missing} {plural} missing: between {places}{more} along the slice normal, where "
            f"slices lie {usual_mm:.2f} mm apart; copy or export the series again"
        )


def _check_regular(
    ordered: list[DicomSlice], positions: NDArray[np.float64], step: NDArray[np.float64]
) -> None:
    regular = positions[0] + np.arange(len(ordered))[:, np.newaxis] * step
    offsets_mm = np.linalg.norm(positions - regular, axis=1)
    spacing_mm = float(np.linalg.norm(step))
    worst = int(np.argmax(offsets_mm))
    if offsets_mm[worst] > max(_MAX_OFFSET_MM, _MAX_OFFSET_RATIO * spacing_mm):
        raise DicomSeriesError(
            f"the slices are irregularly spaced: {ordered[worst].name} lies "
            f"{offsets_mm[worst]:.2f} mm off its place in a regular stack with a gap of "
            f"{spacing_mm:.2f} mm; export the series with equal gaps"
        )
