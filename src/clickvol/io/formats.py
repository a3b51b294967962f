"""Which reader and which writer a path asks for: the one place where a path is sniffed.

Nothing heavy is imported before a file of the format is met.
"""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import OutputError, UnreadableVolumeError
from clickvol.files.atomic import atomic_path
from clickvol.files.limits import ReadLimits
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.dicom.reading.gantry_tilt import GantryTilt
from clickvol.io.input_path import kind_of_path, suffix_of, unreadable_path, windows_forbids
from clickvol.io.ome_zarr import is_zarr
from clickvol.io.volume import Mask, Volume

_NIFTI_SUFFIXES = (".nii.gz", ".nii", ".nii.zst")
_ITK_SUFFIXES = (".nrrd", ".mha", ".nhdr", ".mhd")
_MGZ_SUFFIX = ".mgz"
_PAIR_SUFFIXES = (".hdr", ".img", ".hdr.gz", ".img.gz")
READABLE_SUFFIXES = (*_NIFTI_SUFFIXES, *_ITK_SUFFIXES, *_PAIR_SUFFIXES, _MGZ_SUFFIX)
WRITABLE_SUFFIXES = (*_NIFTI_SUFFIXES, *_ITK_SUFFIXES, _MGZ_SUFFIX)

MAX_COMPRESSION_LEVEL = 9
"""The smallest file; 0 is the largest."""

_WRITABLE_DTYPES = ("uint8", "int16", "uint16", "int32", "float32", "float64")

_ARCHIVE_SUFFIX = ".zip"

_DICOM_MAGIC_OFFSET = 128

_ON_WINDOWS = os.name == "nt"


def read_volume(
    path: str | Path,
    *,
    series: str | None = None,
    volume_index: int | None = None,
    gantry_tilt: GantryTilt = "keep",
    resample_gaps: bool = False,
    limits: ReadLimits | None = None,
) -> Volume:
    """Read a CT, MR or PET scan.

    Args:
        path: a .nii, .nii.gz, .nii.zst, .nrrd, .nhdr, .mha, .mhd, .mgz, .hdr or .img file, a folder or .zip
            with a DICOM series, or a folder with an OME-Zarr image.
        series: for several DICOM series: the SeriesInstanceUID or SeriesNumber.
        volume_index: for 4D files, and DICOM series of several volumes: which volume to take, from 0.
        gantry_tilt: what becomes of a tilted DICOM series: "keep" its sheared grid, "refuse" it, or "resample"
            it to a rectangular grid, which is then not that of the slices in the file; told in `notes`.
        resample_gaps: bring a DICOM series whose slices change their distance to one spacing; told in `notes`.
        limits: what may be read, for files of strangers; None for any size.

    Returns:
        The scan; the array (D, H, W) on its grid in RAS mm, and what was repaired in `notes`.

    Raises:
        UnreadableVolumeError: anything that does not make one 3D scan of one grey channel.
        ScanTooLargeError: more than the limits allow.
        DicomSeriesError: DICOM files that do not make one regular volume, or a tilt that is refused.
        BadGeometryError: a grid that maps no voxel to a place.
    """
    if not str(path):
        raise UnreadableVolumeError("the path of the scan is empty; give a file or a DICOM folder")
    path = Path(path)
    kind = kind_of_path(path)
    if kind == "folder" and is_zarr(path) and series is None:
        from clickvol.io.ome_zarr import read_ome_zarr

        return read_ome_zarr(path, volume_index=volume_index, limits=limits)
    if kind == "folder" or (kind == "file" and suffix_of(path.name, (_ARCHIVE_SUFFIX,))):
        from clickvol.io.dicom.reading.series import read_dicom

        return read_dicom(
            path,
            series=series,
            volume_index=volume_index,
            gantry_tilt=gantry_tilt,
            resample_gaps=resample_gaps,
            limits=limits,
        )
    if kind != "file":
        what = "is not a file" if kind == "other" else "does not exist"
        raise UnreadableVolumeError(f"{path} {what}; give the path of a scan")
    suffix = suffix_of(path.name, READABLE_SUFFIXES)
    if suffix is None:
        raise UnreadableVolumeError(_unknown_input(path))
    if series is not None:
        raise UnreadableVolumeError(
            f"{path} is not a DICOM folder or .zip, and only those have a series; leave out --series"
        )
    return _read_file(path, suffix, volume_index, limits)


def _read_file(path: Path, suffix: str, volume_index: int | None, limits: ReadLimits | None) -> Volume:
    """Read a scan of one file, or the pair that it belongs to, by its suffix."""
    if suffix in _PAIR_SUFFIXES and limits is not None:
        raise UnreadableVolumeError(f"{path} does not hold its own voxels; give one file such as .nii.gz")
    if suffix in (*_NIFTI_SUFFIXES, *_PAIR_SUFFIXES):
        from clickvol.io.nifti.files import is_nifti_pair, read_nifti

        if suffix in _NIFTI_SUFFIXES or is_nifti_pair(path):
            return read_nifti(path, volume_index=volume_index, limits=limits)
    if suffix in (*_PAIR_SUFFIXES, _MGZ_SUFFIX):
        from clickvol.io.nifti.other_formats import read_with_nibabel

        return read_with_nibabel(path, volume_index=volume_index, limits=limits)
    from clickvol.io.itk.files import read_itk

    return read_itk(path, volume_index=volume_index, limits=limits)


def write_mask(mask: Mask, path: str | Path, *, compression_level: int | None = None) -> None:
    """Write a mask, uint8, on exactly the grid of its scan, as `write_volume`."""
    array = mask.array.astype(np.uint8, copy=False)
    write_volume(array, mask.grid, path, compression_level=compression_level)


def write_volume(
    array: NDArray[np.generic],
    grid: VolumeGrid,
    path: str | Path,
    *,
    compression_level: int | None = None,
) -> None:
    """Write any array on a grid, such as probabilities; wholly or not at all.

    Args:
        array: (D, H, W) uint8, int16, uint16, int32, float32 or float64.
        grid: where its voxels lie; of the same shape. A NIfTI file repeats the header geometry of a grid
            that came from one.
        path: where to; the suffix chooses the format (.nii, .nii.gz, .nii.zst, .nrrd, .nhdr, .mha, .mhd, .mgz).
        compression_level: from 0 (none, or least) to 9 (smallest file); None for 1, which is fast.

    Raises:
        OutputError: for an unknown suffix, a folder that is missing or not writable, a full disk,
            a sheared grid in NRRD or MetaImage, or an array that does not fit the grid.
    """
    path = check_output_path(path)
    if array.shape != grid.shape_dhw:
        raise OutputError(f"the array has shape {array.shape}, but its grid {grid.shape_dhw}; they must agree")
    if array.dtype.name not in _WRITABLE_DTYPES:
        raise OutputError(
            f"cannot write {array.dtype} voxels; convert them to one of {', '.join(_WRITABLE_DTYPES)}"
        )
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    suffix = suffix_of(path.name, WRITABLE_SUFFIXES) or ""
    check_compression(path, compression_level)
    with atomic_path(path, suffix) as temporary:
        if suffix in _NIFTI_SUFFIXES:
            from clickvol.io.nifti.files import write_nifti as write
        elif suffix == _MGZ_SUFFIX:
            from clickvol.io.nifti.other_formats import write_mgz as write
        else:
            from clickvol.io.itk.files import write_itk as write

        write(array, grid, temporary, compression_level=compression_level)


def check_compression(path: str | Path, level: int | None) -> None:
    """Refuse a level that is not 0 to 9, or one for a format that is never compressed (OutputError)."""
    if level is None:
        return
    if not 0 <= level <= MAX_COMPRESSION_LEVEL:
        raise OutputError(f"{level} is no compression level; give one from 0 (none) to {MAX_COMPRESSION_LEVEL}")
    suffix = Path(path).suffix.lower()
    if suffix in (".nii", ".dcm"):
        raise OutputError(f"a {suffix} file is not compressed; leave the level out, or write .nii.gz")


def write_scan(volume: Volume, path: str | Path) -> None:
    """Write a scan as `write_volume`, in its own dtype or the next that holds its values in files."""
    array = volume.array
    if array.dtype.name not in _WRITABLE_DTYPES:
        array = array.astype("int16" if array.dtype.itemsize == 1 else "float64")
    write_volume(array, volume.grid, path)


def check_output_grid(path: str | Path, grid: VolumeGrid) -> None:
    """Refuse a grid that a file of this name cannot hold, or would move (OutputError)."""
    path, suffix = Path(path), suffix_of(Path(path).name, WRITABLE_SUFFIXES)
    if suffix in _ITK_SUFFIXES:
        from clickvol.io.itk.files import check_perpendicular

        check_perpendicular(grid, path.name)
    elif suffix == _MGZ_SUFFIX:
        from clickvol.io.nifti.other_formats import check_mgz_grid

        check_mgz_grid(grid, path)
    elif suffix is not None:
        from clickvol.io.nifti.headers import make_header

        make_header(np.broadcast_to(np.uint8(0), grid.shape_dhw), grid)


def check_output_path(
    path: str | Path, *inputs: str | Path | None, suffixes: tuple[str, ...] = WRITABLE_SUFFIXES
) -> Path:
    """Refuse a path where no mask can be written (OutputError): suffix, folder, or the scan itself.

    Args:
        path: where the mask is to go. An existing file would be overwritten.
        inputs: what must not be overwritten, such as the scan, however the paths are spelled.
        suffixes: those of the format, in lower case.
    """
    path = Path(path)
    try:
        return _check_output_path(path, inputs, suffixes)
    except (OSError, ValueError) as error:  # too long, a loop of links, a null byte
        raise OutputError(f"{str(path)!r} cannot be the name of a file; choose another") from error


def _check_output_path(path: Path, inputs: tuple[str | Path | None, ...], suffixes: tuple[str, ...]) -> Path:
    if _ON_WINDOWS and windows_forbids(path.name):
        raise OutputError(f"{path.name!r} cannot be the name of a file on Windows; choose another")
    if path.is_dir():
        raise OutputError(
            f"{path} is a folder; give the name of a file in it, such as {path / 'mask'}{suffixes[0]}"
        )
    if suffix_of(path.name, suffixes) is None:
        raise OutputError(
            f"cannot tell from {path.name!r} which format to write; the supported suffixes are "
            f"{', '.join(suffixes)}"
        )
    parent = Path(os.path.realpath(path)).parent
    if not parent.is_dir():
        raise OutputError(f"cannot write {path}: the folder {parent} does not exist; make it first")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write {path}: the folder {parent} is not writable; choose another place")
    if any(given and _is_same_file(path, Path(given)) for given in inputs):
        raise OutputError(f"{path} is the scan itself or an input; give another name, so that it stays")
    return path


def _is_same_file(one: Path, other: Path) -> bool:
    if os.path.realpath(one) == os.path.realpath(other):
        return True
    return one.exists() and other.exists() and one.samefile(other)


def _unknown_input(path: Path) -> str:
    try:
        with path.open("rb") as file:
            start = file.read(_DICOM_MAGIC_OFFSET + 4)
    except OSError as error:
        raise unreadable_path(path, error) from error
    if path.suffix.lower() == ".dcm" or start[_DICOM_MAGIC_OFFSET:] == b"DICM":
        return f"{path} is a single DICOM file; give the folder that holds its series"
    return (
        f"{path} has no suffix of a supported format; expected a folder or .zip with DICOM files, or one "
        f"of {', '.join(READABLE_SUFFIXES)}"
    )
