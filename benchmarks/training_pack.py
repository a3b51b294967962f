"""Write the sets that the shipped model is trained on as one file, small enough to carry to a bare machine.

    python benchmarks/training_pack.py --data ../shared/data -o runs/pack.zip

Values are normalised as for prediction and rounded to 64 steps (32 for lung nodules and MS lesions); sarcoma
scans with large tumours are averaged over 2 x 2 voxels in plane; every second head-and-neck scan is taken, and
every second held-out lung patient; `--every 12` takes of both, and of MS, one of twelve, so that the files and
a checkout fit into 64 MiB (`--held-out --every 8`: 18.5 and 2.9 MB). Left out are the lung nodules that the
set's README calls poorly calibrated.
`--held-out` writes what is never trained on: the six validation patients of the sarcoma sets, and every tenth
patient of the other sets. `--all-sarcoma` writes what is trained on and those six, for the folds of
`configs/splits/sarcoma-folds.json` (`train_on_gpu.py --fold`) and for a last model of all patients.

    python benchmarks/training_pack.py --data ../shared/data --marks CARD

writes into a model's card what such a pack holds (with the same --every), so that who scores the model on it
is warned: the beginnings of the SHA-256 of scans and of patients' ids, as `data prepare` and groups have them.
"""

import argparse
import hashlib
import json
import re
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import nibabel
import numpy as np

from clickvol.datasets.device.stored_scan import StoredScan, numbered_parts, to_steps, write_pack
from clickvol.preprocessing.intensity import wide_intensity_scale

SARCOMA_HELD_OUT = {"008", "019", "024", "029", "042", "047"}
MODALITIES = {
    "Sarcoma_CT": "CT",
    "Sarcoma_MR": "MR",
    "Sarcoma_PET": "PT",
    "LungNodule_CT": "CT",
    "HeadNeckOrgans_CT": "CT",
    "MSLesion_MR": "MR",
}
POORLY_CALIBRATED = frozenset(
    """
    0015_n00 0074_n00 0133_n00 0134_n01 0164_n10 0166_n00 0192_n02 0259_n00 0267_n00 0321_n00 0341_n01 0437_n01
    0448_n01 0450_n08 0466_n00 0473_n01 0491_n08 0510_n01 0510_n02 0609_n00 0649_n09 0663_n00 0705_n02 0741_n01
    0742_n04 0751_n00 0835_n01 0893_n00 0893_n02 0920_n00 0921_n04 0949_n00
    """.split()  # noqa: SIM905
)
# A longer tumour is never shown at less than about 2 mm.
LARGE_MM = 110.0


def patient_of(group: str, name: str) -> str:
    """Return what is the same for all scans of a patient."""
    return name.rsplit("_n", 1)[0] if group == "LungNodule_CT" else name.removeprefix("sts_")


def is_held_out(group: str, patient: str) -> bool:
    """Tell the patients that nobody trains on."""
    if group.startswith("Sarcoma"):
        return patient in SARCOMA_HELD_OUT
    return int(re.findall(r"\d+", patient)[-1]) % 10 == 7 and group != "MSLesion_MR"


def stored(group: str, path: Path) -> StoredScan | None:
    """Read, turn, normalise and round one case; None for one without an object."""
    name = path.name.removesuffix(".nii.gz")
    image = nibabel.as_closest_canonical(nibabel.load(path))
    label = nibabel.as_closest_canonical(nibabel.load(path.parents[1] / "labelsTr" / path.name))
    # (right, anterior, superior) -> (d, h, w)
    values = np.asarray(image.get_fdata(dtype=np.float32)).transpose(2, 1, 0)
    mask = np.asarray(label.dataobj).astype(np.uint8).transpose(2, 1, 0)
    spacing = np.array(image.header.get_zooms()[:3], dtype=float)[::-1]
    if not mask.any():
        return None
    if group == "MSLesion_MR":
        mask = numbered_parts(mask)
    low, high = np.argwhere(mask).min(axis=0), np.argwhere(mask).max(axis=0)
    if group in ("Sarcoma_CT", "Sarcoma_MR") and ((high - low + 1) * spacing).max() > LARGE_MM:
        values = pooled(values).mean(axis=(2, 4))
        mask = (pooled(mask).mean(axis=(2, 4)) >= 0.5).astype(np.uint8)
        spacing = spacing * [1, 2, 2]
    stride = max(1, int(np.cbrt(values.size / 200_000)))
    sample = values[tuple(slice(None, None, min(stride, max(1, n // 4))) for n in values.shape)].ravel()
    scale = wide_intensity_scale(MODALITIES[group], sample)
    d, h, w = spacing.tolist()
    image_steps = to_steps(scale.normalise(values), bits=5 if group in ("LungNodule_CT", "MSLesion_MR") else 6)
    return StoredScan(name, group, patient_of(group, name), (d, h, w), image_steps, mask)


def pooled(array: np.ndarray) -> np.ndarray:
    """(D, H, W) -> (D, H/2, 2, W/2, 2); a surplus row is cut off."""
    d, h, w = array.shape
    return array[:, : h // 2 * 2, : w // 2 * 2].reshape(d, h // 2, 2, w // 2, 2)


def files_of(
    data: Path, *, held_out: bool, every: int = 1, all_sarcoma: bool = False
) -> list[tuple[str, Path]]:
    """Return set and scan of every case of the wanted part; of sets other than sarcoma one of so many."""
    jobs = []
    for group in MODALITIES:
        in_group = []
        for path in sorted((data / group / "imagesTr").glob("*.nii.gz")):
            name = path.name.removesuffix(".nii.gz")
            if name.removeprefix("lidc_idri_") in POORLY_CALIBRATED:
                continue
            if group == "HeadNeckOrgans_CT" and int(name[-3:]) % 2 == int(not held_out):
                continue
            if held_out and group == "LungNodule_CT" and int(name[10:14]) % 20 == 17:
                continue
            is_wanted = is_held_out(group, patient_of(group, name)) == held_out
            if is_wanted or (all_sarcoma and group.startswith("Sarcoma")):
                in_group.append((group, path))
        jobs += in_group if group.startswith("Sarcoma") else in_group[::every]
    return jobs


def scans_of(jobs: list[tuple[str, Path]]) -> Iterator[StoredScan]:
    """Yield those cases, but for those without an object."""
    with ProcessPoolExecutor(2) as pool:
        yield from filter(None, pool.map(stored, *zip(*jobs, strict=True), chunksize=4))


def write_marks(card: Path, files: list[tuple[str, Path]]) -> None:
    """Add to a model's card by what scans and patients of these files are known (`datasets.prepared`)."""
    text = card.read_text(encoding="utf-8")
    scans = {hashlib.sha256(path.read_bytes()).hexdigest()[:16] for _, path in files}
    # A case is its own group where `data prepare` was told no groups.
    names = {path.name.removesuffix(".nii.gz") for _, path in files}
    names |= {name.rsplit("_n", 1)[0] for name in names if name.startswith("lidc")}
    patients = {hashlib.sha256(name.encode()).hexdigest()[:16] for name in names}
    for key, marks in (("training_scans", scans), ("training_patients", patients)):
        there = set(json.loads(text)[key])
        line = f'"{key}": {json.dumps(sorted(marks | there))}'
        text = re.sub(rf'"{key}": \[[^]]*\]', line, text)
        print(f"{card}: {key}, {len(marks - there)} added to {len(there)}")
    card.write_text(text, encoding="utf-8")


def main() -> None:
    """Write the pack, or the marks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    goal = parser.add_mutually_exclusive_group(required=True)
    goal.add_argument("-o", "--output", type=Path)
    goal.add_argument("--marks", type=Path, metavar="CARD")
    parser.add_argument("--held-out", action="store_true")
    parser.add_argument("--all-sarcoma", action="store_true")
    parser.add_argument("--every", type=int, default=1)
    options = parser.parse_args()
    files = files_of(
        options.data, held_out=options.held_out, every=options.every, all_sarcoma=options.all_sarcoma
    )
    if options.marks is not None:
        write_marks(options.marks, files)
        return
    write_pack(scans_of(files), options.output)
    print(f"{options.output}: {options.output.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
