"""An array in a compressed file of which boxes are read, each without the rest (blosc2, `NDArray`).

Every piece has a checksum: zstd notices hardly any flipped bit by itself.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from clickvol.errors import ConfigError
from clickvol.files.atomic import atomic_path
from clickvol.geometry.box import VoxelBox

Shape = tuple[int, int, int]

STORED_SUFFIX = ".b2nd"

# Sides of the pieces. Smaller ones are read with less that is not asked for, but do not compress as well;
# docs/how-to/data.md has the measurement.
PIECE_VOXELS = 32

_CHECKSUMS, _MEANINGS = "crc32", "meanings"


def write_stored(array: NDArray[np.generic], path: Path, meanings: NDArray[np.generic] | None = None) -> None:
    """Write an array (D, H, W) of int16, float32 or uint8, wholly or not at all; equal arrays give equal bytes.

    Args:
        array: values, or the numbers (uint8) of values.
        path: of the file.
        meanings: (n,), the value of each number; None where the array holds values.

    Raises:
        OutputError: when the file cannot be written.
    """
    import blosc2  # not at the top: half a second, and no part of training on a pack

    filters = [blosc2.Filter.SHUFFLE]
    if array.dtype == np.int16:
        filters.append(blosc2.Filter.BYTEDELTA)
    piece = tuple(min(PIECE_VOXELS, side) for side in array.shape)
    stored = blosc2.asarray(
        np.ascontiguousarray(array),
        chunks=piece,
        blocks=piece,
        cparams={
            "codec": blosc2.Codec.ZSTD,
            "clevel": 5,
            "filters": filters,
            "filters_meta": [0, array.dtype.itemsize][: len(filters)],
            "nthreads": 1,
        },
        contiguous=True,
    )
    schunk = stored.schunk
    sums = [zlib.crc32(schunk.get_chunk(number)) for number in range(schunk.nchunks)]
    if meanings is not None:
        schunk.vlmeta[_MEANINGS] = meanings.astype(meanings.dtype.newbyteorder("<")).tobytes()
        sums.append(zlib.crc32(schunk.vlmeta[_MEANINGS]))
    schunk.vlmeta[_CHECKSUMS] = np.array(sums, dtype="<u4").tobytes()
    # Written by us and not by blosc2, which does not say when a disk is full.
    with atomic_path(path, STORED_SUFFIX) as temporary:
        temporary.write_bytes(stored.to_cframe())


@dataclass(frozen=True, slots=True, eq=False)
class StoredArray:
    """A part of an array in a file, read when its values are asked for; the file is open for that long alone.

    Slices with the steps 1 and -1, and `transpose`, give a further part and read nothing. Any other index,
    `astype` and `numpy.asarray` read.

    Attributes:
        path: of the file that `write_stored` wrote.
        owner: what the file belongs to, for messages.
        whole_shape: (D, H, W) of the array in the file.
        stored_dtype: of the values in the file, or that its numbers mean.
        bits: 0 for the values as they are, else 1 where a value has one of these bits, and 0 elsewhere (uint8).
        box: the part.
        reversed_axes: axes of the file along which the part runs backwards.
        axis_order: axes of the file in the order of the part's.
    """

    path: Path
    owner: str
    whole_shape: Shape
    stored_dtype: np.dtype[Any]
    bits: int
    box: VoxelBox
    reversed_axes: tuple[int, ...] = ()
    axis_order: Shape = (0, 1, 2)

    @classmethod
    def whole(cls, path: Path, owner: str, shape: Shape, dtype: DTypeLike, bits: int = 0) -> "StoredArray":
        """Take all of an array; nothing is read."""
        return cls(path, owner, shape, np.dtype(dtype), bits, VoxelBox.whole(shape))

    @property
    def shape(self) -> Shape:
        """(D, H, W) of the part."""
        d, h, w = (self.box.shape_dhw[axis] for axis in self.axis_order)
        return (d, h, w)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return 3

    @property
    def size(self) -> int:
        """Number of voxels."""
        return int(np.prod(self.shape))

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values as they are read."""
        return np.dtype(np.uint8) if self.bits else self.stored_dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Any:  # noqa: ANN401  # whatever numpy takes, and gives
        words = index if isinstance(index, tuple) else (index,)
        if all(isinstance(word, slice) and word.step in (None, 1, -1) for word in words):
            return self._part(words)
        if len(words) == 3 and all(isinstance(word, int | np.integer | slice) for word in words):
            # Whole numbers as slices of one voxel first, so that no more than those is read.
            narrow = [w if isinstance(w, slice) else slice(int(w), int(w) + 1 or None) for w in words]
            if all(word.step in (None, 1, -1) for word in narrow):
                kept = tuple(slice(None) if isinstance(w, slice) else 0 for w in words)
                return np.asarray(self._part(narrow))[kept]
        return np.asarray(self)[index]

    def __array__(self, dtype: DTypeLike | None = None, *, copy: bool | None = None) -> NDArray[Any]:
        """Read the part; ConfigError when the file is missing, damaged, or not the one that was described."""
        if copy is False:
            raise ValueError("a stored array is read into new memory; allow the copy")
        values = self._read()
        if self.bits:
            values = ((values & self.bits) > 0).astype(np.uint8)
        values = np.flip(values, self.reversed_axes).transpose(self.axis_order)
        return values if dtype is None else values.astype(dtype, copy=False)

    def astype(self, dtype: DTypeLike) -> NDArray[Any]:
        """Read the part as another dtype."""
        return np.asarray(self).astype(dtype)

    def transpose(self, *axes: Any) -> "StoredArray":  # noqa: ANN401  # as numpy's
        """Return the part with its axes in another order: three numbers, or one tuple of them."""
        first, second, third = axes[0] if len(axes) == 1 else axes
        order = (self.axis_order[first], self.axis_order[second], self.axis_order[third])
        return replace(self, axis_order=order)

    def _part(self, words: Sequence[slice]) -> "StoredArray":
        start, stop = list(self.box.start_dhw), list(self.box.stop_dhw)
        backwards = set(self.reversed_axes)
        for axis, word in zip(self.axis_order, words, strict=False):
            steps = range(*word.indices(stop[axis] - start[axis]))
            first, last = (min(steps), max(steps) + 1) if steps else (0, 0)
            if axis in backwards:
                start[axis], stop[axis] = stop[axis] - last, stop[axis] - first
            else:
                start[axis], stop[axis] = start[axis] + first, start[axis] + last
            if word.step == -1:
                backwards ^= {axis}
        return replace(self, box=VoxelBox.of(start, stop), reversed_axes=tuple(sorted(backwards)))

    def _read(self) -> NDArray[Any]:
        import blosc2

        if self.box.is_empty:
            return np.zeros(self.box.shape_dhw, self.stored_dtype)
        try:
            stored = blosc2.open(str(self.path), mode="r", dparams={"nthreads": 1})
            words = stored.schunk.vlmeta.getall()
            is_numbered = _MEANINGS in words and stored.dtype == np.uint8
            if stored.shape == self.whole_shape and (is_numbered or stored.dtype == self.stored_dtype):
                _check_pieces(stored, self.box, words)
                values = np.asarray(stored[self.box.slices])
                if not is_numbered:
                    return values
                return np.frombuffer(words[_MEANINGS], self.stored_dtype.newbyteorder("<")).take(values)
        except FileNotFoundError as error:
            raise ConfigError(self._message("is missing")) from error
        except Exception as error:  # blosc2 has no class of its own for what a damaged file may cause
            raise ConfigError(self._message("is damaged")) from error
        raise ConfigError(
            self._message(
                f"holds {stored.dtype} of shape {stored.shape}, not {self.stored_dtype} of {self.whole_shape}"
            )
        )

    def _message(self, fault: str) -> str:
        return (
            f"{self.path} of the case {self.owner} {fault}; copy it from where it is whole, or delete it and "
            "run clickvol data prepare again, which makes that case anew"
        )


def _check_pieces(stored: Any, box: VoxelBox, words: dict[str, bytes]) -> None:  # noqa: ANN401  # blosc2 has no types
    """Compare the checksums of the pieces under a box, and of what numbers mean.

    Raises:
        ValueError: where one is not that of the piece as written.
    """
    sums = np.frombuffer(words[_CHECKSUMS], dtype="<u4")
    if _MEANINGS in words and zlib.crc32(words[_MEANINGS]) != sums[-1]:
        raise ValueError("the meanings are not as they were written")
    pieces = [-(-side // piece) for side, piece in zip(stored.shape, stored.chunks, strict=True)]
    touched = [
        range(start // piece, -(-stop // piece))
        for start, stop, piece in zip(box.start_dhw, box.stop_dhw, stored.chunks, strict=True)
    ]
    numbers = np.ravel_multi_index(np.ix_(*touched), pieces).ravel()
    for number in numbers.tolist():
        if zlib.crc32(stored.schunk.get_chunk(number)) != sums[number]:
            raise ValueError(f"piece {number} is not as it was written")
