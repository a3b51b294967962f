"""Time and memory of the shipped model on a synthetic CT of 512 x 512 x 300 voxels.

    python benchmarks/first_click.py [--threads 2] [--repeats 3] [--model promise3d-lesions]

Prints a Markdown table: each figure is the median of the repeats, each repeat a process of its own.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from clickvol.io.formats import write_volume
from clickvol.phantoms.phantom import make_phantom

SHAPE_DHW = (300, 512, 512)
SPACING_DHW_MM = (1.0, 0.8, 0.8)

# Seconds are counted from the start of the process, which the parent passes on.
MODEL_READY = """
import sys, time
from clickvol import load_model
load_model(sys.argv[1])
print(time.time() - float(sys.argv[2]))
"""

CLICKS = """
import json, sys, time
from clickvol import InteractiveSession, load_model, read_volume
from clickvol.geometry.coordinates import VoxelPoint
volume = read_volume(sys.argv[2])
ijk = tuple(json.loads(sys.argv[3]))
model = load_model(sys.argv[1])
started_at = time.perf_counter()
session = InteractiveSession(model)
session.set_volume(volume)
session.click(VoxelPoint.from_ijk(*ijk))
first = time.perf_counter() - started_at
further = []
for offset in (3, -4, 6):
    started_at = time.perf_counter()
    session.click(VoxelPoint.from_ijk(ijk[0] + offset, ijk[1] - offset, ijk[2]))
    further.append(time.perf_counter() - started_at)
background = (ijk[0] + 70, ijk[1], ijk[2])
started_at = time.perf_counter()
session.click(VoxelPoint.from_ijk(*background), positive=False)
further.append(time.perf_counter() - started_at)
print(json.dumps([first, max(further)]))
"""


def run(arguments: list[str], threads: int) -> str:
    """Run a process and return what it printed."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(arguments, check=True, capture_output=True, text=True, env=environment)
    return done.stdout


def measure_once(folder: Path, ijk: list[int], model: str, threads: int) -> dict[str, float]:
    """Return every figure of one repeat."""
    python = sys.executable
    ready = float(run([python, "-c", MODEL_READY, model, str(time.time())], threads))
    clicked = run([python, "-c", CLICKS, model, str(folder / "ct.nii.gz"), json.dumps(ijk)], threads)
    first, following = json.loads(clicked)
    place = ",".join(str(i) for i in ijk)
    mask = str(folder / "mask.nii.gz")
    command = [python, "-m", "clickvol", "segment", str(folder / "ct.nii.gz"), "--click", place]
    started_at = time.perf_counter()
    run([*command, "-o", mask, "--model", model, "--json", "--quiet"], threads)
    whole = time.perf_counter() - started_at
    return {
        "model ready, from process start (s)": ready,
        "first click (s)": first,
        "next click, slowest of four (s)": following,
        "whole `segment` command (s)": whole,
    }


def main() -> None:
    """Make the scan, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", default="promise3d-lesions")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        phantom = make_phantom(3, shape_dhw=SHAPE_DHW, spacing_dhw_mm=SPACING_DHW_MM, tumour_diameter_mm=80.0)
        write_volume(phantom.volume.array, phantom.volume.grid, folder / "ct.nii.gz")
        ijk = [int(v) for v in phantom.inside.to_ijk()]
        del phantom
        results = [measure_once(folder, ijk, options.model, options.threads) for _ in range(options.repeats)]
    # Largest process that this one waited for; the scan was made in this process, not in a child.
    peak_gb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9
    print(f"{options.threads} threads, {platform.processor() or platform.machine()}")
    print("\n| figure | median | worst |\n|---|---|---|")
    for figure in results[0]:
        values = [result[figure] for result in results]
        print(f"| {figure} | {statistics.median(values):.2f} | {max(values):.2f} |")
    print(f"| peak memory of any of these processes (GB) | {peak_gb:.2f} | |")


if __name__ == "__main__":
    main()
