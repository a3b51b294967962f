"""What a session knows at one step; every step makes a new state from the one before."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from clickvol.errors import ClickError
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.geometry.grid import VolumeGrid
from clickvol.interactive.packed_mask import EMPTY, PackedMask
from clickvol.prompts.click import Click

MAX_OBJECTS = 255
"""A label map of bytes holds no more."""


@dataclass(frozen=True, slots=True)
class SessionObject:
    """One object of a session.

    Attributes:
        id: from 1; its value in the label map.
        name: given by the user; may be empty.
        clicks: on it, in order.
        frozen: it cannot change, and the others leave it alone.
        num_voxels: of its mask.
        volume_ml: of its mask.
    """

    id: int
    name: str
    clicks: tuple[Click, ...]
    frozen: bool
    num_voxels: int
    volume_ml: float


@dataclass(frozen=True, slots=True)
class ObjectState:
    """An object at one step.

    Attributes:
        name: given by the user; may be empty.
        clicks: on it, in order.
        frozen: it cannot change, and the others leave it alone.
        mask: what was found when it was last clicked.
        others: the frozen objects at that time.
    """

    name: str = ""
    clicks: tuple[Click, ...] = ()
    frozen: bool = False
    mask: PackedMask = EMPTY
    others: tuple[PackedMask, ...] = ()


@dataclass(frozen=True, slots=True)
class SessionState:
    """All objects at one step.

    Attributes:
        objects: the first has the id 1.
    """

    objects: tuple[ObjectState, ...] = (ObjectState(),)

    def object(self, object_id: int) -> ObjectState:
        """Return an object.

        Raises:
            ClickError: when it is not there.
        """
        count = len(self.objects)
        if not 1 <= object_id <= count:
            raise ClickError(f"there is no object {object_id}; there are 1 to {count}; add one first")
        return self.objects[object_id - 1]

    def with_object(self, object_id: int, state: ObjectState) -> "SessionState":
        """Return this state with one object changed."""
        objects = list(self.objects)
        objects[object_id - 1] = state
        return SessionState(tuple(objects))

    def with_another(self, name: str) -> "SessionState":
        """Return this state with one object more.

        Raises:
            ClickError: when there are 255 already.
        """
        if len(self.objects) == MAX_OBJECTS:
            raise ClickError(
                f"there are {MAX_OBJECTS} objects, and no more fit in a label map; save, and begin again"
            )
        return SessionState((*self.objects, ObjectState(name)))

    def frozen_beside(self, object_id: int) -> tuple[PackedMask, ...]:
        """Return the masks of the other objects that are frozen."""
        return tuple(
            state.mask
            for number, state in enumerate(self.objects, start=1)
            if state.frozen and number != object_id and state.mask.num_voxels
        )

    def mask_of(self, object_id: int, shape_dhw: tuple[int, int, int]) -> NDArray[np.uint8]:
        """Return the mask of an object without what frozen ones hold: (D, H, W), 0 or 1."""
        array = np.zeros(shape_dhw, dtype=np.uint8)
        self.object(object_id).mask.paint(array, 1)
        for other in self.frozen_beside(object_id):
            other.paint(array, 0)
        return array

    def label_map(self, shape_dhw: tuple[int, int, int]) -> NDArray[np.uint8]:
        """Return the ids of all objects: (D, H, W); later ones lie on earlier ones, frozen ones on all."""
        array = np.zeros(shape_dhw, dtype=np.uint8)
        numbered = list(enumerate(self.objects, start=1))
        for number, state in sorted(numbered, key=lambda pair: pair[1].frozen):
            state.mask.paint(array, number)
        return array

    def listed(self, grid: VolumeGrid) -> tuple[SessionObject, ...]:
        """Describe all objects."""
        found = []
        for number, state in enumerate(self.objects, start=1):
            count = state.mask.num_voxels
            if count and self.frozen_beside(number):
                count = int(np.count_nonzero(self.mask_of(number, grid.shape_dhw)))
            ml = count * grid.voxel_volume_mm3 / 1000
            found.append(SessionObject(number, state.name, state.clicks, state.frozen, count, ml))
        return tuple(found)


def innermost(mask: PackedMask) -> VoxelPoint:
    """Return the voxel of an object that is farthest from its border, the first of several."""
    if mask.box is None:
        raise ValueError("an empty mask has no innermost voxel")
    depth = ndimage.distance_transform_cdt(np.pad(mask.in_box(), 1), metric="chessboard")
    d, h, w = np.unravel_index(int(depth.argmax()), depth.shape)
    e, i, x = mask.box.grow(1).start_dhw
    return VoxelPoint(float(d + e), float(h + i), float(w + x))
