"""Formats that nibabel reads and few write today: NIfTI pairs, Analyze 7.5 and FreeSurfer's .mgz."""

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from clickvol.errors import UnreadableVolumeError
from clickvol.files.limits import ReadLimits
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.nifti_header import read_geometry
from clickvol.io.volume import Volume
from clickvol.io.volume_choice import choose_volume
from clickvol.io.voxel_values import clean_values

_ANALYZE_NOTE = (
    "Analyze files have no orientation; left is assumed to be on the right of the stored image (radiological)."
)


def read_with_nibabel(
    path: Path, *, volume_index: int | None = None, limits: ReadLimits | None = None
) -> Volume:
    """Read a NIfTI pair, an Analyze pair (either of its two files) or a .mgz file.

    Args:
        path: the file.
        volume_index: which 3D volume of a 4D file to take, from 0.
        limits: what may be read; a pair is then refused, because it names a second file.

    Returns:
        The scan; the array (D, H, W), scaled.

    Raises:
        UnreadableVolumeError: missing, truncated, damaged, another format, 4D without a choice, or without
            content.
        ScanTooLargeError: more than the limits allow.
        BadGeometryError: a spacing or an orientation that cannot be used.
    """
    import nibabel
    from nibabel.imageglobals import LoggingOutputSuppressor

    is_pair = ".mg" not in path.suffix.lower()
    if limits is not None and is_pair:
        raise UnreadableVolumeError(f"{path} does not hold its own voxels; give one file such as .nii.gz")
    # nibabel logs what it repairs in a header, for programmers.
    with warnings.catch_warnings(), LoggingOutputSuppressor():
        warnings.simplefilter("ignore")
        try:
            image: Any = nibabel.load(path)
            kinds = (nibabel.Nifti1Pair, nibabel.Nifti2Pair, nibabel.AnalyzeImage, nibabel.MGHImage)
            shape, dtype = tuple(int(n) for n in image.shape), np.dtype(image.get_data_dtype())
            is_known = isinstance(image, kinds)
        except Exception as error:
            raise _unreadable(path) from error
        if not is_known or dtype.kind not in "iuf" or not 2 <= len(shape) <= 4 or min(shape) < 1:
            raise UnreadableVolumeError(
                f"{path} holds {dtype} voxels of shape {shape}; a 3D scan of one grey channel is expected"
            )
        i, j, k, count = (*shape, 1, 1)[:4]
        index = choose_volume(path, (i, j, k, count), volume_index)
        if limits is not None:
            limits.check_voxels(i * j * k, str(path))
            limits.check_bytes(math.prod(shape) * dtype.itemsize, str(path))
        grid, notes = _grid(image, (i, j, k), path)
        try:
            voxels = np.asanyarray(image.dataobj[..., index] if len(shape) == 4 else image.dataobj)
        except Exception as error:
            raise _unreadable(path) from error
    array = np.ascontiguousarray(voxels.reshape(i, j, k).transpose(2, 1, 0))
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    array, value_notes = clean_values(array, str(path))
    return Volume(array=array, grid=grid, source=str(path), notes=(*notes, *value_notes))


def _grid(image: Any, shape_ijk: tuple[int, int, int], path: Path) -> tuple[VolumeGrid, tuple[str, ...]]:  # noqa: ANN401
    """Return the grid of an image of nibabel, and what a user should know of it."""
    import nibabel

    if isinstance(image.header, nibabel.Nifti1Header):
        affine, facts, notes = read_geometry(image.header, path)
        return VolumeGrid.from_ijk(shape_ijk, affine, facts), tuple(notes)
    grid = VolumeGrid.from_ijk(shape_ijk, np.asarray(image.affine, dtype=np.float64))
    return grid, () if isinstance(image, nibabel.MGHImage) else (_ANALYZE_NOTE,)


def _unreadable(path: Path) -> UnreadableVolumeError:
    return UnreadableVolumeError(
        f"{path} is damaged, cut off or of another format, or the second file of its pair (.hdr and .img) is "
        "not beside it; copy both again"
    )
