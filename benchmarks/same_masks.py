"""Compare the masks that two trees of this package make on real scans, voxel for voxel.

    git worktree add ../before <commit>
    python benchmarks/same_masks.py ../before/src src --data ../shared/data

Every scan is segmented by `python -m clickvol segment` of both trees, in processes of their own: one click in
the middle of the tumour, then that click and one outside. One line per mask; the exit status is 1 when a voxel
differs.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel
import numpy as np
from scipy import ndimage

PATIENTS = ("008", "019", "024", "029", "042", "047")
SETS = ("Sarcoma_CT", "Sarcoma_MR")


def click_words(label_ijk: np.ndarray) -> list[list[str]]:
    """Return the clicks of two commands: the deepest voxel of the mask; that one and a voxel outside."""
    depth = ndimage.distance_transform_edt(np.pad(label_ijk > 0, 1))[1:-1, 1:-1, 1:-1]
    inside = np.unravel_index(int(depth.argmax()), depth.shape)
    outside = np.argwhere(ndimage.binary_dilation(label_ijk > 0, iterations=4) & (label_ijk == 0))[0]
    first = ["--click", ",".join(map(str, inside))]
    return [first, [*first, "--click", ",".join(map(str, outside)) + ":-"]]


def mask_of(source: Path, model: str, scan: Path, words: list[str], target: Path) -> np.ndarray:
    """Segment a scan with the package under `source`."""
    command = [sys.executable, "-m", "clickvol", "segment", str(scan), *words]
    command += ["--model", model, "-o", str(target)]
    subprocess.run(
        command, check=True, capture_output=True, env=os.environ | {"PYTHONPATH": str(source.resolve())}
    )
    return np.asarray(nibabel.load(target).dataobj)


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--patients", nargs="+", default=PATIENTS)
    parser.add_argument("--model", default="promise3d-small", help="whose weights both trees have")
    options = parser.parse_args()
    differing = 0
    for name in SETS:
        for patient in options.patients:
            scan = options.data / name / "imagesTr" / f"sts_{patient}.nii.gz"
            label = np.asarray(nibabel.load(options.data / name / "labelsTr" / scan.name).dataobj)
            for words in click_words(label):
                with tempfile.TemporaryDirectory() as folder:
                    before = mask_of(options.before, options.model, scan, words, Path(folder, "before.nii.gz"))
                    after = mask_of(options.after, options.model, scan, words, Path(folder, "after.nii.gz"))
                differing += int((before != after).sum())
                print(
                    f"{name} {patient} {len(words) // 2} click(s): {int(before.sum())} voxels before, "
                    f"{int((before != after).sum())} differ",
                    flush=True,
                )
    sys.exit(1 if differing else 0)


if __name__ == "__main__":
    main()
