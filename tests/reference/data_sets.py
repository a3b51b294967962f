"""Tiny data sets on disk, in the layouts of public ones."""

import json
from pathlib import Path

import nibabel
import numpy as np

SHAPE_IJK = (12, 10, 8)
AFFINE_IJK = np.array([[-1.0, 0, 0, 5], [0, -1.0, 0, 7], [0, 0, 2.0, -9], [0, 0, 0, 1]])
OBJECT_IJK = (slice(3, 8), slice(2, 7), slice(2, 6))


def image_ijk(value=100, dtype=np.int16, corner=-1000):
    """Air with a block of `value` where the object is; one voxel of the air tells scans apart."""
    array = np.full(SHAPE_IJK, -1000, dtype)
    array[1:-1, 1:-1] = 40
    array[OBJECT_IJK] = value
    array[0, 0, 0] = corner
    return array


def label_ijk(value=1, dtype=np.uint8):
    array = np.zeros(SHAPE_IJK, dtype)
    array[OBJECT_IJK] = value
    return array


def write_nifti(array_ijk, path: Path, affine_ijk=AFFINE_IJK) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array_ijk, affine_ijk), path)
    return path


def write_msd(folder: Path, ids, *, values=None, labels=None, modality="CT") -> Path:
    """An MSD folder; the object of case n has the value values[n], its label the value 1."""
    pairs = []
    for number, case_id in enumerate(ids):
        value = 100 if values is None else values[number]
        write_nifti(image_ijk(value, corner=-1000 + 20 * number), folder / "imagesTr" / f"{case_id}.nii.gz")
        write_nifti(label_ijk(), folder / "labelsTr" / f"{case_id}.nii.gz")
        pairs.append({"image": f"./imagesTr/{case_id}.nii.gz", "label": f"./labelsTr/{case_id}.nii.gz"})
    index = {
        "name": "Tiny",
        "modality": {"0": modality},
        "labels": labels or {"0": "background", "1": "tumour"},
        "training": pairs,
    }
    (folder / "dataset.json").write_text(json.dumps(index), encoding="utf-8")
    return folder
