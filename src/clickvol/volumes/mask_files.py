"""Reading a mask, which may be empty; a scan in which every voxel is the same is refused by its reader."""

from pathlib import Path

import numpy as np

from clickvol.volumes.nifti import read_stored
from clickvol.volumes.volume import Mask


def read_mask(path: Path) -> Mask:
    """Read a mask from a .nii or .nii.gz file, to its end.

    Args:
        path: a 3D file; the object is where it is not 0.

    Returns:
        The mask, uint8, 0 and 1.

    Raises:
        UnreadableVolumeError: when it is missing, truncated, damaged, no NIfTI file, or not 3D.
        BadGeometryError: when its grid maps no voxel to a place.
    """
    stored = read_stored(path)
    return Mask((stored.array != 0).astype(np.uint8), stored.grid, stored.nifti)
