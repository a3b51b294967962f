"""Streams of compressed files; which compression it is, is seen from their first bytes, not from their name."""

import contextlib
import gzip
from collections.abc import Iterator
from io import BufferedIOBase
from pathlib import Path
from typing import IO, Literal, cast

import zstandard

Compression = Literal["none", "gzip", "zstd"]

CompressionError = zstandard.ZstdError
"""What a damaged zstd stream raises; gzip has errors of its own."""

_STARTS: dict[bytes, Compression] = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}

# Writes a mostly empty mask several times faster than the usual level 6; the file stays small.
DEFAULT_LEVEL = 1

# What a stream may make its reader hold; that of the highest ordinary level.
_MAX_WINDOW_BYTES = 128 * 2**20


def compression_of(path: Path) -> Compression:
    """Return what a file is compressed with; OSError when it cannot be read."""
    with path.open("rb") as file:
        start = file.read(4)
    return next((kind for magic, kind in _STARTS.items() if start.startswith(magic)), "none")


@contextlib.contextmanager
def opened_stream(path: Path, compression: Compression) -> Iterator[BufferedIOBase]:
    """Lend the unpacked content of a file, from its start."""
    with path.open("rb") as file:
        if compression == "none":
            yield file
        elif compression == "gzip":
            with gzip.GzipFile(fileobj=file, mode="rb") as stream:
                yield stream
        else:
            unpacking = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
            with unpacking.stream_reader(file, read_across_frames=True) as stream:
                yield cast(BufferedIOBase, stream)


@contextlib.contextmanager
def packed_stream(file: IO[bytes], suffix: str, level: int | None = None) -> Iterator[IO[bytes]]:
    """Lend a stream that packs what is written to it, with a checksum; the file stays open.

    The suffix is .gz or .mgz for gzip, .zst for zstd; anything else is not packed. The level is 0 to 9, None
    for 1; of gzip 0 packs nothing, zstd goes to its level 19.
    """
    level = DEFAULT_LEVEL if level is None else level
    if suffix.lower() == ".zst":
        packing = zstandard.ZstdCompressor(level=2 * level + 1 if level > 1 else 1, write_checksum=True)
        with packing.stream_writer(file, closefd=False) as stream:
            yield cast(IO[bytes], stream)
    elif suffix.lower() in (".gz", ".mgz"):
        # No name and no time in the gzip header: the same mask gives the same bytes.
        with gzip.GzipFile("", "wb", level, file, mtime=0) as stream:
            yield cast(IO[bytes], stream)
    else:
        yield file
