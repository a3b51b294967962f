"""Compare how long `clickvol batch` of two trees of this package takes, one row per real scan.

    git worktree add ../before <commit>
    python benchmarks/batch_time.py ../before/src src --data ../shared/data --scans 12 --workers 2 --repeats 2

The trees take turns. One line per run: all seconds of the command, seconds until the first mask, seconds per
row after the first mask of every worker, seconds of all processors, and the machine's load. The exit status is
1 when a voxel differs.
"""

import argparse
import csv
import itertools
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel
import numpy as np

SETS = ("Sarcoma_CT", "Sarcoma_MR")


def write_manifest(path: Path, data: Path, num_scans: int) -> None:
    """Write a list of scans, alternately of each set, with a click near the middle of the mask."""
    scans = [sorted((data / name / "imagesTr").glob("*.nii.gz")) for name in SETS]
    chosen = [scan for pair in zip(*scans, strict=False) for scan in pair][:num_scans]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["scan", "click", "output"])
        for number, scan in enumerate(chosen):
            voxels = np.argwhere(np.asarray(nibabel.load(scan.parents[1] / "labelsTr" / scan.name).dataobj) > 0)
            click = voxels[((voxels - voxels.mean(axis=0)) ** 2).sum(axis=1).argmin()]
            writer.writerow([scan.absolute(), ",".join(map(str, click)), f"{number:03d}.nii.gz"])


def run_batch(source: Path, manifest: Path, folder: Path, workers: int) -> str:
    """Run the batch of a tree and return its line."""
    command = [sys.executable, "-m", "clickvol", "batch", str(manifest), "-o", str(folder)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began_at, began = time.time(), time.perf_counter()
    subprocess.run(
        [*command, "--workers", str(workers), "--quiet"],
        check=True,
        env=os.environ | {"PYTHONPATH": str(source.resolve())},
    )
    wall_seconds = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    written_at = sorted(path.stat().st_mtime for path in (folder / "records").glob("*.json"))
    per_row = (written_at[-1] - written_at[workers - 1]) / max(1, len(written_at) - workers)
    return (
        f"{wall_seconds:.1f} s, first mask after {written_at[0] - began_at:.1f} s, then {per_row:.2f} s "
        f"per row, {cpu_seconds:.1f} s of processors, load {os.getloadavg()[0]:.1f}"
    )


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--scans", type=int, default=12)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        manifest = Path(name, "list.csv")
        write_manifest(manifest, options.data, options.scans)
        folders = []
        for number, source in itertools.product(range(options.repeats), (options.before, options.after)):
            folders.append(Path(name, f"{len(folders)}"))
            line = run_batch(source, manifest, folders[-1], options.workers)
            print(f"{source} run {number + 1}: {line}", flush=True)
        masks = [[nibabel.load(p).get_fdata() for p in sorted(f.glob("*.nii.gz"))] for f in folders]
        differing = sum(int((a != b).sum()) for one in masks[1:] for a, b in zip(masks[0], one, strict=True))
    print(f"{differing} voxels differ")
    sys.exit(1 if differing else 0)


if __name__ == "__main__":
    main()
