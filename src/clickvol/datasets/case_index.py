"""What samplers need to know of every case before they read one: a table, mapped into memory.

`clickvol data prepare` writes a row with each case, and at the end all rows into one file.
"""

import hashlib
import io
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from clickvol.errors import ConfigError
from clickvol.files.atomic import atomic_path
from clickvol.io.volume import Volume
from clickvol.preprocessing.intensity import intensity_scale, value_sample

INDEX_NAME = "index.npy"

MAX_OBJECT_VOXELS = 4096
"""Voxels of an object that are kept; a random part of those of larger objects."""

NUM_PLACES = 1024
"""Voxels from anywhere in the scan that are kept, with their values."""

_SEED = 4321

# After the rows of the cases comes one that begins with `_key_of` their images: whether the table is of these
# cases is known without reading the others.
_ROW = np.dtype(
    [
        ("object_voxels_dhw", "<i2", (MAX_OBJECT_VOXELS, 3)),
        ("places_dhw", "<i2", (NUM_PLACES, 3)),
        ("values", "<f4", NUM_PLACES),
    ]
)

Runs = tuple[tuple[int, int], ...]
"""First and one past the last number of slices that follow one another; ascending."""


@dataclass(frozen=True, slots=True)
class ObjectFacts:
    """What is known of an object and of its scan, on the prepared grid.

    Attributes:
        num_voxels: of the object.
        runs_dhw: per axis, the slices that show the object.
        longest_side_mm: of the object's bounding box along the patient's axes.
        value_range: least and greatest value of the scan.
        window: ends of the intensity scale that the scan has if it is MR.
    """

    num_voxels: int
    runs_dhw: tuple[Runs, Runs, Runs]
    longest_side_mm: float
    value_range: tuple[float, float]
    window: tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class IndexRow:
    """What the table has of a case.

    Attributes:
        object_voxels_dhw: (n, 3) int16, voxels of the object: all, or of a large one `MAX_OBJECT_VOXELS`.
        places_dhw: (NUM_PLACES, 3) int16, voxels from anywhere in the scan.
        values: (NUM_PLACES,) float32, the scan there.
    """

    object_voxels_dhw: NDArray[np.int16]
    places_dhw: NDArray[np.int16]
    values: NDArray[np.float32]


def measure(volume: Volume, mask: NDArray[np.uint8], name: str) -> tuple[ObjectFacts, IndexRow]:
    """Measure a case.

    Args:
        volume: the scan, as it is kept.
        mask: (D, H, W), 0 or 1, with at least one voxel.
        name: of the case; seeds the draw.
    """
    rng = np.random.default_rng([_SEED, zlib.crc32(name.encode())])
    voxels = np.argwhere(mask).astype(np.int16)
    window = intensity_scale("MR", value_sample(volume))
    runs = tuple(_runs(np.asarray(mask.any(axis=tuple({0, 1, 2} - {axis})))) for axis in range(3))
    facts = ObjectFacts(
        num_voxels=len(voxels),
        runs_dhw=(runs[0], runs[1], runs[2]),
        longest_side_mm=float(np.ptp(volume.grid.world_steps(voxels), axis=0).max()),
        value_range=(float(volume.array.min()), float(volume.array.max())),
        window=(window.low, window.high),
    )
    if len(voxels) > MAX_OBJECT_VOXELS:
        voxels = voxels[rng.choice(len(voxels), MAX_OBJECT_VOXELS, replace=False)]
    places = np.stack([rng.integers(0, side, NUM_PLACES) for side in mask.shape], axis=1)
    values = volume.array[tuple(places.T)].astype(np.float32)
    return facts, IndexRow(voxels, places.astype(np.int16), values)


def slice_numbers(runs: Runs) -> NDArray[np.int64]:
    """Return the numbers of the slices in runs, ascending."""
    return np.concatenate([np.arange(first, stop) for first, stop in runs])


def write_row(row: IndexRow, path: Path) -> None:
    """Write the row of a case; OutputError when the file cannot be written."""
    table = np.zeros(1, _ROW)
    table["object_voxels_dhw"][0, : len(row.object_voxels_dhw)] = row.object_voxels_dhw
    table["places_dhw"], table["values"] = row.places_dhw, row.values
    write_npy(table, path)


def write_npy(array: NDArray[Any], path: Path) -> None:
    """Write an array, uncompressed, wholly or not at all; OutputError when the file cannot be written."""
    # numpy itself does not say when a disk is full.
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    with atomic_path(path, ".npy") as temporary:
        temporary.write_bytes(content.getbuffer())


def write_index(rows: Sequence[Path], image_sha256: Iterable[str], folder: Path) -> None:
    """Write the rows of all cases, in this order, into one file.

    Args:
        rows: of `write_row`.
        image_sha256: of the image of every case.
        folder: of the set.

    Raises:
        OutputError: when the file cannot be written.
    """
    header = {"descr": npy.dtype_to_descr(_ROW), "fortran_order": False, "shape": (len(rows) + 1,)}
    with atomic_path(folder / INDEX_NAME, ".npy") as temporary, temporary.open("wb") as file:
        npy.write_array_header_1_0(file, header)
        for path in rows:
            file.write(np.load(path, allow_pickle=False).astype(_ROW, copy=False).tobytes())
        file.write(_key_of(image_sha256).ljust(_ROW.itemsize, b"\0"))


def open_index(folder: Path, image_sha256: Iterable[str]) -> NDArray[Any]:
    """Map the table of a prepared set into memory, one row per case.

    Args:
        folder: of the set.
        image_sha256: of the image of every case, in order.

    Raises:
        ConfigError: when the file is missing, or not that of these cases.
    """
    path = folder / INDEX_NAME
    try:
        # A plain array: slices of numpy's own class for mapped files are slower.
        table = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
        hashes = list(image_sha256)
        is_this = table.dtype == _ROW and table.shape == (len(hashes) + 1,)
        is_this = is_this and table[-1].tobytes().startswith(_key_of(hashes))
    except (OSError, ValueError, EOFError) as error:
        raise ConfigError(f"{path} is missing or damaged; run clickvol data prepare again") from error
    if not is_this:
        raise ConfigError(f"{path} is not of the cases in the manifest; run clickvol data prepare again")
    return table[:-1]


def index_row(table: NDArray[Any], number: int, num_voxels: int) -> IndexRow:
    """Return the row of a case; the arrays are views of the table.

    Args:
        table: of `open_index`.
        number: of the case.
        num_voxels: of its object.
    """
    row = table[number]
    return IndexRow(row["object_voxels_dhw"][:num_voxels], row["places_dhw"], row["values"])


def _key_of(image_sha256: Iterable[str]) -> bytes:
    return hashlib.sha256("".join(image_sha256).encode()).digest()


def _runs(shown: NDArray[np.bool_]) -> Runs:
    """Return where a row of flags is set."""
    edges = np.flatnonzero(np.diff(shown, prepend=False, append=False)).tolist()
    return tuple(zip(edges[::2], edges[1::2], strict=True))
