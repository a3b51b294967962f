"""A scan and a mask: an array, its grid, and what is known of them."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clickvol.geometry.grid import VolumeGrid

Modality = Literal["CT", "MR", "PT", "other", "unknown"]

SaidModality = Literal["CT", "MR", "PT", "other"]
"""What a user can say that a scan is; "other" is seen on a scale of its own values."""


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """A scan as read from a file; the array is not to be changed.

    Attributes:
        array: (D, H, W), any real dtype, C order, finite. CT in Hounsfield units.
        grid: where its voxels lie.
        modality: as the file says; "unknown" where it does not (most NIfTI files).
        source: the file or folder it was read from, for messages and for refusing to overwrite it.
        notes: what was repaired while reading, one sentence each ("12 NaN voxels were ...").
    """

    array: NDArray[np.generic]
    grid: VolumeGrid
    modality: Modality = "unknown"
    source: str = ""
    notes: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """A segmentation on the grid of its scan.

    Attributes:
        array: (D, H, W) uint8, 0 background and 1 object.
        grid: the grid of the scan.
    """

    array: NDArray[np.uint8]
    grid: VolumeGrid

    @property
    def num_voxels(self) -> int:
        """Number of object voxels."""
        return int(np.count_nonzero(self.array))

    @property
    def volume_ml(self) -> float:
        """Volume of the object in millilitres."""
        return self.num_voxels * self.grid.voxel_volume_mm3 / 1000.0
