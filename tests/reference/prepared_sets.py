"""Small prepared data sets, made without preparing: manifests of files that no program has resampled."""

import nibabel
import numpy as np

from clickvol.datasets.fingerprint import IntensityConstants
from clickvol.datasets.prepared import PreparedCase, PreparedSet, SourceFile
from clickvol.datasets.splits import Split

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


def write_case(folder, number, *, suffix=".nii.gz", scan=None, label=None):
    """Write one scan and its label; return the record of a prepared case."""
    made_scan, made_label = scan_of(number)
    scan = made_scan if scan is None else scan
    label = made_label if label is None else label
    affine = affine_of(number)
    paths = {}
    for kind, array in (("image", scan), ("label", label)):
        path = folder / f"{kind}_{number}{suffix if kind == 'image' else '.nii.gz'}"
        image = nibabel.Nifti1Image(array, affine)
        image.set_qform(affine, 1)
        image.set_sform(affine, 1)
        nibabel.save(image, path)
        paths[kind] = SourceFile(path=path, bytes=path.stat().st_size)
    shape = scan.shape[2::-1]
    return PreparedCase(
        id=f"case_{number}",
        group=f"case_{number}",
        modality="MR",
        volume_index=None if scan.ndim == 3 else 1,
        tumour_label=2,
        image_file="-",
        label_file="-",
        image_sha256="-",
        label_sha256="-",
        shape_dhw=shape,
        affine_ras_mm=tuple(tuple(row) for row in affine.tolist()),
        spacing_dhw_mm=(3.3, 0.9, 0.7),
        native_shape_dhw=shape,
        native_spacing_dhw_mm=(3.3, 0.9, 0.7),
        tumour_ml=1.0,
        **paths,
    )


def prepared_of(cases, splits, name="Lesions MR"):
    """A manifest as `clickvol data prepare` writes it, without the arrays that nnU-Net does not need."""
    constants = IntensityConstants(low=0, high=1, mean=0.5, deviation=0.2, source="fingerprint")
    return PreparedSet(
        name=name,
        kind="folder",
        constants=None,
        target_spacing_dhw_mm="native",
        seed=0,
        intensity={"MR": constants},
        splits=tuple(splits),
        cases=tuple(cases),
        rejected=(),
        notes=(),
        clickvol_version="0",
        content_hash="1f" * 32,
    )


TWO_FOLDS = (
    Split(train=("case_0", "case_1"), val=("case_2",), test=("case_3", "case_4")),
    Split(train=("case_1", "case_2"), val=("case_0",), test=("case_3", "case_4")),
)
