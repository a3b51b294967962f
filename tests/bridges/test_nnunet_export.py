"""What nnU-Net is given: the scans of the source to the bit, labels 0 and 1, and our split."""

import json
import shutil

import nibabel
import numpy as np
import pytest
import SimpleITK

from clickvol.bridges.nnunet_export import export_dataset
from clickvol.datasets.splits import Split
from clickvol.errors import ConfigError
from reference.prepared_sets import affine_of, scan_of, with_folds


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "nnUNet_raw"
    folder.mkdir()
    return folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_files_are_those_of_the_fold(prepared, raw):
    dataset = export_dataset(prepared, raw, fold=0)
    assert dataset.name == "Dataset501_LesionsMR"
    assert dataset.folder == raw / "Dataset501_LesionsMR"
    assert names(dataset.folder) == ["dataset.json", "imagesTr", "imagesTs", "labelsTr"]
    assert names(dataset.folder / "imagesTr") == [f"case_{n}_0000.nii.gz" for n in (0, 1, 2)]
    assert names(dataset.folder / "labelsTr") == [f"case_{n}.nii.gz" for n in (0, 1, 2)]
    assert names(dataset.folder / "imagesTs") == [f"case_{n}_0000.nii.gz" for n in (3, 4)]
    assert dataset.test_ids == ("case_3", "case_4")
    assert dataset.splits == [{"train": ["case_0", "case_1"], "val": ["case_2"]}]


def test_the_other_fold(prepared, raw):
    dataset = export_dataset(prepared, raw, fold=1)
    assert dataset.splits == [{"train": ["case_1", "case_2"], "val": ["case_0"]}]


def test_dataset_json_is_what_nnunet_reads(prepared, raw):
    dataset = export_dataset(prepared, raw, fold=0)
    assert json.loads((dataset.folder / "dataset.json").read_text()) == {
        "name": "Lesions MR",
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "tumour": 1},
        "numTraining": 3,
        "file_ending": ".nii.gz",
    }


def test_a_ct_is_called_ct(prepared, raw):
    cases = tuple(case.model_copy(update={"modality": "CT"}) for case in prepared.cases)
    dataset = export_dataset(prepared.model_copy(update={"cases": cases}), raw, fold=0)
    content = json.loads((dataset.folder / "dataset.json").read_text())
    assert content["channel_names"] == {"0": "CT"}


def test_a_scan_is_the_same_file_as_in_the_prepared_set(prepared, raw):
    dataset = export_dataset(prepared, raw, fold=0)
    for case, folder in zip(prepared.cases, ["imagesTr"] * 3 + ["imagesTs"] * 2, strict=True):
        native = case.folder / "cases" / case.native_image.name
        assert (dataset.folder / folder / f"{case.case_id}_0000.nii.gz").samefile(native)


def test_a_scan_of_another_format_has_the_same_voxels_and_grid(prepared, raw):
    dataset = export_dataset(prepared, raw, fold=0)
    written = nibabel.load(dataset.folder / "imagesTs" / "case_4_0000.nii.gz")
    assert written.get_data_dtype() == np.int16
    np.testing.assert_array_equal(np.asarray(written.dataobj), scan_of(4)[0])
    np.testing.assert_allclose(written.affine, affine_of(4), rtol=1e-6)


def test_without_links_the_scan_is_copied(prepared, raw, monkeypatch):
    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", refuse)
    dataset = export_dataset(prepared, raw, fold=0)
    written = dataset.folder / "imagesTr" / "case_1_0000.nii.gz"
    assert not written.samefile(prepared.cases[1].folder / "cases" / "case_1.native_image.nii.gz")
    np.testing.assert_array_equal(np.asarray(nibabel.load(written).dataobj), scan_of(1)[0])


def test_the_label_is_the_tumour_alone_on_the_grid_of_its_scan_as_itk_sees_it(prepared, raw):
    dataset = export_dataset(prepared, raw, fold=0)
    for number in (0, 1, 2):
        path = dataset.folder / "labelsTr" / f"case_{number}.nii.gz"
        label = nibabel.load(path)
        assert label.get_data_dtype() == np.uint8
        np.testing.assert_array_equal(np.asarray(label.dataobj), scan_of(number)[1] == 2)
        scan = SimpleITK.ReadImage(str(dataset.folder / "imagesTr" / f"case_{number}_0000.nii.gz"))
        mask = SimpleITK.ReadImage(str(path))
        assert mask.GetOrigin() == scan.GetOrigin()
        assert mask.GetSpacing() == scan.GetSpacing()
        assert mask.GetDirection() == scan.GetDirection()


def test_a_complete_export_stays_and_an_interrupted_one_is_finished(prepared, raw):
    cases = []
    dataset = export_dataset(prepared, raw, fold=0, on_case=cases.append)
    assert cases == [f"case_{n}" for n in range(5)]
    export_dataset(prepared, raw, fold=0, on_case=cases.append)
    assert len(cases) == 5
    (dataset.folder / "dataset.json").unlink()
    shutil.rmtree(dataset.folder / "imagesTs")
    assert export_dataset(prepared, raw, fold=0, on_case=cases.append) == dataset
    assert len(cases) == 10
    assert len(names(dataset.folder / "imagesTs")) == 2


def test_validation_scans_may_be_the_test_scans(prepared, raw):
    split = Split(train=("case_0",), val=("case_1",), test=("case_1",))
    dataset = export_dataset(with_folds(prepared, split), raw, fold=0)
    assert names(dataset.folder / "imagesTr") == ["case_0_0000.nii.gz", "case_1_0000.nii.gz"]
    assert names(dataset.folder / "imagesTs") == ["case_1_0000.nii.gz"]


def test_mixed_modalities_are_refused(prepared, raw):
    cases = (prepared.cases[0].model_copy(update={"modality": "CT"}), *prepared.cases[1:])
    with pytest.raises(ConfigError, match="mixes CT and MR, but nnU-Net normalises one modality"):
        export_dataset(prepared.model_copy(update={"cases": cases}), raw, fold=0)
    assert names(raw) == []


@pytest.mark.parametrize("missing", ["train", "val", "test"])
def test_an_empty_part_is_refused(prepared, raw, missing):
    parts = {"train": ("case_0",), "val": ("case_1",), "test": ("case_2",)} | {missing: ()}
    with pytest.raises(ConfigError, match=f"the part '{missing}' of Lesions MR is empty"):
        export_dataset(with_folds(prepared, Split(**parts)), raw, fold=0)


def test_the_source_is_not_needed_but_the_prepared_scan_is(prepared, raw, tmp_path):
    shutil.rmtree(tmp_path / "Lesions MR")
    (prepared.cases[1].folder / "cases" / "case_1.native_image.nii.gz").unlink()
    with pytest.raises(ConfigError, match=r"case_1.native_image.nii.gz is missing"):
        export_dataset(prepared, raw, fold=0)
