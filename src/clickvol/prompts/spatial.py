"""What a user points at beside clicks: a line, a box, a scribble, a lasso, a mask to correct.

Each is checked against the grid of the scan before anything is computed. Drawings are voxels of the scan,
packed, whatever they were drawn with; where a line or a box is given in millimetres it is turned into voxels
of the scan, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import ClickError
from clickvol.geometry.box import VoxelBox
from clickvol.geometry.coordinates import VoxelPoint, WorldPointRAS
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.dicom.contours import contours_mask
from clickvol.prompts.click import Click, valid_indices
from clickvol.prompts.packed_mask import PackedMask

Position = VoxelPoint | WorldPointRAS


@dataclass(frozen=True, slots=True)
class Line:
    """The longest diameter of the object, as a radiologist measures it; one outside an object means nothing."""

    first: Position
    second: Position
    foreground: bool = field(default=True, init=False)

    def ends(self, grid: VolumeGrid) -> tuple[WorldPointRAS, WorldPointRAS]:
        """Return both ends in the patient; ClickError for one like a click's, or a line shorter than .1 mm."""
        first, second = Click(self.first).world(grid), Click(self.second).world(grid)
        if np.linalg.norm(first.as_array() - second.as_array()) < 0.1:
            raise ClickError("the line has no length; give both ends of the longest diameter")
        return first, second

    def check(self, grid: VolumeGrid) -> None:
        """Refuse what `ends` refuses."""
        self.ends(grid)


@dataclass(frozen=True, slots=True)
class Box:
    """A box along the axes of the scan, by the voxels of two opposite corners; may be flat."""

    first: Position
    second: Position
    foreground: bool = True

    @classmethod
    def of(cls, box: VoxelBox, *, foreground: bool = True) -> "Box":
        """Make a box from half-open voxel bounds."""
        return cls(VoxelPoint.of(box.start_dhw), VoxelPoint.of(np.array(box.stop_dhw) - 1), foreground)

    def voxel_box(self, grid: VolumeGrid) -> VoxelBox:
        """Return the voxels of the box, those that overhang the scan left out.

        ClickError when a corner is not finite, the box lies outside the scan, or holds a single voxel.
        """
        box = self._whole(grid).clip(grid.shape_dhw)
        if box.is_empty:
            raise ClickError(f"the box lies outside the scan; {valid_indices(grid)}")
        if box.shape_dhw == (1, 1, 1):
            raise ClickError("the box holds a single voxel; give two corners around the object, or a click")
        return box

    def overhangs(self, grid: VolumeGrid) -> bool:
        """Tell whether a part of the box lies beyond the scan."""
        whole = self._whole(grid)
        return whole.clip(grid.shape_dhw) != whole

    def check(self, grid: VolumeGrid) -> None:
        """Refuse what `voxel_box` refuses."""
        self.voxel_box(grid)

    def _whole(self, grid: VolumeGrid) -> VoxelBox:
        corners = []
        for corner in (self.first, self.second):
            if not corner.is_finite():
                raise ClickError("a corner of the box is not finite; give three finite numbers for each")
            voxel = corner if isinstance(corner, VoxelPoint) else grid.to_voxel(corner)
            # Half-way corners, as millimetres give them, go the same way in every copy of a scan.
            # How far beyond the scan a corner lies does not matter, and may be more than an index holds.
            corners.append(np.clip(np.rint(np.round(voxel.as_array(), 6)), -1, grid.shape_dhw))
        return VoxelBox.of(np.minimum(*corners), np.maximum(*corners) + 1)


@dataclass(frozen=True, slots=True)
class _Drawing:
    """Voxels of the scan that were drawn, on the object or on what is not the object."""

    voxels: PackedMask
    foreground: bool = True

    def check(self, grid: VolumeGrid) -> None:
        """Refuse what `voxel_box` refuses."""
        self.voxel_box(grid)

    def voxel_box(self, grid: VolumeGrid) -> VoxelBox:
        """Return the box of a drawing; ClickError for one without a voxel, or of another grid."""
        name = type(self).__name__.lower()
        box = self.voxels.box
        if box is None:
            raise ClickError(f"the {name} holds no voxel; draw some")
        if box.clip(grid.shape_dhw) != box:
            raise ClickError(
                f"the {name} reaches voxel {box.stop_dhw}, but the scan has {grid.shape_dhw}; draw on this scan"
            )
        return box


class Scribble(_Drawing):
    """Strokes inside the object, or outside it."""

    __slots__ = ()

    @classmethod
    def along(cls, points: Sequence[Position], grid: VolumeGrid, *, foreground: bool = True) -> "Scribble":
        """Draw straight strokes from point to point; ClickError for fewer than two, or one outside the scan."""
        if len(points) < 2:
            raise ClickError(f"a scribble has two points or more, not {len(points)}; give a --click for one")
        voxels = _voxels_of(points, grid)
        canvas = np.zeros(grid.shape_dhw, dtype=bool)
        for start, stop in pairwise(voxels):
            steps = int(np.ceil(2 * np.abs(stop - start).max())) + 1
            along = np.rint(np.linspace(start, stop, steps)).astype(int)
            canvas[tuple(np.clip(along, 0, np.array(grid.shape_dhw) - 1).T)] = True
        return cls(PackedMask.of(canvas), foreground)


class Lasso(_Drawing):
    """The area of a closed curve on a slice, around the object or around what does not belong to it."""

    __slots__ = ()

    @classmethod
    def around(cls, points: Sequence[Position], grid: VolumeGrid, *, foreground: bool = True) -> "Lasso":
        """Fill a closed curve by its corners on one slice of the scan, along any of its axes.

        ClickError when there are fewer than three points, one is not finite or outside the scan, they lie on no
        slice, or no voxel is inside.
        """
        if len(points) < 3:
            raise ClickError(f"a lasso has three points or more, not {len(points)}; draw a closed curve")
        voxels = _voxels_of(points, grid)
        spread = np.ptp(voxels, axis=0)
        axis = int(spread.argmin())
        if spread[axis] > 1:
            raise ClickError(
                f"the points of the lasso lie on no slice (they spread over {spread[::-1].round(1).tolist()} "
                "voxels i, j, k); draw on one"
            )
        canvas = np.zeros(grid.shape_dhw, dtype=bool)
        level = round(float(voxels[:, axis].mean()))
        plane = np.moveaxis(canvas, axis, 0)[level]
        plane[...] = contours_mask([np.delete(voxels, axis, axis=1)], (plane.shape[0], plane.shape[1]))
        if not plane.any():
            raise ClickError("no voxel lies inside the lasso; draw a closed curve around some")
        return cls(PackedMask.of(canvas), foreground)


class GivenMask(_Drawing):
    """A mask to begin with: what comes after corrects it."""

    __slots__ = ()


Prompt = Click | Line | Box | Scribble | Lasso | GivenMask
"""All that a user can point with; a new one needs a case in `predict/placed_prompts.py` and an interaction."""


class _Signed(Protocol):
    @property
    def foreground(self) -> bool: ...


def check_prompt(prompt: Prompt, grid: VolumeGrid) -> None:
    """Refuse a prompt that is not finite, empty or outside the scan (ClickError)."""
    if isinstance(prompt, Click):
        prompt.world(grid)
    else:
        prompt.check(grid)


def check_any_prompt_inside(prompts: Sequence[_Signed]) -> None:
    """Check that prompts say where the object is; ClickError when none is on the object."""
    if not any(prompt.foreground for prompt in prompts):
        raise ClickError(
            "there is no click inside the object; give at least one (background clicks alone do not say where "
            "it is), or a line, box, scribble or lasso on it"
        )


def _voxels_of(points: Sequence[Position], grid: VolumeGrid) -> NDArray[np.float64]:
    """Return checked points as voxel positions: (N, 3)."""
    return np.array([grid.to_voxel(Click(point).world(grid)).as_array() for point in points])


class HintChannel(IntEnum):
    """Channels of the hint maps, each in [-1, 1], 0 where nothing is said."""

    SCRIBBLE = 0
    """1 on a scribble inside the object, -1 on one outside."""
    REGION = 1
    """1 inside a box or lasso, -1 outside it, on the slices it was drawn on."""
    DIAMETER = 2
    """1 on the longest diameter."""


NUM_HINTS = len(HintChannel)
