"""Arrays as nnInteractive's client packs them: a small header and Blosc2 chunks. Torch-free.

    "NNIA", u8 version, u8 codec, u8 ndim, u8 length of the dtype's name, the name, ndim x i64 shape,
    u32 number of chunks, then for each: u64 unpacked length, u64 packed length, one Blosc2 chunk

Little endian. What comes in is a stranger's: every length is checked before anything is unpacked.
"""

import math
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clickvol.server.refusal import RefusedError

_MAGIC = b"NNIA"
_VERSION = 1
_ZSTD = 1
_MAX_NDIM = 4
_MAX_CHUNK_BYTES = 1 << 30
_DTYPES = {f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)}
_DTYPES |= {"bool", "float16", "float32", "float64"}

# The header of a Blosc2 chunk: sizes at 4 and 12, six filters from 16, its own flags at 31.
_CHUNK_HEADER_BYTES = 32
_LAST_BUILT_IN_FILTER = 4
_FLAGS_NEVER_SENT = 0x0F  # a dictionary, another byte order, instructions, or data that lie in a file


def unpack_array(data: bytes, *, max_values: int) -> NDArray[Any]:
    """Return a packed array; RefusedError 413 for more values, before they are unpacked, 422 otherwise."""
    import blosc2

    try:
        shape, dtype, at, num_chunks = _header(data)
        num_values = math.prod(shape)
        if num_values > max_values:
            raise RefusedError(413, f"the array has {num_values} values, at most {max_values} are allowed here")
        left, parts = num_values * dtype.itemsize, []
        for _ in range(num_chunks):
            unpacked, packed = struct.unpack_from("<QQ", data, at)
            chunk = data[at + 16 : at + 16 + packed]
            if unpacked > min(left, _MAX_CHUNK_BYTES) or len(chunk) != packed or not unpacked:
                raise ValueError("a chunk of another length")
            _check_chunk(chunk, unpacked)
            parts.append(blosc2.decompress2(chunk))
            if len(parts[-1]) != unpacked:
                raise ValueError("a chunk that unpacks to another length")
            left, at = left - unpacked, at + 16 + packed
        if left or at != len(data):
            raise ValueError("chunks that do not fill the array")
    except (ValueError, struct.error, UnicodeDecodeError, RuntimeError, TypeError) as error:
        raise RefusedError(
            422, "the body is no packed array of a known version; send it as the client does"
        ) from error
    return np.frombuffer(b"".join(parts), dtype=dtype).reshape(shape)


def pack_array(array: NDArray[Any]) -> bytes:
    """Return an array packed, as one chunk; empty for an array without values."""
    import blosc2

    data = np.ascontiguousarray(array)
    name = data.dtype.name.encode()
    head = struct.pack(f"<4sBBBB{len(name)}s", _MAGIC, _VERSION, _ZSTD, data.ndim, len(name), name)
    head += struct.pack(f"<{data.ndim}q", *data.shape)
    raw, chunks = data.tobytes(), []
    for start in range(0, len(raw), _MAX_CHUNK_BYTES):
        part = raw[start : start + _MAX_CHUNK_BYTES]
        chunk = blosc2.compress2(
            part, codec=blosc2.Codec.ZSTD, filters=[blosc2.Filter.NOFILTER], typesize=data.itemsize
        )
        chunks.append(struct.pack("<QQ", len(part), len(chunk)) + chunk)
    return head + struct.pack("<I", len(chunks)) + b"".join(chunks)


def _header(data: bytes) -> tuple[tuple[int, ...], np.dtype[Any], int, int]:
    """Return shape, dtype, where the chunks begin, and how many there are."""
    magic, version, _, ndim, length = struct.unpack_from("<4sBBBB", data)
    name = data[8 : 8 + length].decode("ascii")
    if magic != _MAGIC or version != _VERSION or ndim > _MAX_NDIM or name not in _DTYPES:
        raise ValueError("no header of a packed array")
    shape = struct.unpack_from(f"<{ndim}q", data, 8 + length)
    if not shape or min(shape) < 1:
        raise ValueError("an array without values")
    at = 8 + length + 8 * ndim
    (num_chunks,) = struct.unpack_from("<I", data, at)
    return shape, np.dtype(name).newbyteorder("<"), at + 4, num_chunks


def _check_chunk(chunk: bytes, unpacked: int) -> None:
    if len(chunk) < _CHUNK_HEADER_BYTES:
        raise ValueError("a chunk without a header")
    (num_bytes,), (packed,) = struct.unpack_from("<i", chunk, 4), struct.unpack_from("<i", chunk, 12)
    is_plain = max(chunk[16:22]) <= _LAST_BUILT_IN_FILTER and not chunk[31] & _FLAGS_NEVER_SENT
    if num_bytes != unpacked or packed != len(chunk) or not is_plain:
        raise ValueError("a chunk that promises another length, or asks for more than its bytes")
