"""Slices in any order to one regular stack: sorted, checked, and with its affine."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import BadGeometryError, DicomSeriesError
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.dicom.reading.slices import DicomSlice

# Direction cosines are stored as decimal text, sometimes with four decimals.
_MAX_COSINE_DIFFERENCE = 1e-3
_MAX_SPACING_DIFFERENCE_MM = 1e-3

SAME_POSITION_MM = 1e-3
"""Two slices closer than this are at the same place."""

# How far a hole may be from a whole number of the usual gap, in gaps.
_MAX_HOLE_DEVIATION = 0.15

# A gap this many times the usual one lacks at least one slice.
_MISSING_GAP_RATIO = 1.5

# Positions may be rounded to 0.1 mm: 0.05 mm for a slice, and as much for the two end slices that
# the regular grid is laid through. On thick slices 2 % of the spacing is no more visible.
_MAX_OFFSET_MM = 0.11
_MAX_OFFSET_RATIO = 0.02

_MAX_LISTED = 3


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """Slices in the order of an array, and the regular grid that the array has.

    Attributes:
        slices: in the order of the d axis, which grows along (row x column direction).
        grid: sheared where the gantry was tilted.
        notes: a sentence for each thing a user should know.
        sources: (D,) which slice, or place between two, each plane of the grid is; None where each is its
            slice.
    """

    slices: list[DicomSlice]
    grid: VolumeGrid
    notes: tuple[str, ...] = ()
    sources: NDArray[np.float64] | None = None


def stack_slices(slices: Sequence[DicomSlice], *, resample_gaps: bool = False) -> Stack:
    """Sort slices, in any order, along their normal and lay a regular grid through them.

    With `resample_gaps`, where their distance changes, the grid has the smallest that is usual.

    Raises:
        DicomSeriesError: mixed sizes, spacings or orientations, two slices at one place, or slices that are
            missing, or are irregularly spaced where that is not to be resampled.
        BadGeometryError: spacing or orientation that cannot be used.
    """
    _check_alike(slices)
    _check_orientation(slices[0])
    normal = slice_normal(slices[0])
    ordered = sorted(slices, key=lambda s: float(normal @ s.position_lps_mm))
    positions = np.array([s.position_lps_mm for s in ordered])
    heights_mm = positions @ normal
    if len(ordered) == 1:
        thickness_mm = ordered[0].thickness_mm
        notes = () if thickness_mm else ("There is one slice without a thickness; 1 mm is assumed.",)
        return Stack(ordered, _grid(ordered[0], normal * (thickness_mm or 1.0), 1), notes)
    _check_missing(ordered, heights_mm)
    step = (positions[-1] - positions[0]) / (len(ordered) - 1)
    if _is_regular(positions, step):
        return Stack(ordered, _grid(ordered[0], step, len(ordered)))
    problem = _irregularity(ordered, positions, heights_mm)
    if not resample_gaps:
        raise DicomSeriesError(
            f"{problem}; export the series with equal gaps, or have it resampled (--resample-gaps)"
        )
    return _resampled(ordered, positions, heights_mm, problem)


def slice_normal(one: DicomSlice) -> NDArray[np.float64]:
    """Return the unit vector (3,) along (row x column direction), LPS."""
    return np.asarray(np.cross(one.orientation_lps[:3], one.orientation_lps[3:]))


def _grid(first: DicomSlice, step_lps_mm: NDArray[np.float64], num_slices: int) -> VolumeGrid:
    spacing_h, spacing_w = first.spacing_hw_mm
    affine_lps = np.eye(4)
    # PixelSpacing is (between rows, between columns): the column index w moves along the row.
    affine_lps[:3, 0] = first.orientation_lps[:3] * spacing_w
    affine_lps[:3, 1] = first.orientation_lps[3:] * spacing_h
    affine_lps[:3, 2] = step_lps_mm
    affine_lps[:3, 3] = first.position_lps_mm
    num_h, num_w = first.shape_hw
    return VolumeGrid.from_ijk_lps((num_w, num_h, num_slices), affine_lps)


def _resampled(
    ordered: list[DicomSlice], positions: NDArray[np.float64], heights_mm: NDArray[np.float64], problem: str
) -> Stack:
    """Return a stack at the smallest gap that is usual somewhere; the slices must lie on one line."""
    length_mm = heights_mm[-1] - heights_mm[0]
    direction = (positions[-1] - positions[0]) / length_mm
    on_line = positions[0] + (heights_mm - heights_mm[0])[:, np.newaxis] * direction
    offset_mm = float(np.linalg.norm(positions - on_line, axis=1).max())
    if offset_mm > _MAX_OFFSET_MM:
        raise DicomSeriesError(
            f"the slices are shifted by up to {offset_mm:.2f} mm against one line, so that interpolating "
            "between them would bend the body; export the series again"
        )
    gaps_mm = np.diff(heights_mm)
    # Of gaps that differ throughout the smallest one may be an accident; the lower quartile is not.
    spacing_mm = float(np.sort(gaps_mm)[(len(gaps_mm) - 1) // 4])
    num_planes = math.floor(length_mm / spacing_mm + 1e-3) + 1
    planes_mm = heights_mm[0] + np.arange(num_planes) * spacing_mm
    sources = np.interp(planes_mm, heights_mm, np.arange(len(ordered), dtype=np.float64))
    note = f"{problem[0].upper()}{problem[1:]}; the scan was resampled to a gap of {spacing_mm:.2f} mm."
    return Stack(ordered, _grid(ordered[0], direction * spacing_mm, num_planes), (note,), sources)


def _check_alike(slices: Sequence[DicomSlice]) -> None:
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


def _check_missing(ordered: list[DicomSlice], heights_mm: NDArray[np.float64]) -> None:
    gaps_mm = np.diff(heights_mm)
    for index in np.flatnonzero(gaps_mm < SAME_POSITION_MM)[:1]:
        x, y, z = ordered[index].position_lps_mm
        raise DicomSeriesError(
            f"{ordered[index].name} and {ordered[index + 1].name} are duplicated: both lie at "
            f"({x:g}, {y:g}, {z:g}) mm LPS; one slice per position is expected, so keep one time "
            "point or one copy"
        )
    # The lower median: of two different gaps, the wider one is the one with something missing.
    usual_mm = float(np.sort(gaps_mm)[(len(gaps_mm) - 1) // 2])
    wide = np.flatnonzero(gaps_mm > _MISSING_GAP_RATIO * usual_mm)
    if wide.size and _are_missing(gaps_mm, usual_mm):
        num_missing = sum(round(float(gaps_mm[i]) / usual_mm) - 1 for i in wide)
        places = ", ".join(f"{heights_mm[i]:.2f} and {heights_mm[i + 1]:.2f} mm" for i in wide[:_MAX_LISTED])
        more = f" and {wide.size - _MAX_LISTED} more gaps" if wide.size > _MAX_LISTED else ""
        plural = "slice is" if num_missing == 1 else "slices are"
        raise DicomSeriesError(
            f"{num_missing} {plural} missing: between {places}{more} along the slice normal, where "
            f"slices lie {usual_mm:.2f} mm apart; copy or export the series again"
        )


def _are_missing(gaps_mm: NDArray[np.float64], usual_mm: float) -> bool:
    """Tell whether wide gaps are holes in one regular stack, and not another distance that a scanner chose.

    Holes are whole multiples of the usual gap among usual ones. A scanner that changes its distance does so for
    several slices on end: for three or more, or for two up to the end of the stack.
    """
    ratios = gaps_mm / usual_mm
    whole = np.rint(ratios)
    if (np.abs(ratios - whole) > _MAX_HOLE_DEVIATION).any():
        return False
    runs = np.split(whole, np.flatnonzero(np.diff(whole)) + 1)
    at_ends = [run for run in (runs[0], runs[-1]) if run[0] > 1]
    return not (any(len(run) > 2 and run[0] > 1 for run in runs) or any(len(run) > 1 for run in at_ends))


def _is_regular(positions: NDArray[np.float64], step: NDArray[np.float64]) -> bool:
    regular = positions[0] + np.arange(len(positions))[:, np.newaxis] * step
    offsets_mm = np.linalg.norm(positions - regular, axis=1)
    return bool(offsets_mm.max() <= max(_MAX_OFFSET_MM, _MAX_OFFSET_RATIO * float(np.linalg.norm(step))))


def _irregularity(
    ordered: list[DicomSlice], positions: NDArray[np.float64], heights_mm: NDArray[np.float64]
) -> str:
    """Say where the distance of slices changes; where it does so all the time, which slice is worst placed."""
    gaps_mm = np.diff(heights_mm)
    tolerance_mm = np.maximum(_MAX_OFFSET_MM, _MAX_OFFSET_RATIO * gaps_mm[:-1])
    changes = np.flatnonzero(np.abs(np.diff(gaps_mm)) > tolerance_mm)
    # A distance that holds for one slice alone is nothing that a scanner chose.
    if 0 < changes.size <= _MAX_LISTED and 2 * (changes.size + 1) <= gaps_mm.size:
        places = ", ".join(
            f"from {gaps_mm[i]:.2f} to {gaps_mm[i + 1]:.2f} mm at {heights_mm[i + 1]:.2f} mm" for i in changes
        )
        name = ordered[changes[0] + 1].name
        return f"the distance of the slices changes {places} along the slice normal ({name})"
    step = (positions[-1] - positions[0]) / (len(ordered) - 1)
    offsets_mm = np.linalg.norm(
        positions - positions[0] - np.arange(len(ordered))[:, np.newaxis] * step, axis=1
    )
    worst = int(np.argmax(offsets_mm))
    return (
        f"the slices are irregularly spaced: {ordered[worst].name} lies {offsets_mm[worst]:.2f} mm off its "
        f"place in a regular stack with a gap of {float(np.linalg.norm(step)):.2f} mm"
    )
