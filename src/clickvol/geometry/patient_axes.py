"""The array axes of a grid in the order of the patient's: what is left and what is right."""

from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from clickvol.geometry.grid import VolumeGrid

_ORDERS = np.array([*permutations(range(3))])


@dataclass(frozen=True, slots=True, eq=False)
class PatientAxes:
    """The array axis (0, 1 or 2 for d, h, w) that is nearest to each of the patient's x, y and z (RAS).

    `flipped` where it runs against them; spacing (3,) and shape (3,) are along those axes.
    """

    array_axis: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]
    spacing_mm: NDArray[np.float64]
    shape: NDArray[np.int64]

    @classmethod
    def of(cls, grid: VolumeGrid) -> "PatientAxes":
        """Choose the axes of a grid of any orientation."""
        cosines = grid.world_steps(np.eye(3)).T / grid.spacing_dhw_mm
        best = _ORDERS[np.abs(cosines)[range(3), _ORDERS].sum(axis=1).argmax()]
        x, y, z = best.tolist()
        flip_x, flip_y, flip_z = (cosines[range(3), best] < 0).tolist()
        return cls(
            array_axis=(x, y, z),
            flipped=(flip_x, flip_y, flip_z),
            spacing_mm=grid.spacing_dhw_mm[best],
            shape=np.array(grid.shape_dhw)[best],
        )

    def view(self, array: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return a (D, H, W) array as (x, y, z), each index growing as in RAS; no copy."""
        steps = tuple(slice(None, None, -1 if flip else None) for flip in self.flipped)
        return array.transpose(self.array_axis)[steps]

    def index(self, position_dhw: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return a voxel position (d, h, w) as an index into the view."""
        index = position_dhw[list(self.array_axis)]
        return np.where(self.flipped, self.shape - 1 - index, index)
