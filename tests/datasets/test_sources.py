import json

import pytest

from clickvol.datasets.sources import list_source
from clickvol.errors import ConfigError
from reference.data_sets import write_msd
from reference.dicom_data_set import write_dicom_data_set


def _touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def _found(listing):
    return [case.case_id for case in listing.cases]


def _reasons(listing):
    return {case.id: case.reason for case in listing.rejected}


# -- MSD ----------------------------------------------------------------------------------------


def test_an_msd_folder_says_name_and_modality(tmp_path):
    listing = list_source("msd", write_msd(tmp_path / "set", ["b_2", "a_1"], modality="CT"))
    assert _found(listing) == ["b_2", "a_1"]
    assert (listing.name, listing.modality, listing.tumour_label) == ("Tiny", "CT", None)
    assert listing.notes == ()


@pytest.mark.parametrize(
    ("word", "modality"), [("CT", "CT"), ("MRI", "MR"), ("mr", "MR"), ("T2", None), ("PET", None)]
)
def test_what_msd_calls_a_modality(tmp_path, word, modality):
    assert list_source("msd", write_msd(tmp_path, ["a"], modality=word)).modality == modality


def test_a_task_of_the_decathlon_knows_its_tumour(tmp_path):
    folder = write_msd(tmp_path / "Task07_Pancreas", ["p"], labels={"0": "b", "1": "pancreas", "2": "cancer"})
    assert list_source("msd", folder).tumour_label == 2
    other = folder.rename(tmp_path / "Task99_Other")
    listing = list_source("msd", other)
    assert listing.tumour_label is None
    assert listing.notes == (
        "The labels hold 1 pancreas, 2 cancer; without --label all of them are the object.",
    )


def test_a_case_without_its_partner_is_rejected_not_fatal(tmp_path):
    folder = write_msd(tmp_path, ["a", "b", "c"])
    (folder / "labelsTr" / "b.nii.gz").unlink()
    (folder / "imagesTr" / "c.nii.gz").unlink()
    listing = list_source("msd", folder)
    assert _found(listing) == ["a"]
    assert _reasons(listing).keys() == {"b", "c"}
    assert "labelsTr/b.nii.gz is missing" in _reasons(listing)["b"]


def test_a_case_that_is_named_twice_counts_once(tmp_path):
    folder = write_msd(tmp_path, ["a", "b"])
    index = json.loads((folder / "dataset.json").read_text())
    index["training"].append(index["training"][0])
    (folder / "dataset.json").write_text(json.dumps(index))
    listing = list_source("msd", folder)
    assert _found(listing) == ["a", "b"]
    assert "second case of this name" in _reasons(listing)["a"]


# -- KiTS, LiTS, two folders --------------------------------------------------------------------


def test_kits_of_both_generations(tmp_path):
    _touch(
        tmp_path,
        "case_00001/imaging.nii.gz",
        "case_00001/aggregated_MAND_seg.nii.gz",
        "case_00000/imaging.nii.gz",
        "case_00000/segmentation.nii.gz",
        "case_00000/aggregated_MAND_seg.nii.gz",
        "case_00002/imaging.nii.gz",
        "case_00003/segmentation.nii.gz",
        "kits.json",
    )
    listing = list_source("kits", tmp_path)
    assert _found(listing) == ["case_00000", "case_00001"]
    assert [c.label.name for c in listing.cases] == [
        "segmentation.nii.gz",
        "aggregated_MAND_seg.nii.gz",
    ]
    assert _reasons(listing).keys() == {"case_00002", "case_00003"}
    assert (listing.modality, listing.tumour_label) == ("CT", 2)


def test_lits_in_sub_folders_in_the_order_of_its_numbers(tmp_path):
    _touch(
        tmp_path,
        "part1/volume-10.nii",
        "part1/segmentation-10.nii",
        "part2/volume-9.nii.gz",
        "labels/segmentation-9.nii.gz",
        "part1/volume-3.nii",
        "part1/segmentation-4.nii",
        "part1/volume-5.nii",
        "part2/volume-5.nii",
        "part2/segmentation-5.nii",
        "part2/notes-5.nii",
    )
    listing = list_source("lits", tmp_path)
    assert _found(listing) == ["volume-9", "volume-10"]
    reasons = _reasons(listing)
    assert "has no label" in reasons["volume-3"]
    assert "has no image" in reasons["volume-4"]
    assert "have one name" in reasons["volume-5"]
    assert (listing.modality, listing.tumour_label) == ("CT", 2)


def test_two_folders_are_paired_by_stem(tmp_path):
    _touch(
        tmp_path,
        "images/a.nrrd",
        "labels/a.nii.gz",
        "images/b_0000.nii.gz",
        "labels/b.nii.gz",
        "images/scan_0000.mha",
        "labels/scan_0000.nii",
        "images/dicom/slice1",
        "labels/dicom.nii.gz",
        "images/alone.nii",
        "images/.hidden.nii",
        "images/readme.txt",
        "images/d.nii",
        "images/d.nrrd",
        "labels/d.nii",
    )
    listing = list_source("folder", tmp_path)
    assert _found(listing) == ["a", "b", "dicom", "scan_0000"]
    assert listing.cases[[*_found(listing)].index("b")].image.name == "b_0000.nii.gz"
    assert _reasons(listing).keys() == {"alone", "d"}
    assert (listing.modality, listing.tumour_label) == (None, None)


def test_nnunets_raw_folders_are_two_folders(tmp_path):
    _touch(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")
    assert _found(list_source("folder", tmp_path)) == ["a"]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("msd", "dataset.json is missing"),
        ("kits", "no folder like case_00000"),
        ("lits", "no file like volume-0.nii"),
        ("folder", "no folders images and labels"),
    ],
)
def test_a_folder_of_another_layout_is_refused(tmp_path, kind, message):
    with pytest.raises(ConfigError, match=message):
        list_source(kind, tmp_path)
    with pytest.raises(ConfigError, match="is not a folder"):
        list_source(kind, tmp_path / "gone")


def test_two_empty_folders_are_refused(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    with pytest.raises(ConfigError, match="holds no case"):
        list_source("folder", tmp_path)


@pytest.mark.parametrize("kind", ["folder", "msd"])
def test_series_and_labels_as_dicom(tmp_path, kind):
    listing = list_source(kind, write_dicom_data_set(tmp_path / "set", ["a", "b"]))
    assert [(c.case_id, c.image.name, c.label.name) for c in listing.cases] == [
        ("a", "a", "a.dcm"),
        ("b", "b", "b.dcm"),
    ]
    assert listing.rejected == ()


def test_a_single_dicom_file_is_no_image(tmp_path):
    _touch(tmp_path, "images/a.dcm", "images/b.nii", "labels/a.dcm", "labels/b.dcm")
    listing = list_source("folder", tmp_path)
    assert _found(listing) == ["b"]
    assert "has no image" in _reasons(listing)["a"]
