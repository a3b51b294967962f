import csv
import shutil

import nibabel
import numpy as np
import pytest

from clickvol.adapt.intake import Intake, prepared_cases, read_source
from clickvol.errors import ConfigError
from clickvol.interactive.interactions import ClickInteraction
from clickvol.interactive.record import SessionRecord, header_of
from clickvol.io.formats import read_volume
from clickvol.predict.scan_predictor import segment
from clickvol.prompts.click import Click
from clickvol.weights.load import load_model
from reference.dicom_data_set import write_dicom_data_set

AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])


@pytest.fixture
def folder(tmp_path):
    """Three small scans in folders of other names than a data set's."""
    for name in ("scans", "masks"):
        (tmp_path / name).mkdir()
    for number in range(3):
        image = np.random.default_rng(number).normal(40, 20, (20, 20, 8)).astype(np.int16)
        image[0, 0, 0] = -1000
        label = np.zeros(image.shape, np.uint8)
        label[5:9, 5:9, 2:5] = 1 + number % 2
        for values, place in ((image, "scans"), (label, "masks")):
            nibabel.save(nibabel.Nifti1Image(values, AFFINE), tmp_path / place / f"s{number}.nii.gz")
    return tmp_path


def cases_of(folder, **words):
    return prepared_cases(read_source(Intake(**words)), folder / "work").cases


def test_two_folders(folder):
    cases = cases_of(folder, source=folder / "scans", labels=folder / "masks", label="all")
    assert [case.case_id for case in cases] == ["s0", "s1", "s2"]
    assert all(int(case.read_native()[1].sum()) == 48 for case in cases)


def test_several_labels_are_asked_for(folder):
    shutil.move(folder / "masks" / "s0.nii.gz", folder / "aside.nii.gz")
    both = nibabel.load(folder / "aside.nii.gz")
    values = np.asarray(both.dataobj).copy()
    values[0, 0, 0] = 2
    nibabel.save(nibabel.Nifti1Image(values, AFFINE), folder / "masks" / "s0.nii.gz")
    with pytest.raises(ConfigError, match=r"labels 1, 2; say which is the tumour with --label N"):
        cases_of(folder, source=folder / "scans", labels=folder / "masks")


def test_a_manifest_keeps_patients_together(folder):
    with (folder / "list.csv").open("w", newline="") as file:
        rows = [(f"scans/s{n}.nii.gz", f"masks/s{n}.nii.gz", "p" if n < 2 else "q") for n in range(3)]
        csv.writer(file).writerows([("scan", "label", "patient"), *rows])
    cases = cases_of(folder, source=folder / "list.csv", label="all")
    assert [case.case_id for case in cases] == ["001-s0", "002-s1", "003-s2"]
    assert [case.group for case in cases] == ["p", "p", "q"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scan,label\nscans/s0.nii.gz,\n", "row 1 .* has no label"),
        ("scan,label\nscans/s9.nii.gz,masks/s0.nii.gz\n", "row 1 .* names .*s9.nii.gz, which is not there"),
        ("scan,label\n", "has no row"),
    ],
)
def test_a_wrong_manifest_says_where(folder, text, message):
    (folder / "list.csv").write_text(text)
    with pytest.raises(ConfigError, match=message):
        cases_of(folder, source=folder / "list.csv")


@pytest.mark.parametrize("layout", ["labels/CASE.dcm", "labels/CASE/seg.dcm", "CASE/seg.dcm"])
def test_dicom_scans_have_their_masks_beside_or_within(tmp_path, layout):
    source = write_dicom_data_set(tmp_path / "set", ["a", "b"])
    (source / "dataset.json").unlink()
    for case in "ab" if layout != "labels/CASE.dcm" else "":
        mask = source / "labels" / f"{case}.dcm"
        target = source / layout.replace("CASE", case)
        moved = mask.rename(tmp_path / mask.name)
        if layout == "CASE/seg.dcm":
            shutil.move(source / "images" / case, source / case / "ct")
        target.parent.mkdir(exist_ok=True)
        moved.rename(target)
    if layout == "CASE/seg.dcm":
        shutil.rmtree(source / "images")
        shutil.rmtree(source / "labels")
    cases = cases_of(tmp_path, source=source, label=2, modality="CT")
    assert [case.group for case in cases] == ["a", "b"]
    assert [int(case.read_native()[1].sum()) for case in cases] == [64, 64]


def test_two_segmentations_of_a_patient_are_asked_about(tmp_path):
    source = write_dicom_data_set(tmp_path / "set", ["a", "b"])
    (tmp_path / "studies").mkdir()
    shutil.move(source / "labels", tmp_path / "studies" / "p")
    with pytest.raises(ConfigError, match=r"p holds 2 segmentations .* a\.dcm and b\.dcm; keep one"):
        read_source(Intake(source=tmp_path / "studies"))


def test_a_scan_is_no_manifest(folder):
    with pytest.raises(ConfigError, match=r"s0\.nii\.gz is no manifest; give the folder"):
        read_source(Intake(source=folder / "scans" / "s0.nii.gz"))


def test_scans_without_masks_are_told_where_masks_are_given(folder):
    with pytest.raises(ConfigError, match="or give scans and masks apart: SCANS --labels MASKS"):
        read_source(Intake(source=folder / "scans"))


def test_a_decathlon_folder(folder):
    (folder / "dataset.json").write_text(
        '{"name": "D", "modality": {"0": "CT"}, "labels": {"0": "background", "1": "tumour"}, "training": '
        '[{"image": "scans/s0.nii.gz", "label": "masks/s0.nii.gz"}]}'
    )
    (case,) = cases_of(folder, source=folder)
    assert (case.case_id, case.modality) == ("s0", "CT")


@pytest.fixture
def records(folder):
    """The record of a session with one click on the first scan."""
    volume = read_volume(folder / "scans" / "s0.nii.gz")
    header = header_of(volume, load_model(device="cpu"), modality=None, organ_mask=None)
    record = SessionRecord.begin(folder / "records", header)
    record.append(ClickInteraction.at(Click.at((7, 7, 3)).position, positive=True))
    record.close()
    return folder / "records"


def test_a_saved_session_is_a_mask(folder, records):
    (case,) = cases_of(folder, source=folder / "scans", labels=records)
    image, mask = case.read_native()
    assert np.array_equal(image.array, read_volume(folder / "scans" / "s0.nii.gz").array)
    answer = segment(image, [Click.at((7, 7, 3))], load_model(device="cpu"))
    assert np.array_equal(mask, answer.mask.array)
    (from_manifest,) = records.glob("*.jsonl")
    (folder / "list.csv").write_text(f"scan,label\nscans/s0.nii.gz,records/{from_manifest.name}\n")
    shutil.rmtree(folder / "work")
    (again,) = cases_of(folder, source=folder / "list.csv")
    assert np.array_equal(again.read_native()[1], mask)


def test_a_session_without_its_scan_is_named(folder, records):
    with pytest.raises(
        ConfigError, match=r"the scan of .*jsonl is not in .*records; give the folder of the scans"
    ):
        cases_of(folder, source=records)
