"""Formats that nibabel reads: Analyze 7.5, and FreeSurfer's .mgz, which is written, too."""

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import OutputError, UnreadableVolumeError
from clickvol.files.limits import ReadLimits
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.compression import packed_stream
from clickvol.io.volume import Volume
from clickvol.io.volume_choice import choose_volume
from clickvol.io.voxel_values import clean_values

# As for NIfTI.
_MAX_MOVED_MM = 1e-2

_ANALYZE_NOTE = (
    "Analyze files have no orientation; left is assumed to be on the right of the stored image (radiological)."
)


def read_with_nibabel(
    path: Path, *, volume_index: int | None = None, limits: ReadLimits | None = None
) -> Volume:
    """Read an Analyze pair (either of its two files) or a .mgz file; the array (D, H, W) is scaled.

    UnreadableVolumeError, ScanTooLargeError and BadGeometryError as `read_nifti`.
    """
    import nibabel
    from nibabel.imageglobals import LoggingOutputSuppressor

    # nibabel logs what it repairs in a header, for programmers.
    with warnings.catch_warnings(), LoggingOutputSuppressor():
        warnings.simplefilter("ignore")
        try:
            image: Any = nibabel.load(path)
            shape, dtype = tuple(int(n) for n in image.shape), np.dtype(image.get_data_dtype())
            is_known = isinstance(image, nibabel.AnalyzeImage | nibabel.MGHImage)
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
        grid, notes = _grid(image, (i, j, k))
        try:
            voxels = np.asanyarray(image.dataobj[..., index] if len(shape) == 4 else image.dataobj)
        except Exception as error:
            raise _unreadable(path) from error
    array = np.ascontiguousarray(voxels.reshape(i, j, k).transpose(2, 1, 0))
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    array, value_notes = clean_values(array, str(path))
    return Volume(array=array, grid=grid, source=str(path), notes=(*notes, *value_notes))


def write_mgz(
    array: NDArray[np.generic], grid: VolumeGrid, path: Path, *, compression_level: int | None = None
) -> None:
    """Write an array (D, H, W) as .mgz; the grid may be sheared, uint16 becomes int32.

    OutputError for float64, which the format does not have, or a grid that single precision would move.
    """
    import nibabel

    if array.dtype == np.float64:
        raise OutputError(f"cannot write float64 voxels to {path.name}; convert them to float32")
    voxels = array.astype(np.int32) if array.dtype == np.uint16 else array
    image = nibabel.MGHImage(voxels.T, grid.affine_ijk_ras_mm)
    check_mgz_grid(grid, path)
    with path.open("wb") as file, packed_stream(file, ".mgz", compression_level) as stream:
        stream.write(image.to_bytes())


def check_mgz_grid(grid: VolumeGrid, path: Path) -> None:
    """Refuse a grid that single precision would move by more than 0.01 mm (OutputError)."""
    import nibabel

    shape_ijk = grid.shape_dhw[::-1]
    image = nibabel.MGHImage(np.broadcast_to(np.uint8(0), shape_ijk), grid.affine_ijk_ras_mm)
    written = VolumeGrid.from_ijk(shape_ijk, np.asarray(image.header.get_affine(), dtype=np.float64))
    if written.corner_distance_mm(grid) > _MAX_MOVED_MM:
        raise OutputError(f"{path.name} cannot hold the place of the scan exactly; write .nii.gz instead")


def _grid(image: Any, shape_ijk: tuple[int, int, int]) -> tuple[VolumeGrid, tuple[str, ...]]:  # noqa: ANN401
    """Return the grid of an image of nibabel, and what a user should know of it."""
    import nibabel

    grid = VolumeGrid.from_ijk(shape_ijk, np.asarray(image.affine, dtype=np.float64))
    return grid, () if isinstance(image, nibabel.MGHImage) else (_ANALYZE_NOTE,)


def _unreadable(path: Path) -> UnreadableVolumeError:
    return UnreadableVolumeError(
        f"{path} is damaged, cut off or of another format, or the second file of its pair (.hdr and .img) is "
        "not beside it; copy both again"
    )
