"""A regular grid of voxels in the patient, and the way between voxels and millimetres."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import BadGeometryError, ClickvolError
from clickvol.geometry.box import VoxelBox
from clickvol.geometry.coordinates import VoxelPoint, WorldPointRAS

# Reversing (i, j, k) into (d, h, w) = (k, j, i), as a homogeneous matrix. Its own inverse.
_REVERSE_AXES = np.array([[0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]], dtype=np.float64)

# RAS to LPS and back: x and y change sign.
_SWAP_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])

_Numbers = NDArray[np.floating] | NDArray[np.integer]

SAME_PLACE_MM = 0.01
"""Two grids of one shape are one place where no corner of the one lies farther from that of the other. Chosen:
far below a voxel, far above the rounding of float32 headers."""

MAX_COORDINATE_MM = 1e6
"""No voxel lies farther from the origin, along any axis. Chosen: a kilometre, longer than any table."""

# A voxel with a smaller relative volume than this has axes that lie in one plane.
_SINGULAR_RELATIVE_VOLUME = 1e-6


@dataclass(frozen=True, eq=False)
class VolumeGrid:
    """Where the voxels of an array lie.

    Attributes:
        shape_dhw: number of voxels along each array axis, each at least 1.
        affine_ras_mm: (4, 4) float64, maps homogeneous (d, h, w, 1) in voxels to (x, y, z, 1) in
            RAS mm. May be oblique, flipped or sheared; never singular.
        file_facts: what the reader of a file keeps of its header, for the writer of the same format; it means
            nothing here and is no part of equality. A grid made from another one has none.

    Raises:
        BadGeometryError: on construction, when the affine is not finite, has an axis of length
            zero, is singular, or lays a voxel a kilometre away.
    """

    shape_dhw: tuple[int, int, int]
    affine_ras_mm: NDArray[np.float64]
    file_facts: object | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        affine = np.array(self.affine_ras_mm, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all() or not np.allclose(affine[3], [0, 0, 0, 1]):
            raise BadGeometryError(
                "the affine is not a finite 4x4 matrix that ends with 0, 0, 0, 1; repair the header of the file"
            )
        if min(self.shape_dhw) < 1:
            raise BadGeometryError(f"the volume is empty: its shape (D, H, W) is {self.shape_dhw}")
        with np.errstate(over="ignore"):  # what overflows is refused below
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
        reach_mm = np.abs(affine[:3, 3]) + np.abs(affine[:3, :3]) @ self.shape_dhw
        if reach_mm.max() > MAX_COORDINATE_MM:
            raise BadGeometryError(
                f"a voxel lies {reach_mm.max():.3g} mm from the origin, but at most {MAX_COORDINATE_MM:g} mm "
                "are expected; repair the header of the file"
            )
        affine.setflags(write=False)
        object.__setattr__(self, "affine_ras_mm", affine)
        object.__setattr__(self, "shape_dhw", tuple(int(n) for n in self.shape_dhw))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, VolumeGrid):
            return NotImplemented
        return self.shape_dhw == other.shape_dhw and np.array_equal(self.affine_ras_mm, other.affine_ras_mm)

    __hash__ = None  # type: ignore[assignment]  # holds an array

    @classmethod
    def from_ijk(
        cls,
        shape_ijk: tuple[int, int, int],
        affine_ijk_ras_mm: NDArray[np.floating],
        file_facts: object | None = None,
    ) -> "VolumeGrid":
        """Take a file's own convention: shape and affine of (i, j, k), as nibabel has them."""
        matrix = np.asarray(affine_ijk_ras_mm)
        affine = matrix @ _REVERSE_AXES if matrix.shape == (4, 4) else matrix
        return cls((shape_ijk[2], shape_ijk[1], shape_ijk[0]), affine, file_facts)

    @classmethod
    def from_ijk_lps(
        cls,
        shape_ijk: tuple[int, int, int],
        affine_ijk_lps_mm: NDArray[np.floating],
        file_facts: object | None = None,
    ) -> "VolumeGrid":
        """Take the convention of ITK and DICOM: shape and (4, 4) affine of (i, j, k), in LPS mm."""
        return cls.from_ijk(shape_ijk, _SWAP_LPS @ affine_ijk_lps_mm, file_facts)

    @classmethod
    def axial(cls, shape_dhw: tuple[int, int, int], spacing_dhw_mm: tuple[float, float, float]) -> "VolumeGrid":
        """Return a grid as most axial scans have it: to superior, posterior and left, from (0, 0, 0) mm."""
        d, h, w = spacing_dhw_mm
        return cls(shape_dhw, np.array([[0, 0, -w, 0], [0, -h, 0, 0], [d, 0, 0, 0], [0, 0, 0, 1.0]]))

    @classmethod
    def along_patient(
        cls, shape_dhw: tuple[int, int, int], voxel_mm: float, middle: WorldPointRAS
    ) -> "VolumeGrid":
        """Return a grid of cubic voxels: d grows to superior, h to anterior, w to the right."""
        affine = np.zeros((4, 4))
        affine[[2, 1, 0, 3], [0, 1, 2, 3]] = [voxel_mm, voxel_mm, voxel_mm, 1.0]
        return cls(shape_dhw, affine).centred_at(middle)

    def permuted(self, order: tuple[int, int, int]) -> "VolumeGrid":
        """Return the grid of `array.transpose(order)`."""
        d, h, w = (self.shape_dhw[axis] for axis in order)
        return VolumeGrid((d, h, w), self.affine_ras_mm[:, [*order, 3]])

    def without_file_facts(self) -> "VolumeGrid":
        """Return the grid as files of any kind hold it, with nothing of the header that it was read from."""
        return VolumeGrid(self.shape_dhw, self.affine_ras_mm)

    @property
    def affine_ijk_ras_mm(self) -> NDArray[np.float64]:
        """(4, 4): maps the file's (i, j, k, 1) to RAS mm, as nibabel has it."""
        return np.asarray(self.affine_ras_mm @ _REVERSE_AXES)

    @property
    def affine_ijk_lps_mm(self) -> NDArray[np.float64]:
        """(4, 4): maps the file's (i, j, k, 1) to LPS mm, as ITK and DICOM have it."""
        return np.asarray(_SWAP_LPS @ self.affine_ijk_ras_mm)

    @property
    def box(self) -> VoxelBox:
        """All its voxels."""
        return VoxelBox.whole(self.shape_dhw)

    @property
    def spacing_dhw_mm(self) -> NDArray[np.float64]:
        """(3,): distance of neighbouring voxel centres along d, h, w."""
        return np.asarray(np.linalg.norm(self.affine_ras_mm[:3, :3], axis=0))

    @property
    def is_right_handed(self) -> bool:
        """Whether the axes d, h and w turn, in this order, as the patient's x, y and z do."""
        return bool(np.linalg.det(self.affine_ras_mm[:3, :3]) > 0)

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel, also right for sheared grids."""
        return float(abs(np.linalg.det(self.affine_ras_mm[:3, :3])))

    @property
    def extent_mm(self) -> NDArray[np.float64]:
        """(3,): length along x, y and z (RAS) of all its voxels, up to their outer faces."""
        return np.asarray(np.abs(self.affine_ras_mm[:3, :3]) @ np.array(self.shape_dhw))

    def to_world(self, point: VoxelPoint) -> WorldPointRAS:
        """Return where a voxel position lies in the patient."""
        return WorldPointRAS.of(self.affine_ras_mm[:3, :3] @ point.as_array() + self.affine_ras_mm[:3, 3])

    def to_voxel(self, point: WorldPointRAS) -> VoxelPoint:
        """Return the voxel position (not rounded) of a place in the patient."""
        offset = point.as_array() - self.affine_ras_mm[:3, 3]
        return VoxelPoint.of(np.linalg.solve(self.affine_ras_mm[:3, :3], offset))

    def world_positions(self, positions_dhw: _Numbers) -> NDArray[np.float64]:
        """Return where voxel positions lie: (N, 3) in voxels -> (N, 3) RAS mm."""
        return self.world_steps(positions_dhw) + self.affine_ras_mm[:3, 3]

    def voxel_positions(self, positions_ras_mm: _Numbers) -> NDArray[np.float64]:
        """Return the voxel positions of places in the patient: (N, 3) RAS mm -> (N, 3) in voxels."""
        return self.voxel_steps(np.asarray(positions_ras_mm - self.affine_ras_mm[:3, 3]))

    def world_steps(self, steps_dhw: _Numbers) -> NDArray[np.float64]:
        """Return steps, wherever they begin: (N, 3) in voxels -> (N, 3) along x, y, z, mm."""
        return np.asarray(steps_dhw @ self.affine_ras_mm[:3, :3].T)

    def voxel_steps(self, steps_ras_mm: _Numbers) -> NDArray[np.float64]:
        """Return steps, wherever they begin: (N, 3) along x, y, z, mm -> (N, 3) in voxels."""
        return np.asarray(steps_ras_mm @ np.linalg.inv(self.affine_ras_mm[:3, :3]).T)

    def gradients_per_voxel(self, gradients_per_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return changes per voxel along d, h, w, (N, 3), of quantities known per mm along x, y, z."""
        return np.asarray(gradients_per_mm @ self.affine_ras_mm[:3, :3])

    def offsets_ras_mm(
        self, box: VoxelBox, origin: WorldPointRAS
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return how far the voxel centres of a box lie from a place: mm along x, y and z, each (box shape)."""
        at, zero = self.affine_ras_mm, origin.as_array()
        d, h, w = map(np.arange, box.start_dhw, box.stop_dhw)
        x, y, z = (
            (at[a, 0] * d + at[a, 3] - zero[a])[:, None, None] + (at[a, 1] * h)[:, None] + at[a, 2] * w
            for a in range(3)
        )
        return x, y, z

    def voxel_matrix_to(self, other: "VolumeGrid") -> NDArray[np.float64]:
        """Return the (4, 4) matrix from (d, h, w, 1) in voxels of this grid to those of another."""
        return np.asarray(np.linalg.inv(other.affine_ras_mm) @ self.affine_ras_mm)

    def contains(self, point: VoxelPoint) -> bool:
        """Tell whether the position lies in the body of some voxel."""
        position = point.as_array()
        shape = np.array(self.shape_dhw)
        # A millimetre position computed from a voxel comes back with rounding of its own.
        slack = 0.5 + 1e-4
        return bool(((position >= -slack) & (position <= shape - 1 + slack)).all())

    def ball_box(self, centre: WorldPointRAS, radius_mm: float) -> VoxelBox:
        """Return the box of the voxels whose centre can be within a radius of a place, clipped to the grid."""
        voxel = self.to_voxel(centre).as_array()
        # How far the ball reaches along each array axis, also on a sheared grid.
        reach = radius_mm * np.linalg.norm(np.linalg.inv(self.affine_ras_mm[:3, :3]), axis=1)
        return VoxelBox.of(np.ceil(voxel - reach), np.floor(voxel + reach) + 1).clip(self.shape_dhw)

    def extent_ras_mm(self) -> tuple[WorldPointRAS, WorldPointRAS]:
        """Return the smallest and the largest RAS mm of any voxel centre, axis by axis."""
        return self.bounds_of(self.box, reach_voxels=0.0)

    def bounds_of(self, box: VoxelBox, *, reach_voxels: float = 0.5) -> tuple[WorldPointRAS, WorldPointRAS]:
        """Return the smallest and the largest RAS mm of a box of voxels, which may overhang, axis by axis.

        `reach_voxels` is how far outside the centres of its outermost voxels; 0.5 is up to their faces.
        """
        corners = self.world_positions(box.corners_dhw(reach_voxels))
        return WorldPointRAS.of(corners.min(axis=0)), WorldPointRAS.of(corners.max(axis=0))

    def bounds_in(
        self, other: "VolumeGrid", box: VoxelBox, *, reach_voxels: float = 0.5
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the same as (d, h, w), each (3,), of a box of this grid, in voxels of another grid."""
        to_other = self.voxel_matrix_to(other)
        corners = box.corners_dhw(reach_voxels) @ to_other[:3, :3].T + to_other[:3, 3]
        return corners.min(axis=0), corners.max(axis=0)

    def crop(self, box: VoxelBox) -> "VolumeGrid":
        """Return the grid of a box of its voxels; the box may overhang.

        Raises:
            BadGeometryError: when the box is empty.
        """
        affine = np.array(self.affine_ras_mm)
        affine[:3, 3] += affine[:3, :3] @ np.array(box.start_dhw)
        return VolumeGrid(box.shape_dhw, affine)

    def centred_at(self, place: WorldPointRAS) -> "VolumeGrid":
        """Return the grid moved so that its middle lies at a place."""
        affine = np.array(self.affine_ras_mm)
        affine[:3, 3] = place.as_array() - affine[:3, :3] @ self.box.middle.as_array()
        return VolumeGrid(self.shape_dhw, affine)

    def with_steps(
        self, change: NDArray[np.float64], shape_dhw: tuple[int, int, int] | None = None
    ) -> "VolumeGrid":
        """Return a grid around the same middle with other steps from voxel to voxel.

        Each column of `change` (3, 3) is a new step along d, h, w in voxels of this grid; it is not singular.
        """
        affine = np.array(self.affine_ras_mm)
        affine[:3, :3] = affine[:3, :3] @ change
        return VolumeGrid(shape_dhw or self.shape_dhw, affine).centred_at(self.to_world(self.box.middle))

    def straightened(self) -> "VolumeGrid":
        """Return the grid with d along the normal of its slices; slice 0 and their distance stay."""
        affine = np.array(self.affine_ras_mm)
        normal = np.cross(affine[:3, 1], affine[:3, 2])
        normal /= np.linalg.norm(normal)
        affine[:3, 0] = normal * float(affine[:3, 0] @ normal)
        return VolumeGrid(self.shape_dhw, affine)

    def corner_distance_mm(self, other: "VolumeGrid") -> float:
        """Return how far a corner of another grid lies from that of this one, at most; inf for other shapes."""
        if self.shape_dhw != other.shape_dhw:
            return np.inf
        corners = self.box.corners_dhw(0.5)
        offsets_mm = other.world_positions(corners) - self.world_positions(corners)
        return float(np.linalg.norm(offsets_mm, axis=1).max())

    def same_place(self, other: "VolumeGrid") -> bool:
        """Tell whether both have one shape and no corner is farther apart than `SAME_PLACE_MM`."""
        return self.corner_distance_mm(other) <= SAME_PLACE_MM

    def check_same_place(
        self,
        scan: "VolumeGrid",
        what: str,
        error: type[ClickvolError],
        advice: str = "resample it to that grid",
    ) -> None:
        """Raise an error that says what lies on another grid than its scan, and how far away."""
        if not self.same_place(scan):
            raise error(f"{what} does not lie on the grid of the scan: {self.difference_from(scan)}; {advice}")

    def difference_from(self, other: "VolumeGrid") -> str:
        """Say in a few words, for a message, what keeps this grid from being the same place as another."""
        if self.shape_dhw != other.shape_dhw:
            return f"its shape (D, H, W) is {self.shape_dhw}, not {other.shape_dhw}"
        return f"its corners lie up to {self.corner_distance_mm(other):.2g} mm away"
