"""Packed arrays: there and back, and what a stranger may send."""

import struct

import numpy as np
import pytest

from clickvol.server.nninteractive.packed_array import pack_array, unpack_array
from clickvol.server.refusal import RefusedError


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "uint16", "int64", "float16", "float64"])
def test_there_and_back(dtype):
    array = (np.arange(60).reshape(3, 4, 5) % 7).astype(dtype)
    again = unpack_array(pack_array(array), max_values=60)
    assert again.dtype == array.dtype
    assert np.array_equal(again, array)


def test_the_bytes_of_the_header():
    packed = pack_array(np.zeros((2, 3), dtype=np.int16))
    assert packed[:8] == b"NNIA\x01\x01\x02\x05"
    assert packed[8:13] == b"int16"
    assert struct.unpack_from("<qqIQQ", packed, 13)[:4] == (2, 3, 1, 12)


def changed(at, value):
    packed = bytearray(pack_array(np.arange(24, dtype=np.int16).reshape(2, 3, 4)))
    packed[at : at + len(value)] = value
    return bytes(packed)


HEAD = 8 + 5 + 3 * 8 + 4  # then the lengths of the chunk, 16 bytes, and the chunk


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 422),
        (b"NNIA", 422),
        (changed(0, b"XXXX"), 422),
        (changed(4, b"\x02"), 422),
        (changed(8, b"objec"), 422),
        (changed(13, struct.pack("<q", -2)), 422),
        (changed(13, struct.pack("<q", 2**60)), 413),
        (changed(HEAD - 4, struct.pack("<I", 2**32 - 1)), 422),
        (changed(HEAD, struct.pack("<Q", 2**63)), 422),
        (changed(HEAD + 8, struct.pack("<Q", 2**63)), 422),
        (changed(HEAD + 16 + 4, struct.pack("<i", 2**30)), 422),
        (changed(HEAD + 16 + 12, struct.pack("<i", 7)), 422),
        (changed(HEAD + 16 + 16, b"\xff"), 422),
        (changed(HEAD + 16 + 31, b"\x08"), 422),
        (changed(0, b"")[:-1], 422),
        (changed(0, b"") + b"x", 422),
    ],
)
def test_what_is_no_packed_array_is_refused(data, status):
    with pytest.raises(RefusedError) as refused:
        unpack_array(data, max_values=1000)
    assert refused.value.status == status
