"""A click: a place, and whether it lies in the object or outside it."""

from dataclasses import dataclass
from typing import Literal

from clickvol.errors import ClickError
from clickvol.geometry.coordinates import VoxelPoint, WorldPointRAS
from clickvol.geometry.grid import VolumeGrid

Space = Literal["ijk", "ras", "lps"]


@dataclass(frozen=True, slots=True)
class Click:
    """One click of the user, in voxels or in the patient; in the foreground it is inside the object."""

    position: VoxelPoint | WorldPointRAS
    foreground: bool = True

    @classmethod
    def at(
        cls,
        coordinates: tuple[float, float, float],
        *,
        space: Space = "ijk",
        foreground: bool = True,
    ) -> "Click":
        """Make a click from three numbers.

        "ijk" are voxel indices of the file as stored (fastest axis first), "ras" millimetres as NIfTI and 3D
        Slicer show them, "lps" as DICOM and ITK have them.
        """
        if space == "ijk":
            return cls(VoxelPoint.from_ijk(*coordinates), foreground)
        if space == "ras":
            return cls(WorldPointRAS(*coordinates), foreground)
        return cls(WorldPointRAS.from_lps(*coordinates), foreground)

    def world(self, grid: VolumeGrid) -> WorldPointRAS:
        """Return where the click lies in the patient; ClickError when it is not finite or outside the scan."""
        if not self.position.is_finite():
            numbers = ", ".join(f"{v:g}" for v in self.position.as_array())
            raise ClickError(f"click ({numbers}) is not finite; give three finite numbers")
        if isinstance(self.position, VoxelPoint):
            if not grid.contains(self.position):
                i, j, k = self.position.to_ijk()
                raise ClickError(f"click ({i:g}, {j:g}, {k:g}) lies outside the scan; {valid_indices(grid)}")
            return grid.to_world(self.position)
        if not grid.contains(grid.to_voxel(self.position)):
            raise ClickError(_outside_world(self.position, grid))
        return self.position


def valid_indices(grid: VolumeGrid) -> str:
    """Say which voxel indices a scan has, for a message."""
    n_k, n_j, n_i = grid.shape_dhw
    return (
        f"the valid voxel indices are i 0..{n_i - 1}, j 0..{n_j - 1}, k 0..{n_k - 1} (or give millimetres, in "
        "the space ras or lps)"
    )


def _outside_world(point: WorldPointRAS, grid: VolumeGrid) -> str:
    low, high = grid.extent_ras_mm()
    return (
        f"click at RAS ({point.x:g}, {point.y:g}, {point.z:g}) mm lies outside the scan, which "
        f"covers x {low.x:.1f}..{high.x:.1f}, y {low.y:.1f}..{high.y:.1f}, "
        f"z {low.z:.1f}..{high.z:.1f} mm RAS (in LPS x and y change sign)"
    )
