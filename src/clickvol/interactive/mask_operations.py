"""What can be done to a finished mask: parts, holes, surface, size, and slices that were left out."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.ndimage import distance_transform_edt as edt

from clickvol.errors import ClickError
from clickvol.geometry.box import VoxelBox
from clickvol.geometry.grid import VolumeGrid
from clickvol.prompts.packed_mask import PackedMask

Operation = Literal["keep_largest", "fill_holes", "smooth", "grow", "shrink", "fill_between"]

MEASURED: tuple[Operation, ...] = ("smooth", "grow", "shrink")
"""Those that take a distance in mm."""

_SIGMAS = 3.0  # so far reaches a Gaussian
_NEIGHBOURS_26 = np.ones((3, 3, 3), dtype=bool)


def operated(mask: PackedMask, operation: Operation, mm: float, grid: VolumeGrid) -> PackedMask:
    """Return a mask after an operation.

    Args:
        mask: of an object.
        operation: "keep_largest" keeps the largest connected part (26 neighbours); "fill_holes" what is
            enclosed in space or on a slice of the scan; "smooth" blurs the surface by `mm` and keeps the
            number of voxels; "grow" and "shrink" move the surface by `mm`, but not where the scan ends;
            "fill_between" fills empty slices between drawn ones by their shapes, along the axis of the scan
            that has most of them.
        mm: distance, for those that are `MEASURED`.
        grid: of the scan.

    Raises:
        ClickError: when the mask is empty, or nothing is left of it, or no slice is empty between others.
    """
    if mask.box is None:
        raise ClickError("the object has no voxel yet; click or paint first")
    spacing_mm = grid.spacing_dhw_mm
    reach_mm = {"grow": mm, "smooth": _SIGMAS * mm}.get(operation, 0.0)
    margin = np.ceil(reach_mm / spacing_mm).astype(int) + 1
    box = VoxelBox.of(np.subtract(mask.box.start_dhw, margin), np.add(mask.box.stop_dhw, margin)).clip(
        grid.shape_dhw
    )
    inside = mask.within(box)
    match operation:
        case "keep_largest":
            result = _largest(inside)
        case "fill_holes":
            result = _without_holes(inside)
        case "smooth":
            result = _smooth(inside, mm, spacing_mm)
        case "grow":
            result = inside | (edt(~inside, sampling=spacing_mm) <= mm)
        case "shrink":
            # Where all of the box is object, nothing is near: there is no outside.
            result = inside if inside.all() else edt(inside, sampling=spacing_mm) > mm
        case "fill_between":
            result = _between(inside, spacing_mm)
    changed = PackedMask.of(result)
    if changed.box is None:
        raise ClickError(f"nothing would be left of the object after {mm:g} mm; give less")
    return changed.shift(box.start_dhw)


def _largest(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    parts, _ = ndimage.label(inside, structure=_NEIGHBOURS_26)
    sizes = np.bincount(parts.reshape(-1))
    sizes[0] = 0
    return np.asarray(parts == sizes.argmax())


def _without_holes(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    filled = ndimage.binary_fill_holes(inside)
    for axis in range(3):
        for before, after in zip(np.moveaxis(inside, axis, 0), np.moveaxis(filled, axis, 0), strict=True):
            after |= ndimage.binary_fill_holes(before)
    return np.asarray(filled)


def _smooth(inside: NDArray[np.bool_], mm: float, spacing_mm: NDArray[np.float64]) -> NDArray[np.bool_]:
    # The scan's border is no surface: what lies beyond it is as what lies before it.
    blurred = ndimage.gaussian_filter(
        inside.astype(np.float32), mm / spacing_mm, mode="nearest", truncate=_SIGMAS
    )
    count = int(inside.sum())
    return np.asarray(blurred >= np.partition(blurred, -count, axis=None)[-count])


def _between(inside: NDArray[np.bool_], spacing_mm: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Fill empty slices by the mean of signed distances, weighted by nearness (Raya and Udupa 1990)."""
    drawn = [np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    missing = [int(places[-1] - places[0] + 1 - len(places)) for places in drawn]
    axis = int(np.argmax(missing))
    if not missing[axis]:
        raise ClickError("no empty slice lies between slices of the object; paint some, and leave some out")
    result = inside.copy()
    planes, sampling = np.moveaxis(result, axis, 0), np.delete(spacing_mm, axis)
    for low, high in zip(drawn[axis][:-1], drawn[axis][1:], strict=True):
        if high - low > 1:
            first, last = (_signed_distance(planes[at], sampling) for at in (low, high))
            for at in range(low + 1, high):
                part = (at - low) / (high - low)
                planes[at] = (1 - part) * first + part * last > 0
    return result


def _signed_distance(plane: NDArray[np.bool_], spacing_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return mm from the border of an area, positive in it; where all of a plane is area, its size."""
    if plane.all():
        return np.full(plane.shape, float(np.linalg.norm(spacing_mm * plane.shape)))
    return np.asarray(edt(plane, sampling=spacing_mm) - edt(~plane, sampling=spacing_mm))
