"""Points, one class per space, so that a point of one space cannot be taken for one of another.

An integer voxel index is the centre of its voxel. Array axes are called d, h, w (slowest first).
World axes are x, y, z in RAS millimetres: x grows to the patient's right, y to anterior, z to
superior.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, slots=True)
class _Triple:
    @classmethod
    def of(cls, components: ArrayLike) -> Self:
        """Take three numbers, (3,) of any real dtype, in the order of the fields."""
        first, second, third = np.asarray(components, dtype=np.float64).tolist()
        return cls(first, second, third)  # type: ignore[call-arg]  # the fields are those of the subclass

    def is_finite(self) -> bool:
        """Tell whether no component is NaN or infinite."""
        return bool(np.isfinite(self.as_array()).all())

    def as_array(self) -> NDArray[np.float64]:
        """Return the three components, (3,) float64, in the order of the fields."""
        names: tuple[str, ...] = self.__slots__
        return np.array([getattr(self, name) for name in names], dtype=np.float64)


@dataclass(frozen=True, slots=True)
class VoxelPoint(_Triple):
    """A position in a volume's array, in voxels (d, h, w); may lie between voxel centres."""

    d: float
    h: float
    w: float

    @classmethod
    def from_ijk(cls, i: float, j: float, k: float) -> "VoxelPoint":
        """Take the index of the file as stored: (i, j, k), fastest axis first."""
        return cls(d=k, h=j, w=i)

    def to_ijk(self) -> tuple[float, float, float]:
        """Return the index of the file as stored: (i, j, k), fastest axis first."""
        return (self.w, self.h, self.d)


@dataclass(frozen=True, slots=True)
class PatchPoint(_Triple):
    """A position in a model's input patch, in patch voxels (d, h, w)."""

    d: float
    h: float
    w: float


@dataclass(frozen=True, slots=True)
class WorldPointRAS(_Triple):
    """A position in the patient, RAS millimetres."""

    x: float
    y: float
    z: float

    @classmethod
    def from_lps(cls, x: float, y: float, z: float) -> "WorldPointRAS":
        """Take DICOM and ITK millimetres (LPS): x and y change sign."""
        return cls(x=-x, y=-y, z=z)

    def to_lps(self) -> tuple[float, float, float]:
        """Return DICOM and ITK millimetres (LPS)."""
        return (-self.x, -self.y, self.z)
