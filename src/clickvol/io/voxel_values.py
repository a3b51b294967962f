"""What is done to voxel values on reading: dtypes, scaling without waste, and the refusal of empty scans."""

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import UnreadableVolumeError

MAX_RESCALE = 1e12
"""Largest slope or intercept of a header, without sign. Chosen: far above any unit of measurement."""

# Hounsfield units, counts, Bq/ml and ms are far below; the marks that programs write (the lowest and the
# highest float, 1e20 and the like) are far above, and their squares leave single precision.
_MAX_MEASURED = 1e15


class RepairNote(str):
    """A note on a scan that says that voxels were replaced."""

    __slots__ = ()


def scale_values(array: NDArray[np.generic], slope: float, intercept: float) -> NDArray[np.generic]:
    """Return slope * array + intercept in the smallest dtype that holds it well.

    The same dtype where nothing changes; an integer dtype where the slope is 1 and the intercept whole (a CT
    stays int16); float32 otherwise (float64 stays float64). The array, integer or float in native byte order,
    is given away: its memory may be reused. UnreadableVolumeError for a slope or intercept above `MAX_RESCALE`.
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
    # What becomes too large here is no measurement; whoever checks the values takes it for none.
    with np.errstate(over="ignore", invalid="ignore"):
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


def grey_voxels(values: NDArray[np.generic], source: str) -> NDArray[np.generic]:
    """Return real voxels in native byte order and a dtype that the readers give; truth values become 0 and 1.

    Raises:
        UnreadableVolumeError: for complex numbers, colours, texts and objects.
    """
    if values.dtype.kind not in "iufb":
        raise UnreadableVolumeError(f"{source} holds {values.dtype} voxels; real numbers are expected")
    if values.dtype.kind == "b":
        return values.astype(np.uint8)
    if values.dtype.kind == "f" and values.dtype.itemsize not in (4, 8):
        return values.astype(np.float32 if values.dtype.itemsize < 4 else np.float64)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def clean_values(array: NDArray[np.generic], source: str) -> tuple[NDArray[np.generic], tuple[str, ...]]:
    """Replace voxels of an array (D, H, W) that are not finite or mark that there is no value, in place.

    A `RepairNote` says each repair. UnreadableVolumeError when no voxel is finite, or all have the same value.
    """
    array, notes = _without_missing(array, source)
    low, high = array.min(), array.max()
    if low == high:
        raise UnreadableVolumeError(
            f"{source}: empty scan: every voxel is {float(low):g}; a scan with at least two "
            "different values was expected, so check that this is the right file"
        )
    return array, notes


def has_missing(part: NDArray[np.generic]) -> bool:
    """Tell whether a part of a scan, of any shape, holds what may have to be replaced in the whole."""
    if part.dtype.kind == "i":
        return part.dtype.itemsize > 1 and int(part.min()) == np.iinfo(part.dtype.name).min
    missing = _missing(part)
    return missing is not None and bool(missing.any())


def _without_missing(array: NDArray[np.generic], source: str) -> tuple[NDArray[np.generic], tuple[str, ...]]:
    """Return the array with the smallest value where there is none, and a note where that was so."""
    missing = _missing(array)
    if missing is None or not missing.any():
        return array, ()
    num_missing = int(np.count_nonzero(missing))
    marks = np.unique(array[missing])[:1]
    is_mark = bool(np.isfinite(marks).all())
    if num_missing == array.size:
        what = f"{float(marks[0]):g}, a mark for no value" if is_mark else "NaN or infinite"
        raise UnreadableVolumeError(
            f"{source}: no voxel is a finite number, all {num_missing} are {what}; export the scan again"
        )
    floor = array[~missing].min()
    array = array if array.flags.writeable else array.copy()
    array[missing] = floor
    voxels, were = ("voxel", "was") if num_missing == 1 else ("voxels", "were")
    what = f"{float(marks[0]):g}, a mark for no value," if is_mark else "NaN or infinite"
    note = (
        f"{num_missing} {voxels} of {array.size} {were} {what} and {were} set to the smallest finite value, "
        f"{float(floor):g}."
    )
    return array, (RepairNote(note),)


def _missing(array: NDArray[np.generic]) -> NDArray[np.bool_] | None:
    """Return where there is no value: the shape of the array; None for nowhere.

    A float that nothing measures is a mark for no value, and so is the lowest signed integer where it stands
    apart from all others.
    """
    if array.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            return np.asarray(~(np.abs(array) <= _MAX_MEASURED))  # of NaN nothing is true
    if array.dtype.kind != "i" or array.dtype.itemsize == 1:
        return None
    lowest = -(2 ** (8 * array.dtype.itemsize - 1))
    if array.min() != lowest:
        return None
    bad: NDArray[np.bool_] = np.equal(array, lowest)
    others = array[~bad]
    apart = others.size and int(others.min()) - lowest > 2 ** (8 * array.dtype.itemsize - 3)
    return bad if apart else None
