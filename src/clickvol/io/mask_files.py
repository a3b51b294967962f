"""Masks and labels from files.

A mask may be empty; a scan or a label in which every voxel is the same is refused by its reader.
"""

from pathlib import Path

import numpy as np

from clickvol.errors import UnreadableVolumeError
from clickvol.files.limits import ReadLimits
from clickvol.io.dicom.masks import is_dicom_mask, read_label_map, read_mask_file
from clickvol.io.formats import read_volume
from clickvol.io.labelled_mask import LabelledMask
from clickvol.io.nifti.files import read_stored
from clickvol.io.volume import Mask, Volume

MAX_LABELS = 255
"""Objects of a label image; with more different values it is taken for a probability."""


def read_mask(path: Path) -> Mask:
    """Read a mask, 0 and 1, from a 3D NIfTI file to its end: the object is where it is not 0.

    UnreadableVolumeError when it is missing, damaged, no NIfTI file or not 3D; BadGeometryError for its grid.
    """
    stored = read_stored(path)
    return Mask((stored.array != 0).astype(np.uint8), stored.grid)


def read_objects(path: Path, scan: Volume, limits: ReadLimits | None = None) -> list[LabelledMask]:
    """Read the objects of a file, at least one, each with a voxel, to go on with them.

    Args:
        path: a DICOM Segmentation or RT Structure Set, or a label image on the grid of the scan: of whole
            numbers each is an object, of others all that is above 0 is one.
        scan: that they were drawn on.
        limits: what may be read, for files of strangers.

    Raises:
        UnreadableVolumeError: when it cannot be read, does not lie on the grid of the scan, or is empty.
        BadGeometryError, ScanTooLargeError: as `read_volume`.
    """
    if is_dicom_mask(path):
        objects = [each for each in read_mask_file(path, scan.grid) if each.mask.num_voxels]
    else:
        label = read_volume(path, limits=limits)
        label.grid.check_same_place(scan.grid, "the mask", UnreadableVolumeError)
        array = label.array.astype(np.float64)
        values = np.unique(array[array > 0])
        is_label_map = len(values) <= MAX_LABELS and np.array_equal(values, np.round(values))
        masks = [array == value for value in values] if is_label_map else [array > 0]
        objects = [
            LabelledMask(name=f"Label {value:g}", mask=Mask(mask.astype(np.uint8), scan.grid), made_by="person")
            for value, mask in zip(values.tolist(), masks, strict=False)
        ]
    if not objects:
        raise UnreadableVolumeError("the mask is empty: no voxel belongs to an object; give another file")
    return objects


def read_label(path: Path, scan: Volume) -> Volume:
    """Read the label of a scan: values for its voxels, in any format; errors as `read_volume`.

    A DICOM Segmentation or RT Structure Set is laid on the grid of the scan, with the number of each segment as
    its value; where segments overlap, the smaller one is seen (the tumour in its organ). Of any other file the
    label is on the grid that the file has; one with a single value is refused.
    """
    if is_dicom_mask(path):
        return Volume(read_label_map(path, scan.grid), scan.grid, source=str(path))
    return read_volume(path)
