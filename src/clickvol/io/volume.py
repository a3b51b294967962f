"""A scan and a mask: an array, its grid, and what must be kept to write the same grid again."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clickvol.geometry.grid import VolumeGrid

Modality = Literal["CT", "MR", "PT", "unknown"]


@dataclass(frozen=True, slots=True, eq=False)
class NiftiGeometry:
    """The redundant geometry of a NIfTI header, kept so that a mask repeats it to the bit.

    Attributes:
        sform_ijk_ras_mm, qform_ijk_ras_mm: (4, 4), or None where the header has none.
        sform_code, qform_code: NIfTI xform codes, 0 to 5.
        zooms_ijk_mm: pixdim 1 to 3 as stored.
        xyzt_units: the header's unit byte.
        quaternion_bcd: the quaternion of the qform as stored; near half a turn it does not come
            back from the matrix to the bit.
    """

    sform_ijk_ras_mm: NDArray[np.float64] | None
    qform_ijk_ras_mm: NDArray[np.float64] | None
    sform_code: int
    qform_code: int
    zooms_ijk_mm: tuple[float, float, float]
    xyzt_units: int
    quaternion_bcd: tuple[float, float, float] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """A scan as read from a file; the array is not to be changed.

    Attributes:
        array: (D, H, W), any real dtype, C order, finite. CT in Hounsfield units.
        grid: where its voxels lie.
        modality: as the file says; "unknown" where it does not (most NIfTI files).
        source: the file or folder it was read from, for messages and for refusing to overwrite it.
        nifti: the header geometry, for scans read from NIfTI.
        notes: what was repaired while reading, one sentence each ("12 NaN voxels were ...").
    """

    array: NDArray[np.generic]
    grid: VolumeGrid
    modality: Modality = "unknown"
    source: str = ""
    nifti: NiftiGeometry | None = None
    notes: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """A segmentation on the grid of its scan.

    Attributes:
        array: (D, H, W) uint8, 0 background and 1 object.
        grid: the grid of the scan.
        nifti: the header geometry of the scan, where it came from NIfTI.
    """

    array: NDArray[np.uint8]
    grid: VolumeGrid
    nifti: NiftiGeometry | None = None

    @property
    def num_voxels(self) -> int:
        """Number of object voxels."""
        return int(np.count_nonzero(self.array))

    @property
    def volume_ml(self) -> float:
        """Volume of the object in millilitres."""
        return self.num_voxels * self.grid.voxel_volume_mm3 / 1000.0
