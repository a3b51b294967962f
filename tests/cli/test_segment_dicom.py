"""`clickvol segment` on a DICOM series, with the mask as DICOM."""

import shutil

import numpy as np
import pydicom
import pytest

from clickvol.io.dicom.masks import read_mask_file
from clickvol.io.formats import read_volume
from clickvol.io.mask_files import read_mask
from clickvol.predict.segmentation_request import SegmentationRequest
from reference.dicom_series import write_series

CLICK = "12,14,8"


@pytest.fixture
def series(tmp_path):
    """A CT of 16 slices, 3 mm apart."""
    return write_series(tmp_path / "ct", shape_dhw=(16, 28, 24))


@pytest.fixture
def segment(run, series, tmp_path, tiny_model):
    def run_it(*words, output="m.dcm", scan=series):
        return run(
            "segment", scan, "--click", CLICK, "-o", tmp_path / output, "--model", tiny_model, *words
        )  # fmt: skip

    return run_it


@pytest.mark.parametrize("kind", [None, "seg", "rtstruct"])
def test_the_mask_is_the_one_of_the_nifti_file(segment, series, tmp_path, kind):
    words = () if kind is None else ("--dicom", kind)
    assert segment(*words).code == 0
    assert segment(output="m.nii.gz").code == 0
    grid = read_volume(series).grid
    (result,) = read_mask_file(tmp_path / "m.dcm", grid)
    expected = read_mask(tmp_path / "m.nii.gz").array
    assert expected.any()
    np.testing.assert_array_equal(result.mask.array, expected)
    assert result.name == "tumour"
    dataset = pydicom.dcmread(tmp_path / "m.dcm")
    assert dataset.Modality == {"rtstruct": "RTSTRUCT"}.get(kind, "SEG")
    assert dataset.PatientID == "PID-4711"
    assert "tiny" in dataset.ManufacturerModelName


def test_deidentified(segment, tmp_path):
    assert segment("--dicom", "rtstruct", "--deidentify").code == 0
    dataset = pydicom.dcmread(tmp_path / "m.dcm")
    assert (dataset.PatientIdentityRemoved, dataset.PatientID) == ("YES", "")


def test_a_zip(segment, series, tmp_path):
    scan = shutil.make_archive(str(tmp_path / "scan"), "zip", series)
    assert segment(scan=scan).code == 0
    assert read_mask_file(tmp_path / "m.dcm", read_volume(series).grid)[0].mask.num_voxels > 0


def test_a_tilted_series(segment, tmp_path):
    tilted = write_series(tmp_path / "tilted", "tilted", (16, 28, 24))
    code, _, err = segment(scan=tilted)
    assert code == 0
    assert "tilted by 11.3 degrees" in err
    read_mask_file(tmp_path / "m.dcm", read_volume(tilted).grid)
    code, _, err = segment("--gantry-tilt", "refuse", scan=tilted)
    assert (code, "gantry was tilted" in err) == (2, True)
    code, _, err = segment("--gantry-tilt", "resample", scan=tilted)
    assert code == 2
    assert "does not lie on the slices of its DICOM series" in err
    code, _, err = segment("--gantry-tilt", "resample", scan=tilted, output="m.nii.gz")
    assert code == 0
    assert "resampled to a rectangular grid" in err


def test_mistakes_are_told_in_one_line_before_any_computing(segment, scan, tmp_path, monkeypatch):
    monkeypatch.setattr("clickvol.weights.load.load_model", None)  # calling it would crash
    for words, known, said in (
        ((), {"scan": scan}, "is not a DICOM series"),
        (("--dicom", "seg"), {"output": "m.nii.gz"}, "ends in .dcm, not 'm.nii.gz'"),
        (("--probability", tmp_path / "p.dcm"), {"scan": scan, "output": "m.nii.gz"}, "is not a DICOM series"),
        (("--compression", "9"), {}, "a .dcm file is not compressed"),
    ):
        code, out, err = segment(*words, **known)
        assert (code, out) == (2, "")
        assert said in err
        assert err.count("\n") == 1
    monkeypatch.setitem(__import__("sys").modules, "highdicom", None)
    code, _, err = segment()
    assert (code, 'pip install "clickvol[dicom]"' in err) == (2, True)
    assert not list(tmp_path.glob("*.dcm"))


def test_nothing_but_the_images_is_needed_for_a_structure_set(segment, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "highdicom", None)
    assert segment("--dicom", "rtstruct").code == 0


def test_the_format_of_a_job(tmp_path):
    def job(name, dicom=None):
        return SegmentationRequest(scan=tmp_path, clicks=(), mask=tmp_path / name, dicom=dicom).dicom_format

    assert job("m.nii.gz") is None
    assert job("m.DCM") == job("m.dcm", "seg") == "dicom-seg"
    assert job("m.dcm", "rtstruct") == "rtstruct"
