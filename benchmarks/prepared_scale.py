"""What a prepared set of 10,000 scans costs: disk, start of training, random patches; and how `prepare` grows.

    python benchmarks/prepared_scale.py FOLDER [--cases 10000] [--rows 500 1000 2000]

Scans of 512 x 512 with 60 to 432 slices, as many as the Decathlon's sets have, are made and prepared; their
files are then linked under the names of all cases, so that the disk holds each once. A process of its own, with
at most 64 open files, begins to train on the set up to the first sample, reads random patches, and makes
samples. Rows of tiny scans are prepared in growing numbers. FOLDER must not exist, and holds up to 2 GB.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from clickvol.datasets.case_index import write_index
from clickvol.datasets.preparation import PreparationPlan, prepare_data_set
from clickvol.datasets.prepared import CASES_NAME, MANIFEST_NAME
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.formats import write_volume

SLICES = (60, 93, 150, 252, 432)
NUM_PATCHES = 300

CHILD = """
import json, random, resource, sys, time
from pathlib import Path
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
def peak_mb():
    # Not getrusage, which counts the process that started this one.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1000
first = time.perf_counter()
import numpy as np
import torch
from clickvol.datasets.device.patch_sampler import PatchSampler
from clickvol.datasets.device.scan_files import ScanFiles
from clickvol.datasets.labelled_volumes import read_labelled_volumes
from clickvol.datasets.sampling import PatchSampling
torch.set_num_threads(1)
imported = time.perf_counter()
cases = read_labelled_volumes(Path(sys.argv[1]), "train")
files = ScanFiles.of(cases, ["CT"] * len(cases), torch.device("cpu"))
sampler = PatchSampler(files, PatchSampling(), 64, seed=1)
sampler.batch([0])
opened, opened_cpu = time.perf_counter(), time.process_time()
peak = peak_mb()
rng = random.Random(0)
begun, cpu = time.perf_counter(), time.process_time()
for _ in range(int(sys.argv[2])):
    case = rng.choice(cases)
    start = [rng.randrange(max(1, side - 63)) for side in case.label.shape]
    box = tuple(slice(at, at + 64) for at in start)
    np.asarray(case.volume.array[box]), np.asarray(case.label[box])
count = int(sys.argv[2])
patch_ms = (time.perf_counter() - begun) / count * 1000
patch_cpu_ms = (time.process_time() - cpu) / count * 1000
begun, cpu = time.perf_counter(), time.process_time()
for first in range(1, 101, 4):
    sampler.batch(range(first, first + 4))
sample_ms, sample_cpu_ms = (time.perf_counter() - begun) * 10, (time.process_time() - cpu) * 10
print(json.dumps({
    "cases": len(cases),
    "import_seconds": imported - first,
    "open_seconds": opened - imported,
    "cpu_seconds_opened": opened_cpu,
    "peak_mb_opened": peak,
    "patch_ms": patch_ms,
    "patch_cpu_ms": patch_cpu_ms,
    "sample_ms": sample_ms,
    "sample_cpu_ms": sample_cpu_ms,
    "peak_mb": peak_mb(),
}))
"""


def body(slices: int, side: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return an elliptic body with the noise of CT in air, and a ball in it."""
    d, h, w = np.ogrid[-1 : 1 : slices * 1j, -1 : 1 : side * 1j, -1 : 1 : side * 1j]
    inside = (h / 0.6) ** 2 + (w / 0.8) ** 2 < 1
    noise = rng.standard_normal((slices, side, side), dtype=np.float32)
    image = np.where(inside, 40 + 15 * noise, -1000 + 8 * noise).astype(np.int16)
    ball = d**2 * (slices / side) ** 2 + (h - 0.2) ** 2 + (w - 0.3) ** 2 < 0.08**2
    return image, ball.astype(np.uint8)


def write_source(folder: Path, shapes: list[tuple[int, int]]) -> Path:
    """Write scans of so many slices and so large a side."""
    rng = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for number, (slices, side) in enumerate(shapes):
        image, label = body(slices, side, rng)
        grid = VolumeGrid(image.shape, np.diag([0.8, 0.8, 2.5, 1.0])[:, [2, 1, 0, 3]])
        write_volume(image, grid, folder / "images" / f"scan_{number:05}.nii.gz")
        write_volume(label, grid, folder / "labels" / f"scan_{number:05}.nii.gz")
    return folder


def prepare(source: Path, destination: Path) -> float:
    """Prepare a folder; return the seconds of the processor."""
    begun = time.process_time()
    prepare_data_set(
        PreparationPlan(kind="folder", source=source, destination=destination, modality="CT", tumour_label=1)
    )
    return time.process_time() - begun


def repeat(folder: Path, count: int) -> None:
    """Make a set of `count` cases from one of few, all of its files being links."""
    content = json.loads((folder / MANIFEST_NAME).read_text())
    few = content["cases"]
    files = ("image", "label", "native_image", "native_label")
    levels = {one["case_id"]: [*(folder / CASES_NAME).glob(f"{one['case_id']}.image_*.b2nd")] for one in few}
    cases = []
    for number in range(count):
        case = few[number % len(few)] | {"case_id": f"case_{number:05}", "group": f"case_{number:05}"}
        name = few[number % len(few)]["case_id"]
        for level in levels[name]:
            os.link(level, level.with_name(level.name.replace(name, case["case_id"])))
        for kind in files:
            new = case[kind]["name"].replace(few[number % len(few)]["case_id"], case["case_id"])
            os.link(folder / CASES_NAME / case[kind]["name"], folder / CASES_NAME / new)
            case[kind] = case[kind] | {"name": new}
        cases.append(case)
    content |= {
        "cases": cases,
        "splits": [{"train": [case["case_id"] for case in cases], "val": [], "test": []}],
    }
    (folder / MANIFEST_NAME).write_text(json.dumps(content, indent=1))
    rows = sorted((folder / CASES_NAME).glob("*.index.npy"))
    rows = [rows[number % len(rows)] for number in range(count)]
    write_index(rows, [case["image"]["sha256"] for case in cases], folder)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--rows", type=int, nargs="*", default=[500, 1000, 2000])
    args = parser.parse_args()
    args.folder.mkdir(parents=True)
    source = write_source(args.folder / "src", [(slices, 512) for slices in SLICES])
    voxels = sum(SLICES) * 512**2
    seconds = prepare(source, args.folder / "set")
    cases = args.folder / "set" / CASES_NAME
    kept = sum(path.stat().st_size for path in cases.glob("*.b2nd"))
    native = sum(path.stat().st_size for path in cases.glob("*.nii.gz"))
    each = kept / len(SLICES)
    print(f"{len(SLICES)} scans, {voxels / 1e6:.0f} M voxels: prepared in {seconds:.0f} s of one core")
    print(f"arrays {kept / 1e6:.0f} MB, {kept / (3 * voxels):.3f} of plain ones; .nii.gz {native / 1e6:.0f} MB")
    print(
        f"{args.cases} such: arrays {each * args.cases / 1e12:.2f} TB, prepared in "
        f"{seconds / len(SLICES) * args.cases / 3600:.0f} hours of one core"
    )
    repeat(args.folder / "set", args.cases)
    command = [sys.executable, "-c", CHILD, str(args.folder / "set"), str(NUM_PATCHES)]
    measured = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(json.dumps(measured, indent=1), flush=True)
    for count in args.rows:
        tiny = write_source(args.folder / f"rows{count}", [(8, 16)] * count)
        first = prepare(tiny, args.folder / f"set{count}")
        again = prepare(tiny, args.folder / f"set{count}")
        print(
            f"{count} tiny rows: {first / count * 1000:.1f} ms each, again {again / count * 1000:.2f} ms each"
        )
    shutil.rmtree(args.folder)


if __name__ == "__main__":
    main()
