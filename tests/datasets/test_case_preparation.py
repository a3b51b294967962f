import os
import re

import nibabel
import numpy as np
import pytest

from clickvol.datasets.case_preparation import (
    CaseOptions,
    SeveralLabelsError,
    prepare_case,
    read_foreground_sample,
)
from clickvol.datasets.prepared import LabelledCase, RejectedCase
from clickvol.datasets.sources import CaseFiles
from reference.data_sets import (
    AFFINE_IJK,
    SHAPE_IJK,
    image_ijk,
    label_ijk,
    write_nifti,
)

ANY = CaseOptions(tumour_label=None, spacing_dhw_mm=None, volume_index=None)


@pytest.fixture
def make(tmp_path):
    """Write a case, of two affines where they are given, and prepare it; return what came out."""
    cases = tmp_path / "set" / "cases"
    cases.mkdir(parents=True)

    def run(image=None, label=None, options=ANY, *, reuse=True, affines=(AFFINE_IJK, AFFINE_IJK)):
        source = CaseFiles("a", tmp_path / "a.nii", tmp_path / "a_label.nii")
        paths = (source.image, source.label)
        for path, array, affine in zip(paths, (image, label), affines, strict=True):
            if array is not None:
                write_nifti(array, path, affine)
        return prepare_case(source, cases, options, reuse=reuse)

    return run


def _load(tmp_path, case, kind):
    volume, label = case.model_copy(update={"folder": tmp_path / "set"}).open_arrays()
    return np.asarray(volume.array if kind == "image" else label)


def test_native_arrays_are_those_of_the_files_in_dhw_order(make, tmp_path):
    image, label = image_ijk(), label_ijk(3)
    case = make(image, label)
    assert isinstance(case, LabelledCase)
    kept = _load(tmp_path, case, "image")
    assert kept.dtype == np.int16
    assert np.array_equal(kept, image.T)
    assert np.array_equal(_load(tmp_path, case, "label"), (label > 0).T.astype(np.uint8))
    assert case.shape_dhw == case.native_shape_dhw == SHAPE_IJK[::-1]
    assert case.spacing_dhw_mm == (2, 1, 1)
    assert np.allclose(case.grid().affine_ijk_ras_mm, AFFINE_IJK)
    assert case.tumour_ml == pytest.approx(np.count_nonzero(label) * 2 / 1000)
    assert (case.group, case.modality) == ("a", "CT")
    assert case.source_image.bytes == (tmp_path / "a.nii").stat().st_size
    assert (read_foreground_sample(tmp_path / "set" / "cases", "a") == 100).all()


def test_a_tumour_label_takes_that_value_alone(make, tmp_path):
    label = label_ijk(1)
    label[5, 4, 3] = 2
    case = make(image_ijk(), label, CaseOptions(tumour_label=2, spacing_dhw_mm=None, volume_index=None))
    assert np.argwhere(_load(tmp_path, case, "label")).tolist() == [[3, 4, 5]]
    assert case.tumour_label == 2


def test_a_case_is_resampled_once_on_one_grid(make, tmp_path):
    options = CaseOptions(tumour_label=None, spacing_dhw_mm=(1.0, 1.0, 1.0), volume_index=None)
    case = make(image_ijk(), label_ijk(), options)
    i, j, k = SHAPE_IJK
    assert case.shape_dhw == (2 * k, j, i)
    assert _load(tmp_path, case, "image").shape == _load(tmp_path, case, "label").shape
    inside = np.argwhere(_load(tmp_path, case, "label"))
    assert inside.min(axis=0).tolist() == [4, 2, 3]
    assert inside.max(axis=0).tolist() == [11, 6, 7]
    assert case.native_shape_dhw == (k, j, i)
    # The object keeps its volume, which is told of the native mask.
    assert len(inside) * 1e-3 == pytest.approx(case.tumour_ml)


def test_a_scan_in_fractions_stays_in_fractions(make, tmp_path):
    image = image_ijk(dtype=np.float32) / 3
    kept = _load(tmp_path, make(image, label_ijk()), "image")
    assert kept.dtype == np.float32
    assert np.allclose(kept, image.T, rtol=2**-11, atol=0)
    assert not kept.view(np.uint32).reshape(-1)[0] % 2**13


# -- what is kept as it came ----------------------------------------------------------------------


def _native(tmp_path, kind="image"):
    return tmp_path / "set" / "cases" / f"a.native_{kind}.nii.gz"


@pytest.fixture
def compressed(tmp_path):
    write_nifti(image_ijk(), tmp_path / "a.nii.gz")
    label = label_ijk(2)
    label[0, 0, 0] = 1
    write_nifti(label, tmp_path / "a_label.nii.gz")
    (tmp_path / "set" / "cases").mkdir(parents=True)
    return CaseFiles("a", tmp_path / "a.nii.gz", tmp_path / "a_label.nii.gz")


def test_a_compressed_nifti_is_linked_and_outlives_the_source(compressed, tmp_path):
    options = CaseOptions(tumour_label=2, spacing_dhw_mm=(4.0, 4.0, 4.0), volume_index=None)
    case = prepare_case(compressed, tmp_path / "set" / "cases", options, reuse=True)
    assert _native(tmp_path).samefile(compressed.image)
    assert _native(tmp_path, "label").samefile(compressed.label)
    compressed.image.unlink()
    compressed.label.unlink()
    volume, mask = case.read_native()
    assert np.array_equal(volume.array, image_ijk().T)
    assert np.array_equal(mask, (label_ijk() > 0).T)
    assert np.argwhere(case.read_native_organ().array != mask).tolist() == [[0, 0, 0]]


def test_where_there_are_no_links_it_is_copied(compressed, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", refuse)
    prepare_case(compressed, tmp_path / "set" / "cases", ANY, reuse=True)
    assert not _native(tmp_path).samefile(compressed.image)
    assert _native(tmp_path).read_bytes() == compressed.image.read_bytes()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.uint32, np.float32, np.float64])
def test_another_format_keeps_every_value_and_the_grid(make, tmp_path, dtype):
    image = np.clip(image_ijk(), 0, 200).astype(dtype)
    case = make(image, label_ijk(3))
    volume, _ = case.read_native()
    assert np.array_equal(volume.array, image.T)
    assert np.array_equal(volume.grid.affine_ijk_ras_mm, AFFINE_IJK)
    assert np.array_equal(nibabel.load(_native(tmp_path, "label")).get_fdata(), label_ijk(3))


# -- what is rejected ---------------------------------------------------------------------------


def _nan():
    image = image_ijk(dtype=np.float32)
    image[0, 0, :2] = np.nan, np.inf
    return image


def _shifted():
    affine = AFFINE_IJK.copy()
    affine[0, 3] += 1
    return affine


def _scaled(factor):
    return np.diag([factor, factor, factor, 1]) @ AFFINE_IJK


SAME = (AFFINE_IJK, AFFINE_IJK)


@pytest.mark.parametrize(
    ("image", "label", "affines", "reason"),
    [
        (_nan(), label_ijk(), SAME, "holds voxels that are no numbers: 2 voxels"),
        (image_ijk(), label_ijk()[:-1], SAME, "does not lie on the grid"),
        (image_ijk(), label_ijk(), (AFFINE_IJK, _shifted()), "does not lie on the grid"),
        (
            image_ijk(),
            np.zeros(SHAPE_IJK, np.uint8),
            SAME,
            "the label cannot be used: .*every voxel is 0",
        ),
        (np.zeros(SHAPE_IJK, np.int16), label_ijk(), SAME, "empty scan"),
        (np.stack([image_ijk()] * 3, -1), label_ijk(), SAME, r"is 4D .*--volume N"),
        (
            image_ijk(),
            label_ijk(),
            (_scaled(1000), _scaled(1000)),
            r"voxels of 2000 x 1000 x 1000 mm; 0\.05 to 20 mm is expected",
        ),
        (
            image_ijk(),
            label_ijk(),
            (_scaled(0.001), _scaled(0.001)),
            r"voxels of 0\.002 x 0\.001 x 0\.001 mm",
        ),
    ],
)
def test_a_bad_case_is_rejected_with_one_line(make, image, label, affines, reason, tmp_path):
    rejected = make(image, label, affines=affines)
    assert isinstance(rejected, RejectedCase)
    assert rejected.case_id == "a"
    assert re.search(reason, rejected.reason), rejected.reason
    assert "\n" not in rejected.reason
    assert list((tmp_path / "set" / "cases").iterdir()) == []


def test_a_label_without_the_tumour_is_rejected(make):
    options = CaseOptions(tumour_label=2, spacing_dhw_mm=None, volume_index=None)
    assert "has no voxel of value 2: there is no object" in make(image_ijk(), label_ijk(1), options).reason


def test_a_label_that_leans_half_a_millimetre_away_in_the_far_corner_is_rejected(make):
    image = np.arange(2 * 2 * 460, dtype=np.int16).reshape(2, 2, 460)
    straight, leaning = np.diag([1.0, 2, 3, 1]), np.diag([1.0, 2, 3, 1])
    leaning[0, 2] += 1e-3
    rejected = make(image, (image == 7).astype(np.uint8), affines=(straight, leaning))
    assert "its corners lie up to 0.46 mm away" in rejected.reason


def test_several_labels_need_a_word(make):
    label = label_ijk(1)
    label[5, 4, 3] = 7
    asked = CaseOptions(tumour_label=None, refuse_several_labels=True, spacing_dhw_mm=None, volume_index=None)
    with pytest.raises(SeveralLabelsError, match=r"a_label\.nii holds the labels 1, 7; say which"):
        make(image_ijk(), label, asked)
    assert isinstance(make(image_ijk(), label_ijk(4), asked), LabelledCase)


def test_zero_spacing_and_damaged_files_are_rejected(make, tmp_path):
    write_nifti(label_ijk(), tmp_path / "a_label.nii")
    image = nibabel.Nifti1Image(image_ijk(), AFFINE_IJK)
    image.header["pixdim"][2] = 0
    raw = bytearray(image.header.binaryblock) + b"\0" * 4 + image_ijk().tobytes(order="F")
    (tmp_path / "a.nii").write_bytes(raw)
    assert "every spacing must be a number above zero" in make().reason
    (tmp_path / "a.nii").write_bytes(raw[:-100])
    assert isinstance(make(), RejectedCase)
    (tmp_path / "a.nii").write_bytes(b"no scan")
    assert "is not a NIfTI image" in make().reason


def test_one_volume_of_a_4d_scan(make, tmp_path):
    image = np.stack([image_ijk(50), image_ijk(60), image_ijk(70)], axis=-1)
    options = CaseOptions(tumour_label=None, spacing_dhw_mm=None, volume_index=1)
    case = make(image, label_ijk(), options)
    assert case.volume_index == 1
    assert np.array_equal(_load(tmp_path, case, "image"), image_ijk(60).T)
    native, _ = case.read_native()
    assert np.array_equal(native.array, image_ijk(60).T)


def test_an_object_that_resampling_loses_is_rejected(make):
    label = np.zeros(SHAPE_IJK, np.uint8)
    label[5, 4, 3] = 1
    options = CaseOptions(tumour_label=None, spacing_dhw_mm=(4.0, 4.0, 4.0), volume_index=None)
    assert (
        "its object of 1 voxels is lost in voxels of 4 x 4 x 4 mm" in make(image_ijk(), label, options).reason
    )


# -- what is there already -------------------------------------------------------------------------


def _stamp(tmp_path):
    return (tmp_path / "set" / "cases" / "a.image.b2nd").stat().st_mtime_ns


def test_a_finished_case_is_not_made_again(make, tmp_path):
    first = make(image_ijk(), label_ijk())
    stamp = _stamp(tmp_path)
    assert make() == first
    assert _stamp(tmp_path) == stamp
    make(reuse=False)
    assert _stamp(tmp_path) > stamp


def test_other_options_or_a_changed_file_makes_it_again(make, tmp_path):
    first = make(image_ijk(), label_ijk())
    coarse = make(options=CaseOptions(tumour_label=None, spacing_dhw_mm=(2.0, 2.0, 2.0), volume_index=None))
    assert coarse.shape_dhw != first.shape_dhw
    again = make()
    assert again == first
    changed = make(image_ijk(77))
    assert changed.image.sha256 != first.image.sha256
    os.utime(tmp_path / "a_label.nii", ns=(1, 1))
    stamp = _stamp(tmp_path)
    assert make() == changed
    assert _stamp(tmp_path) > stamp


def test_a_case_without_all_its_files_is_made_again(make, tmp_path):
    make(image_ijk(), label_ijk())
    for name in ("a.label.b2nd", "a.json", "a.foreground.npy", "a.index.npy", "a.native_label.nii.gz"):
        (tmp_path / "set" / "cases" / name).unlink()
        make()
        assert (tmp_path / "set" / "cases" / name).is_file()


def test_arrays_that_change_take_the_manifest_with_them(make, tmp_path):
    manifest = tmp_path / "set" / "prepared.json"
    make(image_ijk(), label_ijk())
    manifest.write_text("{}")
    make()
    assert manifest.is_file()
    make(image_ijk(55))
    assert not manifest.exists()
