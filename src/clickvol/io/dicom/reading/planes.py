"""The pixels of a stack of slices as one array."""

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import DicomSeriesError
from clickvol.io.dicom.reading.geometry import Stack
from clickvol.io.dicom.reading.pixels import read_stored_pixels
from clickvol.io.dicom.reading.slices import DicomSlice
from clickvol.io.voxel_values import scale_values


def read_planes(stack: Stack) -> NDArray[np.generic]:
    """Return the rescaled pixels of a stack, (D, H, W); planes between two slices by linear interpolation.

    DicomSeriesError for pixels that are missing, damaged or not of the size that their header says.
    """
    array = _read_array(stack.slices)
    if stack.sources is None:
        return array
    planes = np.empty((len(stack.sources), *array.shape[1:]), array.dtype)
    for plane, source in zip(planes, stack.sources, strict=True):
        below = min(int(source), len(array) - 1)
        above, weight = min(below + 1, len(array) - 1), source - int(source)
        values = array[below].astype(np.float64) * (1 - weight) + array[above].astype(np.float64) * weight
        plane[...] = np.rint(values) if array.dtype.kind in "iu" else values
    return planes


def _read_array(ordered: list[DicomSlice]) -> NDArray[np.generic]:
    rescales = {(s.slope, s.intercept) for s in ordered}
    # PET changes the slope from slice to slice; then only float holds all of them.
    one_rescale = len(rescales) == 1
    array: NDArray[np.generic] | None = None
    pixels: NDArray[np.generic] = np.empty((0, 0, 0))
    path = None
    # File by file, so that one with many frames is decoded once.
    for index in sorted(range(len(ordered)), key=lambda i: ordered[i].path):
        part = ordered[index]
        if part.path != path:
            pixels, path = read_stored_pixels(part.path, part.file.header), part.path
            if part.mosaic is not None and pixels.shape[1:] == part.mosaic.picture_shape_hw:
                pixels = part.mosaic.tiles(pixels[0])
        if part.frame >= len(pixels) or pixels.shape[1:] != part.shape_hw:
            raise DicomSeriesError(
                f"the pixels of {part.name} have shape {pixels.shape}, not the rows, columns and "
                "frames its header promises; export the series again"
            )
        plane = pixels[part.frame]
        if array is None:
            dtype = plane.dtype.newbyteorder("=") if one_rescale else np.dtype(np.float32)
            array = np.empty((len(ordered), *part.shape_hw), dtype=dtype)
        if one_rescale:
            array = _fitting(array, plane.dtype)
            array[index] = plane
        else:
            array[index] = plane.astype(np.float64) * part.slope + part.intercept
    if array is None or not one_rescale:
        return np.empty((0, 0, 0)) if array is None else array
    return scale_values(array, ordered[0].slope, ordered[0].intercept)


def _fitting(array: NDArray[np.generic], dtype: np.dtype[np.generic]) -> NDArray[np.generic]:
    """Widen the array where a slice is stored in a dtype that its own cannot hold."""
    if np.can_cast(dtype, array.dtype, casting="safe"):
        return array
    return array.astype(np.promote_types(array.dtype, dtype))
