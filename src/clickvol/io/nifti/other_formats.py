"""What nibabel reads: Analyze 7.5, FreeSurfer's .mgz, which is written, too, and any image in memory."""

import math
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import OutputError, UnreadableVolumeError
from clickvol.files.limits import ReadLimits
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.compression import packed_stream
from clickvol.io.nifti.headers import read_geometry, repair_fields
from clickvol.io.volume import Volume, choose_volume
from clickvol.io.voxel_values import clean_values, grey_voxels, scale_values

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
            is_known = isinstance(image, nibabel.AnalyzeImage | nibabel.MGHImage)
        except Exception as error:
            raise _unreadable(path) from error
        if not is_known:
            raise _unreadable(path)
        stored = volume_of_image(image, path, volume_index=volume_index, limits=limits)
    array, value_notes = clean_values(stored.array, str(path))
    return replace(stored, array=array, source=str(path), notes=(*stored.notes, *value_notes))


def volume_of_image(
    image: Any,  # noqa: ANN401
    source: Path | str,
    *,
    volume_index: int | None = None,
    limits: ReadLimits | None = None,
) -> Volume:
    """Return a `SpatialImage` of nibabel with its values as they are, in memory of its own.

    Args:
        image: NIfTI, MGH, Analyze or another; its affine counts, where it differs from its header.
        source: the file, or what else messages call it.
        volume_index: which 3D volume of a 4D image to take, from 0.
        limits: what may be read; None for any size.

    Raises:
        UnreadableVolumeError: voxels that are not there or no real numbers, 4D without a choice.
        ScanTooLargeError: more than the limits allow.
        BadGeometryError: a spacing or an orientation that cannot be used.
    """
    shape, dtype = tuple(int(n) for n in image.shape), np.dtype(image.dataobj.dtype)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if dtype.kind not in "iufb" or not 2 <= len(shape) <= 4 or min(shape) < 1:
        raise UnreadableVolumeError(
            f"{source} holds {dtype} voxels of shape {shape}; a 3D scan of one grey channel is expected"
        )
    i, j, k, count = (*shape, 1, 1)[:4]
    index = choose_volume(source, (i, j, k, count), volume_index)
    if limits is not None:
        limits.check_voxels(i * j * k, str(source))
        limits.check_bytes(math.prod(shape) * dtype.itemsize, str(source))
    grid, notes = _grid(image, (i, j, k), source)
    try:
        voxels = _values(image.dataobj)
    except UnreadableVolumeError:
        raise
    except Exception as error:
        raise _unreadable(source) from error
    one = voxels.reshape(i, j, k, count)[..., index].transpose(2, 1, 0)
    return Volume(np.array(grey_voxels(one, str(source)), order="C"), grid, notes=notes)


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


def _values(dataobj: Any) -> NDArray[np.generic]:  # noqa: ANN401
    """Return the voxels of an image of nibabel, scaled as the reader of NIfTI does it where it can."""
    from nibabel.arrayproxy import ArrayProxy

    if not isinstance(dataobj, ArrayProxy) or np.ndim(dataobj.slope) or np.ndim(dataobj.inter):
        return np.asanyarray(dataobj)
    stored = np.array(dataobj.get_unscaled())
    native = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    return scale_values(native, float(dataobj.slope), float(dataobj.inter))


def _grid(
    image: Any,  # noqa: ANN401
    shape_ijk: tuple[int, int, int],
    source: Path | str,
) -> tuple[VolumeGrid, tuple[str, ...]]:
    """Return the grid of an image of nibabel, and what a user should know of it."""
    import nibabel

    if isinstance(image, nibabel.Nifti1Pair):
        header = image.header.copy()
        repairs = repair_fields(header)
        affine, geometry, notes = read_geometry(header, source)
        if image.affine is None or np.array_equal(affine, image.affine):
            return VolumeGrid.from_ijk(shape_ijk, affine, file_facts=geometry), (*repairs, *notes)
    grid = VolumeGrid.from_ijk(shape_ijk, np.asarray(image.affine, dtype=np.float64))
    has_orientation = isinstance(image, nibabel.Nifti1Pair) or not isinstance(image, nibabel.AnalyzeImage)
    return grid, () if has_orientation else (_ANALYZE_NOTE,)


def _unreadable(path: Path | str) -> UnreadableVolumeError:
    return UnreadableVolumeError(
        f"{path} is damaged, cut off or of another format, or the second file of its pair (.hdr and .img) is "
        "not beside it; copy both again"
    )
