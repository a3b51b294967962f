"""Compare the format of prepared arrays with zarr 3 on real scans: size, time to write and to read.

    pip install zarr
    python benchmarks/stored_formats.py ../shared/data/Sarcoma_CT ../shared/data/Sarcoma_MR --scans 8

Every time is of the processor, on one thread. Size is that of scan and label over that of plain arrays, int16
or float32 and uint8. A patch has 64^3 voxels at a random place.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from clickvol.datasets.resampling import cache_values
from clickvol.datasets.stored_array import PIECE_VOXELS, StoredArray, write_stored
from clickvol.io.formats import read_volume

Read = Callable[[tuple[slice, ...]], np.ndarray]


def write_b2nd(array: np.ndarray, path: Path) -> Read:
    """Write as `data prepare` does."""
    write_stored(array, path)
    return lambda box: np.asarray(StoredArray.whole(path, "", array.shape, array.dtype)[box])


def write_zarr(array: np.ndarray, path: Path) -> Read:
    """Write one shard with a checksum per chunk."""
    chunks = tuple(min(PIECE_VOXELS, side) for side in array.shape)
    shards = tuple(-(-side // chunk) * chunk for side, chunk in zip(array.shape, chunks, strict=True))
    codecs = [BloscCodec(cname="zstd", clevel=5, shuffle="shuffle"), Crc32cCodec()]
    made = zarr.create_array(
        path, shape=array.shape, dtype=array.dtype, chunks=chunks, shards=shards, compressors=codecs
    )
    made[:] = array
    return lambda box: zarr.open_array(path, mode="r")[box]


def measure(name: str, write: Callable[[np.ndarray, Path], Read], pairs: list[tuple[np.ndarray, ...]]) -> str:
    """Return the line of a format."""
    with TemporaryDirectory() as folder:
        begun = time.process_time()
        reads = [
            [write(array, Path(folder) / f"{number}-{kind}.b2nd") for kind, array in enumerate(pair)]
            for number, pair in enumerate(pairs)
        ]
        written = (time.process_time() - begun) / len(pairs)
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        rng = np.random.default_rng(0)
        begun = time.process_time()
        for _ in range(10):
            for (image, _), (read, _) in zip(pairs, reads, strict=True):
                start = [int(rng.integers(max(1, side - 63))) for side in image.shape]
                read(tuple(slice(at, at + 64) for at in start))
        patch = (time.process_time() - begun) / (10 * len(pairs))
        begun = time.process_time()
        for (image, _), (read, _) in zip(pairs, reads, strict=True):
            if not np.array_equal(read((slice(None),) * 3), image):
                raise SystemExit(f"{name} does not give back what was written")
        whole = (time.process_time() - begun) / len(pairs)
    share = size / sum(array.nbytes for pair in pairs for array in pair)
    return (
        f"{name}: {share:.3f} of plain arrays, written in {written * 1e3:.0f} ms, "
        f"patch {patch * 1e3:.1f} ms, whole {whole * 1e3:.0f} ms"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--scans", type=int, default=8)
    args = parser.parse_args()
    zarr.config.set({"threading.max_workers": 1, "async.concurrency": 1})
    for folder in args.folders:
        pairs = []
        for path in sorted((folder / "imagesTr").glob("*.nii.gz"))[: args.scans]:
            image = read_volume(path).array
            label = read_volume(folder / "labelsTr" / path.name).array > 0
            pairs.append((cache_values(image, image), label.astype(np.uint8)))
        print(f"{folder.name}, {pairs[0][0].dtype}")
        for name, write in (("blosc2", write_b2nd), ("zarr 3", write_zarr)):
            print("  " + measure(name, write, pairs))


if __name__ == "__main__":
    main()
