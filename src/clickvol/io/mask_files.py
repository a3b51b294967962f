"""Masks and labels from files.

A mask may be empty; a scan or a label in which every voxel is the same is refused by its reader.
"""

from pathlib import Path

import numpy as np

from clickvol.io.dicom.masks import is_dicom_mask, read_label_map
from clickvol.io.formats import read_volume
from clickvol.io.nifti import read_stored
from clickvol.io.volume import Mask, Volume


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
    return Mask((stored.array != 0).astype(np.uint8), stored.grid)


def read_label(path: Path, scan: Volume) -> Volume:
    """Read the label of a scan: values for its voxels, in any format.

    Args:
        path: a file or folder that `read_volume` takes, or a DICOM Segmentation or RT Structure Set. Those are
            laid on the grid of the scan, with the number of each segment as its value; where segments
            overlap, the smaller one is seen (the tumour in its organ).
        scan: that the label belongs to.

    Returns:
        The label; of a file that is not DICOM on the grid that the file has.

    Raises:
        UnreadableVolumeError: when it cannot be read, holds a single value, or a DICOM file does not lie on the
            grid of the scan.
        BadGeometryError, DicomSeriesError: as `read_volume`.
    """
    if is_dicom_mask(path):
        return Volume(read_label_map(path, scan.grid), scan.grid, source=str(path))
    return read_volume(path)
