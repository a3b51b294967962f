"""NIfTI files to volumes, and masks to NIfTI files on exactly the same grid.

The voxels are read straight into one array of the stored dtype, and a compressed file is read to
its end, so that its checksum is verified.
"""

import gzip
import math
import zlib
from dataclasses import replace
from io import BufferedIOBase
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import UnreadableVolumeError
from clickvol.files.limits import ReadLimits
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.compression import Compression, CompressionError, compression_of, opened_stream, packed_stream
from clickvol.io.input_path import suffix_of
from clickvol.io.nifti.headers import (
    VoxelLayout,
    make_header,
    parse_header,
    read_geometry,
    read_scaling,
    voxel_layout,
)
from clickvol.io.volume import Volume
from clickvol.io.voxel_values import clean_values, has_missing, scale_values

_CHUNK_BYTES = 4 * 2**20

# Deflate cannot do better than about 1:1032; a header that promises more is lying.
_MAX_GZIP_RATIO = 1040

# Chosen: what a laptop can hold twice is read whole.
_MIN_MAPPED_BYTES = 2**29

# Of a mapped scan of whole numbers every such slice is searched for marks of no value.
_SEARCHED_SLICES = 16


def read_nifti(path: Path, *, volume_index: int | None = None, limits: ReadLimits | None = None) -> Volume:
    """Read a .nii, .nii.gz or .nii.zst file, or a pair of .hdr and .img by either; first bytes say the packing.

    The array (D, H, W) is in the stored dtype where the header asks for no scaling. That of a large file which
    is not compressed is read when it is used, part by part, unless values have to be replaced.

    Raises:
        ScanTooLargeError: more than the limits allow.
        UnreadableVolumeError: missing, truncated, damaged, not NIfTI, not one grey channel, 4D
            without a choice of volume, or without any content.
        BadGeometryError: a spacing or an orientation that cannot be used.
    """
    stored = read_stored(path, volume_index=volume_index, limits=limits)
    if isinstance(stored.array.base, np.memmap):
        return stored
    array, value_notes = clean_values(stored.array, str(path))
    return replace(stored, array=array, notes=(*stored.notes, *value_notes))


def read_stored(path: Path, *, volume_index: int | None = None, limits: ReadLimits | None = None) -> Volume:
    """Read a file as `read_nifti` does, but take the values as they are, also where all are the same."""
    try:
        headers, voxels = nifti_files(path)
        with opened_stream(headers, compression_of(headers)) as stream:
            header, notes = parse_header(stream, headers, is_pair=headers != voxels)
            layout = voxel_layout(header, path, volume_index)
            slope, intercept = read_scaling(header, path)
            affine, geometry, geometry_notes = read_geometry(header, path)
            grid = VolumeGrid.from_ijk(layout.shape_ijk, affine, file_facts=geometry)
            compression = compression_of(voxels)
            _refuse_impossible_size(layout, voxels, compression)
            if limits is not None:
                limits.check_voxels(math.prod(layout.shape_ijk), str(path))
                limits.check_bytes(layout.offset_bytes + layout.num_bytes, str(path))
        # From the start again: not every stream can go back to where the header ended.
        mapped = None
        if compression == "none" and limits is None and (slope, intercept) == (1.0, 0.0):
            mapped = _mapped(voxels, layout)
        if mapped is not None:
            return Volume(mapped, grid, source=str(path), notes=(*notes, *geometry_notes))
        with opened_stream(voxels, compression) as stream:
            array, end_notes = _read_array(stream, layout, voxels, limits)
    except (EOFError, zlib.error, gzip.BadGzipFile, CompressionError) as error:
        raise UnreadableVolumeError(
            f"{path} is truncated or damaged: its compressed data ends early; copy it again"
        ) from error
    except MemoryError as error:
        raise UnreadableVolumeError(
            f"{path} holds more voxels than this machine has memory for; crop or resample the scan"
        ) from error
    except OSError as error:
        raise UnreadableVolumeError(
            f"cannot read {path}: {error.strerror or error}; check the file and its permissions"
        ) from error

    return Volume(
        array=scale_values(array, slope, intercept),
        grid=grid,
        source=str(path),
        notes=(*notes, *geometry_notes, *end_notes),
    )


def nifti_files(path: Path) -> tuple[Path, Path]:
    """Return the files with header and voxels: the path itself twice, or the two of a pair by either of them.

    The other file of a pair may be compressed or not, and its name in capitals; UnreadableVolumeError without
    it.
    """
    name = path.name.lower()
    suffix = suffix_of(name, (".hdr", ".hdr.gz", ".img", ".img.gz"))
    if suffix is None:
        return path, path
    stem, other = name.removesuffix(suffix), ".img" if suffix.startswith(".hdr") else ".hdr"
    # Of two that differ in capitals alone the one that is spelled as its partner comes last, and stays.
    spelled = path.name[: len(stem)]
    files = sorted(path.parent.iterdir(), key=lambda file: file.name.startswith(spelled))
    names = {file.name.lower(): file for file in files}
    partner = names.get(stem + other) or names.get(f"{stem}{other}.gz")
    if partner is None:
        raise UnreadableVolumeError(
            f"{path} is one file of a pair (.hdr and .img), and the other one is not beside it; copy both"
        )
    return (path, partner) if other == ".img" else (partner, path)


def is_nifti_pair(path: Path) -> bool:
    """Tell whether a pair of .hdr and .img, by either, is NIfTI; UnreadableVolumeError for one alone."""
    try:
        headers, _ = nifti_files(path)
        with opened_stream(headers, compression_of(headers)) as stream:
            start = stream.read(348)
    except (OSError, EOFError, zlib.error):
        return False
    return start[344:347] == b"ni1" or start[4:7] == b"ni2"


def write_nifti(
    array: NDArray[np.generic], grid: VolumeGrid, path: Path, *, compression_level: int | None = None
) -> None:
    """Write an array (D, H, W) of a NIfTI dtype; compressed when the path ends with .gz or .zst.

    The header geometry of a grid that was read from NIfTI is repeated; any other gets sform and qform with code
    1 (scanner), and only the sform where it is sheared. OutputError when NIfTI cannot hold this array or grid.
    """
    header = make_header(array, grid)
    prefix = header.binaryblock + b"\0" * (int(header["vox_offset"]) - len(header.binaryblock))
    with path.open("wb") as file, packed_stream(file, path.suffix, compression_level) as stream:
        stream.write(prefix)
        for plane in array:
            stream.write(plane.tobytes())


def _refuse_impossible_size(layout: VoxelLayout, path: Path, compression: Compression) -> None:
    if compression == "zstd":
        return  # may be any ratio
    available = path.stat().st_size * (_MAX_GZIP_RATIO if compression == "gzip" else 1)
    if layout.offset_bytes + layout.num_bytes > available:
        raise UnreadableVolumeError(_truncated(path, layout))


def _mapped(path: Path, layout: VoxelLayout) -> NDArray[np.generic] | None:
    """Return the voxels of a large file without reading them; None where values may have to be replaced."""
    dtype, shape_dhw = layout.dtype, layout.shape_ijk[::-1]
    if layout.num_bytes < _MIN_MAPPED_BYTES or not dtype.isnative or dtype.itemsize > 8:
        return None
    plane_voxels = shape_dhw[1] * shape_dhw[2]
    first = None
    is_empty = True
    # A network makes nothing of what is not finite, so that such a voxel may lie nowhere.
    for index in range(0, shape_dhw[0], 1 if dtype.kind == "f" else _SEARCHED_SLICES):
        offset = layout.offset_bytes + index * plane_voxels * dtype.itemsize
        plane: NDArray[np.generic] = np.fromfile(path, dtype, plane_voxels, offset=offset)
        if has_missing(plane):
            return None
        first = plane[0] if first is None else first
        is_empty = is_empty and bool((plane == first).all())
    # Changes stay in memory.
    voxels = np.memmap(path, dtype, "c", layout.offset_bytes, shape_dhw)
    return None if is_empty else voxels.view(np.ndarray)


def _read_array(
    stream: BufferedIOBase, layout: VoxelLayout, path: Path, limits: ReadLimits | None
) -> tuple[NDArray[np.generic], tuple[str, ...]]:
    raw = np.empty(layout.num_bytes, dtype=np.uint8)
    stream.seek(layout.offset_bytes)
    filled = 0
    while filled < layout.num_bytes:
        # In pieces: GzipFile.readinto makes a copy of what it hands over.
        got = stream.readinto(raw[filled : filled + _CHUNK_BYTES].data)
        if not got:
            raise UnreadableVolumeError(_truncated(path, layout))
        filled += got
    notes = _read_to_end(stream, path, limits)
    array: NDArray[np.generic] = raw.view(layout.dtype)
    if not layout.dtype.isnative:
        array = array.byteswap(inplace=True).view(layout.dtype.newbyteorder("="))
    if layout.dtype.kind == "f" and layout.dtype.itemsize > 8:
        array = array.astype(np.float64)
    # The file runs i fastest: in C order that is (k, j, i) = (d, h, w), without moving a byte.
    return array.reshape(layout.shape_ijk[::-1]), notes


def _read_to_end(stream: BufferedIOBase, path: Path, limits: ReadLimits | None) -> tuple[str, ...]:
    """Read what comes behind the voxels, so that the checksum at the end of a compressed stream is compared."""
    if not isinstance(stream, gzip.GzipFile):
        return ()
    try:
        while stream.read(_CHUNK_BYTES):
            if limits is not None:
                limits.check_bytes(stream.tell(), str(path))
    except gzip.BadGzipFile as error:
        # So gzip says that what follows a complete stream, checksum and all, is none.
        if not str(error).startswith("Not a gzipped file"):
            raise
        return ("There are bytes behind the compressed scan, which were ignored.",)
    return ()


def _truncated(path: Path, layout: VoxelLayout) -> str:
    return (
        f"{path} is truncated: the header promises {layout.num_bytes} bytes of voxels for shape "
        f"{layout.shape_ijk}, but the file ends before; copy it again"
    )
