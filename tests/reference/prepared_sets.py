"""A small prepared data set of oblique MR scans."""

import nibabel
import numpy as np

from clickvol.datasets.preparation import PreparationPlan, prepare_data_set
from clickvol.datasets.splits import Split, splits_json

SHAPE_IJK = (6, 5, 4)


def affine_of(number):
    """An oblique, flipped, anisotropic grid, different for every scan."""
    turn = 0.1 * (number + 1)
    cos, sin = np.cos(turn), np.sin(turn)
    directions = np.array([[-cos, sin, 0], [-sin, -cos, 0], [0, 0, 1.0]])
    affine = np.eye(4)
    affine[:3, :3] = directions * [0.7, 0.9, 3.3]
    affine[:3, 3] = [101.3 - number, -55.7, 733.1]
    return affine


def scan_of(number, shape_ijk=SHAPE_IJK):
    """(i, j, k) int16, all values different, and its label: a bright block of value 2, and a 1 beside it."""
    scan = (np.arange(np.prod(shape_ijk)).reshape(shape_ijk) - 20 - 10 * number).astype(np.int16)
    label = np.zeros(shape_ijk, np.uint8)
    label[1:4, 1:3, 1:3] = 2
    label[0, 0, 0] = 1
    return scan, label


TWO_FOLDS = (
    Split(train=("case_0", "case_1"), val=("case_2",), test=("case_3", "case_4")),
    Split(train=("case_1", "case_2"), val=("case_0",), test=("case_3", "case_4")),
)


def prepare_lesions(folder, count=5, *, splits=TWO_FOLDS, scans=None, labels=None, suffixes=None):
    """Write scans with their labels, and prepare them with the tumour label 2; return the manifest.

    Args:
        folder: gets the source, "Lesions MR", and the prepared set, "prepared".
        count: of scans; those of `scan_of` where `scans` and `labels`, by number, have no other.
        splits: the folds.
        suffixes: of the scans' files, by number; ".nii.gz" if not said.
    """
    source = folder / "Lesions MR"
    for kind in ("images", "labels"):
        (source / kind).mkdir(parents=True)
    for number in range(count):
        scan, label = scan_of(number)
        suffix = (suffixes or {}).get(number, ".nii.gz")
        _write(source / "images" / f"case_{number}{suffix}", (scans or {}).get(number, scan), number)
        _write(source / "labels" / f"case_{number}.nii.gz", (labels or {}).get(number, label), number)
    (folder / "folds.json").write_text(splits_json(splits))
    return prepare_data_set(
        PreparationPlan(
            kind="folder",
            source=source,
            destination=folder / "prepared",
            tumour_label=2,
            modality="MR",
            splits=folder / "folds.json",
        )
    )


def with_folds(prepared, *splits):
    """The same set with other folds."""
    return prepared.model_copy(update={"splits": splits})


def _write(path, array, number):
    affine = affine_of(number)
    image = nibabel.Nifti1Image(array, affine)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    nibabel.save(image, path)
