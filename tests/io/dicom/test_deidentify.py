"""What a de-identified file says, read byte for byte."""

import numpy as np
import pydicom
import pytest

from clickvol.io.dicom.masks import read_mask_file
from clickvol.io.dicom.reading.series import read_dicom
from clickvol.io.dicom.rtstruct import write_rtstruct
from clickvol.io.dicom.seg import write_dicom_seg
from clickvol.io.dicom.uids import remapped_uid
from clickvol.io.labelled_mask import LabelledMask
from clickvol.io.volume import Mask
from reference.dicom_modules import missing_attributes
from reference.dicom_series import PATIENT, slice_uid, write_enhanced, write_series

# What describes the pixels and not the patient.
HARMLESS = {"SpecificCharacterSet", "Modality", "PositionReferenceIndicator"}


@pytest.fixture(params=[write_dicom_seg, write_rtstruct], ids=["seg", "rtstruct"])
def write(request):
    return request.param


@pytest.fixture(params=[write_series, write_enhanced], ids=["classic", "enhanced"])
def scan(request, tmp_path):
    folder = request.param(tmp_path / "ct", "oblique")
    volume = read_dicom(folder)
    array = (np.random.default_rng(0).random(volume.array.shape) < 0.4).astype(np.uint8)
    return folder, [LabelledMask(name="Mr Müller's met", mask=Mask(array, volume.grid))]


def made(write, scan, tmp_path):
    folder, masks = scan
    write(masks, folder, tmp_path / "m.dcm", deidentify=True)
    return pydicom.dcmread(tmp_path / "m.dcm")


def test_nothing_of_the_patient_is_left_anywhere_in_the_file(write, scan, tmp_path):
    made(write, scan, tmp_path)
    content = (tmp_path / "m.dcm").read_bytes()
    secrets = [str(v) for k, v in PATIENT.items() if k not in HARMLESS and len(str(v)) > 3]
    assert len(secrets) > 20
    for secret in [*secrets, "Müller", "Jörg", "Gregory", "'s met", "1.2.999."]:
        for encoding in ("utf-8", "latin-1"):
            assert secret.encode(encoding) not in content, secret


def test_no_date_and_no_time_of_anything(write, scan, tmp_path):
    dated = {
        e.keyword: str(e.value)
        for e in made(write, scan, tmp_path).iterall()
        if e.VR in ("DA", "TM", "DT") and e.value
    }
    assert set(dated.values()) <= {"19000101", "000000"}


def test_uids_of_the_file_are_new_and_those_of_the_scan_remapped(write, scan, tmp_path):
    first, second = made(write, scan, tmp_path), made(write, scan, tmp_path)
    assert first.StudyInstanceUID == second.StudyInstanceUID == remapped_uid("1.2.999.1")
    assert first.FrameOfReferenceUID == second.FrameOfReferenceUID == remapped_uid("1.2.999.5")
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert first.SeriesInstanceUID != second.SeriesInstanceUID
    named = {str(e.value) for e in first.iterall() if e.keyword == "ReferencedSOPInstanceUID"}
    sources = {slice_uid(i) for i in range(5)}
    if "1.2.999.7" in {d.SOPInstanceUID for d in map(pydicom.dcmread, scan[0].iterdir())}:
        sources = {"1.2.999.7"}
    expected = {remapped_uid(uid) for uid in sources}
    assert named - {remapped_uid("1.2.999.1")} == expected


def test_it_says_that_and_how_it_was_done(write, scan, tmp_path):
    dataset = made(write, scan, tmp_path)
    assert dataset.PatientIdentityRemoved == "YES"
    assert "PS3.15 Basic Profile" in dataset.DeidentificationMethod
    (code,) = dataset.DeidentificationMethodCodeSequence
    assert (code.CodeValue, code.CodingSchemeDesignator) == ("113100", "DCM")
    assert (dataset.PatientName, dataset.PatientID, dataset.PatientSex) == ("", "", "")


def test_the_mask_is_still_there(write, scan, tmp_path):
    made(write, scan, tmp_path)
    mask = scan[1][0].mask
    (result,) = read_mask_file(tmp_path / "m.dcm", mask.grid)
    assert result.name == "object 1"
    np.testing.assert_array_equal(result.mask.array, mask.array)


def test_without_it_nothing_claims_to_be_deidentified(write, scan, tmp_path):
    write(scan[1], scan[0], tmp_path / "m.dcm")
    dataset = pydicom.dcmread(tmp_path / "m.dcm")
    assert "PatientIdentityRemoved" not in dataset
    assert dataset.PatientID == "PID-4711"


@pytest.mark.parametrize("deidentify", [False, True])
def test_a_file_has_all_that_the_standard_demands(write, scan, tmp_path, deidentify):
    write(scan[1], scan[0], tmp_path / "m.dcm", deidentify=deidentify)
    dataset = pydicom.dcmread(tmp_path / "m.dcm")
    assert missing_attributes(dataset) == []
    del dataset.PatientID, dataset.file_meta
    assert missing_attributes(dataset) == ["PatientID"]
