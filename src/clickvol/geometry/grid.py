"""A regular grid of voxels in the patient, and the way between voxels and millimetres."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import BadGeometryError
from clickvol.geometry.coordinates import VoxelPoint, WorldPointRAS

# Reversing (i, j, k) into (d, h, w) = (k, j, i), as a homogeneous matrix. Its own inverse.
_REVERSE_AXES = np.array([[0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]], dtype=np.float64)

# A voxel with a smaller relative volume than this has axes that lie in one plane.
_SINGULAR_RELATIVE_VOLUME = 1e-6


@dataclass(frozen=True, eq=False)
class VolumeGrid:
    """Where the voxels of an array lie.

    Attributes:
        shape_dhw: number of voxels along each array axis, each at least 1.
        affine_ras_mm: (4, 4) float64, maps homogeneous (d, h, w, 1) in voxels to (x, y, z, 1) in
            RAS mm. May be oblique, flipped or sheared; never singular.

    Raises:
        BadGeometryError: on construction, when the affine is not finite, has an axis of length
            zero, or is singular.
    """

    shape_dhw: tuple[int, int, int]
    affine_ras_mm: NDArray[np.float64]

    def __post_init__(self) -> None:
        affine = np.array(self.affine_ras_mm, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise BadGeometryError("the affine is not a finite 4x4 matrix; repair the header of the file")
        if min(self.shape_dhw) < 1:
            raise BadGeometryError(f"the volume is empty: its shape (D, H, W) is {self.shape_dhw}")
        lengths_mm = np.linalg.norm(affine[:3, :3], axis=0)
        if (lengths_mm <= 0).any():
            spacing = ", ".join(f"{v:g}" for v in lengths_mm[::-1])
            raise BadGeometryError(
                f"the voxel spacing (i, j, k) is ({spacing}) mm, but every spacing must be above "
                "zero; repair the header of the file"
            )
        if abs(np.linalg.det(affine[:3, :3] / lengths_mm)) < _SINGULAR_RELATIVE_VOLUME:
            raise BadGeometryError(
                "the affine is singular: its axes lie in one plane, so millimetres have no voxel; "
                "repair the header of the file"
            )
        affine.setflags(write=False)
        object.__setattr__(self, "affine_ras_mm", affine)
        object.__setattr__(self, "shape_dhw", tuple(int(n) for n in self.shape_dhw))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, VolumeGrid):
            return NotImplemented
        return self.shape_dhw == other.shape_dhw and bool(
            np.array_equal(self.affine_ras_mm, other.affine_ras_mm)
        )

    __hash__ = None  # type: ignore[assignment]  # holds an array

    @classmethod
    def from_ijk(cls, shape_ijk: tuple[int, int, int], affine_ijk_ras_mm: NDArray[np.floating]) -> "VolumeGrid":
        """Take a file's own convention: shape and affine of (i, j, k), as nibabel has them."""
        matrix = np.asarray(affine_ijk_ras_mm, dtype=np.float64)
        affine = matrix @ _REVERSE_AXES if matrix.shape == (4, 4) else matrix
        return cls(shape_dhw=(shape_ijk[2], shape_ijk[1], shape_ijk[0]), affine_ras_mm=affine)

    @property
    def affine_ijk_ras_mm(self) -> NDArray[np.float64]:
        """(4, 4): maps the file's (i, j, k, 1) to RAS mm, as nibabel has it."""
        return np.asarray(self.affine_ras_mm @ _REVERSE_AXES)

    @property
    def spacing_dhw_mm(self) -> NDArray[np.float64]:
        """(3,): distance of neighbouring voxel centres along d, h, w."""
        return np.asarray(np.linalg.norm(self.affine_ras_mm[:3, :3], axis=0))

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel, also right for sheared grids."""
        return float(abs(np.linalg.det(self.affine_ras_mm[:3, :3])))

    def to_world(self, point: VoxelPoint) -> WorldPointRAS:
        """Return where a voxel position lies in the patient."""
        x, y, z = self.affine_ras_mm[:3, :3] @ point.as_array() + self.affine_ras_mm[:3, 3]
        return WorldPointRAS(float(x), float(y), float(z))

    def to_voxel(self, point: WorldPointRAS) -> VoxelPoint:
        """Return the voxel position (not rounded) of a place in the patient."""
        d, h, w = np.linalg.solve(self.affine_ras_mm[:3, :3], point.as_array() - self.affine_ras_mm[:3, 3])
        return VoxelPoint(float(d), float(h), float(w))

    def contains(self, point: VoxelPoint) -> bool:
        """Tell whether the position lies in the body of some voxel."""
        position = point.as_array()
        shape = np.array(self.shape_dhw)
        # A millimetre position computed from a voxel comes back with rounding of its own.
        slack = 0.5 + 1e-4
        return bool(((position >= -slack) & (position <= shape - 1 + slack)).all())

    def extent_ras_mm(self) -> tuple[WorldPointRAS, WorldPointRAS]:
        """Return the smallest and the largest RAS mm of any voxel centre, axis by axis."""
        last = np.array(self.shape_dhw) - 1
        unit = np.stack(np.meshgrid(*[[0, 1]] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
        corners = (unit * last) @ self.affine_ras_mm[:3, :3].T + self.affine_ras_mm[:3, 3]
        low, high = corners.min(axis=0), corners.max(axis=0)
        return WorldPointRAS(*map(float, low)), WorldPointRAS(*map(float, high))
