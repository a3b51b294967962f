import json

import numpy as np
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


def _ids(listing):
    return [case.case_id for case in listing.cases]


def _reasons(listing):
    return {case.case_id: case.reason for case in listing.rejected}


# -- MSD ----------------------------------------------------------------------------------------


def test_an_msd_folder_says_name_and_modality(tmp_path):
    listing = list_source("msd", write_msd(tmp_path / "set", ["b_2", "a_1"], modality="CT"))
    assert _ids(listing) == ["b_2", "a_1"]
    assert (listing.name, listing.modality, listing.published) == ("Tiny", "CT", None)
    assert listing.labels == {1: "tumour"}
    assert listing.cases[0].image == tmp_path / "set" / "imagesTr" / "b_2.nii.gz"
    assert listing.cases[0].label == tmp_path / "set" / "labelsTr" / "b_2.nii.gz"


@pytest.mark.parametrize(
    ("word", "modality"), [("CT", "CT"), ("MRI", "MR"), ("mr", "MR"), ("T2", None), ("PET", "PT")]
)
def test_what_msd_calls_a_modality(tmp_path, word, modality):
    assert list_source("msd", write_msd(tmp_path, ["a"], modality=word)).modality == modality


def test_a_task_of_the_decathlon_knows_its_constants_and_its_labels(tmp_path):
    folder = write_msd(tmp_path / "Task07_Pancreas", ["p"], labels={"0": "b", "1": "pancreas", "2": "cancer"})
    listing = list_source("msd", folder)
    assert (listing.published, listing.label_names) == ("pancreas", "1 pancreas, 2 cancer")
    other = folder.rename(tmp_path / "Task99_Other")
    assert list_source("msd", other).published is None


@pytest.mark.parametrize(
    "text",
    ["{not json", "[]", "{}", '{"training": 3}', '{"training": [{"image": "a"}]}', '{"training": ["a"]}'],
)
def test_an_index_of_another_form_is_refused_in_one_line(tmp_path, text):
    (tmp_path / "dataset.json").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"dataset\.json is not the index") as caught:
        list_source("msd", tmp_path)
    assert "\n" not in str(caught.value)


def test_a_case_without_its_partner_is_rejected_not_fatal(tmp_path):
    folder = write_msd(tmp_path, ["a", "b", "c"])
    (folder / "labelsTr" / "b.nii.gz").unlink()
    (folder / "imagesTr" / "c.nii.gz").unlink()
    listing = list_source("msd", folder)
    assert _ids(listing) == ["a"]
    assert _reasons(listing).keys() == {"b", "c"}
    assert "labelsTr/b.nii.gz is missing" in _reasons(listing)["b"]


def test_a_case_that_is_named_twice_counts_once(tmp_path):
    folder = write_msd(tmp_path, ["a", "b"])
    index = json.loads((folder / "dataset.json").read_text())
    index["training"].append(index["training"][0])
    (folder / "dataset.json").write_text(json.dumps(index))
    listing = list_source("msd", folder)
    assert _ids(listing) == ["a", "b"]
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
    assert _ids(listing) == ["case_00000", "case_00001"]
    assert [c.label.name for c in listing.cases] == [
        "segmentation.nii.gz",
        "aggregated_MAND_seg.nii.gz",
    ]
    assert _reasons(listing).keys() == {"case_00002", "case_00003"}
    assert (listing.modality, listing.published) == ("CT", "kits")


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
    assert _ids(listing) == ["volume-9", "volume-10"]
    reasons = _reasons(listing)
    assert "has no label" in reasons["volume-3"]
    assert "has no image" in reasons["volume-4"]
    assert "have one name" in reasons["volume-5"]
    assert (listing.modality, listing.published) == ("CT", "lits")


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
    assert _ids(listing) == ["a", "b", "dicom", "scan_0000"]
    assert listing.cases[[*_ids(listing)].index("b")].image.name == "b_0000.nii.gz"
    assert _reasons(listing).keys() == {"alone", "d"}
    assert (listing.modality, listing.published, listing.labels) == (None, None, {})


def test_nnunets_raw_folders_are_two_folders(tmp_path):
    _touch(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")
    (tmp_path / "dataset.json").write_text(
        '{"labels": {"background": 0, "liver": 1, "both": [1, 2], "tumour": 2}}'
    )
    listing = list_source("folder", tmp_path)
    assert _ids(listing) == ["a"]
    assert listing.labels == {1: "liver", 2: "tumour"}


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


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("msd", "Task10/dataset.json"),
        ("kits", "data/case_00000/imaging.nii.gz"),
        ("kits", "kits19/data/case_00000/imaging.nii.gz"),
        ("folder", "Dataset501/labelsTr/a.nii.gz"),
    ],
)
def test_the_folder_above_the_data_set_is_answered_with_the_right_one(tmp_path, kind, file):
    _touch(tmp_path, file)
    parts = file.split("/")
    wanted = tmp_path.joinpath(*parts[: -1 if kind == "msd" else -2])
    with pytest.raises(ConfigError, match=f"{wanted} has it, so give that folder"):
        list_source(kind, tmp_path)


@pytest.mark.parametrize("name", ["kits.zip", "Task10_Colon.tar", "data.tar.gz"])
def test_an_archive_must_be_unpacked(tmp_path, name):
    _touch(tmp_path, name)
    with pytest.raises(ConfigError, match="is an archive; unpack it"):
        list_source("kits", tmp_path / name)


def test_every_class_of_the_challenges_files_is_a_case(tmp_path):
    labels = np.zeros((3, 4, 5), np.uint8)
    labels[0, 0, 0], labels[2, 3, 4] = 3, 1
    scan = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    np.savez(tmp_path / "CT_b.npz", imgs=scan, gts=labels, spacing=np.array([1.0, 1, 2]))
    np.savez(tmp_path / "CT_a.npz", imgs=scan, spacing=np.array([1.0, 1, 2]))
    listing = list_source("npz", tmp_path)
    assert [(c.case_id, c.tumour_label, c.group) for c in listing.cases] == [
        ("CT_b-class1", 1, "CT_b"),
        ("CT_b-class3", 3, "CT_b"),
    ]
    assert _reasons(listing).keys() == {"CT_a"}
    assert "has no array 'gts'" in _reasons(listing)["CT_a"]
    assert listing.modality == "MR"


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
    assert _ids(listing) == ["b"]
    assert "has no image" in _reasons(listing)["a"]
