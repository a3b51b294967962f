"""What other viewers draw, as interactions of a session. Voxels are (d, h, w) of the array that was sent."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from clickvol.errors import ClickError
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.interactive.interactions import (
    BoxInteraction,
    ClickInteraction,
    DrawnInteraction,
    DrawnKind,
    DrawnVoxels,
)
from clickvol.prompts.packed_mask import PackedMask


def point_prompt(place_dhw: Sequence[float], *, positive: bool) -> ClickInteraction:
    """Return a click at the nearest voxel; ClickError when it is not finite."""
    if not np.isfinite(place_dhw).all():
        raise ClickError(f"the click {tuple(place_dhw)} is not finite; give voxel indices")
    return ClickInteraction.at(VoxelPoint.of([float(round(v)) for v in place_dhw]), positive=positive)


def box_prompt(low_dhw: ArrayLike, high_dhw: ArrayLike, *, positive: bool) -> BoxInteraction | ClickInteraction:
    """Return a box by its first and its last voxel, both in it; one of a single voxel is a click."""
    low, high = VoxelPoint.of(low_dhw), VoxelPoint.of(high_dhw)
    if np.array_equal(np.rint(low.as_array()), np.rint(high.as_array())):
        return ClickInteraction.at(low, positive=positive)
    return BoxInteraction(object_id=1, space="ijk", first=low.to_ijk(), second=high.to_ijk(), positive=positive)


def drawn_prompt(
    kind: DrawnKind, drawn: NDArray[np.generic], start_dhw: Sequence[int] = (0, 0, 0), *, positive: bool = True
) -> DrawnInteraction:
    """Return a drawing, (D, H, W), drawn where it is above 0; ClickError when nothing is.

    A lasso may be its closed contour alone. `start_dhw` is the place of the array's first voxel in the image.
    """
    mask = np.asarray(drawn) > 0
    packed = PackedMask.of(_filled(mask) if kind == "lasso" else mask)
    if packed.box is None:
        raise ClickError(f"the {kind.replace('_', ' ')} is empty; draw some voxels")
    voxels = DrawnVoxels.of(packed.shift((start_dhw[0], start_dhw[1], start_dhw[2])))
    return DrawnInteraction(kind=kind, object_id=1, voxels=voxels, positive=positive)


def _filled(area: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Fill the holes of the plane that a drawing lies in; one of several planes stays."""
    flat = [axis for axis in range(3) if np.count_nonzero(area.any(axis=tuple({0, 1, 2} - {axis}))) == 1]
    if not flat:
        return area
    plane = int(area.any(axis=tuple({0, 1, 2} - {flat[0]})).argmax())
    filled = np.zeros_like(area)
    place = tuple(plane if axis == flat[0] else slice(None) for axis in range(3))
    filled[place] = ndimage.binary_fill_holes(area[place])
    return filled
