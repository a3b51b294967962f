"""What is done to voxel values on reading: scaling without waste, and the refusal of empty scans."""

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import UnreadableVolumeError

MAX_RESCALE = 1e12
"""Largest slope or intercept of a header, without sign. Chosen: far above any unit of measurement."""


class RepairNote(str):
    """A note on a scan that says that voxels were replaced."""

    __slots__ = ()


def scale_values(array: NDArray[np.generic], slope: float, intercept: float) -> NDArray[np.generic]:
    """Return slope * array + intercept in the smallest dtype that holds it well.

    Args:
        array: any shape, integer or float, native byte order. It is given away: its memory may be
            reused for the result.
        slope: not zero, at most `MAX_RESCALE`.
        intercept: at most `MAX_RESCALE`.

    Returns:
        The same dtype where nothing changes; an integer dtype where the slope is 1 and the
        intercept whole (a CT stays int16); float32 otherwise (float64 stays float64).

    Raises:
        UnreadableVolumeError: for a larger slope or intercept.
    """
    if not max(abs(slope), abs(intercept)) <= MAX_RESCALE:
        raise UnreadableVolumeError(
            f"the header scales values by {slope:g} and adds {intercept:g}, but at most {MAX_RESCALE:g} is "
            "expected; repair the header of the file"
        )
    if slope == 1.0 and intercept == 0.0:
        return array
    if array.dtype.kind in "iu" and slope == 1.0 and float(intercept).is_integer():
        return _shift_integers(array, int(intercept))
    dtype = np.float64 if array.dtype == np.float64 else np.float32
    scaled = array.astype(dtype, copy=False)
    np.multiply(scaled, dtype(slope), out=scaled)
    np.add(scaled, dtype(intercept), out=scaled)
    return scaled


def _shift_integers(array: NDArray[np.generic], shift: int) -> NDArray[np.generic]:
    if array.size == 0:
        return array
    low, high = int(array.min()) + shift, int(array.max()) + shift
    bits = array.dtype.itemsize * 8
    for dtype in (array.dtype, np.dtype(f"i{array.dtype.itemsize}")):
        limits = np.iinfo(dtype)
        if limits.min <= low and high <= limits.max:
            # Integer arithmetic is modulo 2**bits, so adding the shift as an unsigned number in
            # place and reading the bits anew is exact, and needs no second array.
            unsigned = array.view(f"u{array.dtype.itemsize}")
            np.add(unsigned, unsigned.dtype.type(shift % 2**bits), out=unsigned)
            return unsigned.view(dtype)
    wider = np.int32 if np.iinfo(np.int32).min <= low and high <= np.iinfo(np.int32).max else None
    shifted = array.astype(wider or np.float64)
    np.add(shifted, shift, out=shifted)
    return shifted


def clean_values(array: NDArray[np.generic], source: str) -> tuple[NDArray[np.generic], tuple[str, ...]]:
    """Replace voxels that are not finite, and refuse scans that hold nothing.

    Args:
        array: (D, H, W), given away: it may be changed in place.
        source: the file or folder, for the messages.

    Returns:
        The finite array, and one sentence for each repair, a `RepairNote`.

    Raises:
        UnreadableVolumeError: when no voxel is finite, or all have the same value.
    """
    notes: tuple[str, ...] = ()
    if array.dtype.kind == "f":
        bad = ~np.isfinite(array)
        num_bad = int(np.count_nonzero(bad))
        if num_bad == array.size:
            raise UnreadableVolumeError(
                f"{source}: no voxel is a finite number, all {num_bad} are NaN or infinite; "
                "export the scan again"
            )
        if num_bad:
            floor = array[~bad].min()
            array = array if array.flags.writeable else array.copy()
            array[bad] = floor
            voxels, were = ("voxel", "was") if num_bad == 1 else ("voxels", "were")
            notes = (
                RepairNote(
                    f"{num_bad} {voxels} of {array.size} {were} NaN or infinite and {were} set to "
                    f"the smallest finite value, {float(floor):g}."
                ),
            )
    low, high = array.min(), array.max()
    if low == high:
        raise UnreadableVolumeError(
            f"{source}: empty scan: every voxel is {float(low):g}; a scan with at least two "
            "different values was expected, so check that this is the right file"
        )
    return array, notes
