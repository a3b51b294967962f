"""DICOM Segmentations, read back by highdicom and by pydicom, not by our reader."""

import highdicom.seg
import numpy as np
import pydicom
import pytest

from clickvol.errors import OutputError
from clickvol.io.dicom.reading.series import read_dicom
from clickvol.io.dicom.seg import write_dicom_seg
from clickvol.io.labelled_mask import LabelledMask
from clickvol.io.volume import Mask
from reference.dicom_series import PATIENT, SERIES, slice_uid, write_enhanced, write_series


def mask_on(volume, seed=0, density=0.2, name="tumour", **known):
    array = (np.random.default_rng(seed).random(volume.array.shape) < density).astype(np.uint8)
    array[0], array[2] = 0, 0  # slices without the object are left out of the file
    return LabelledMask(name=name, mask=Mask(array, volume.grid), **known)


def frames_by_position(path):
    """Return {(segment, position LPS mm): frame (H, W)}, from pydicom alone."""
    dataset = pydicom.dcmread(path)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    pixels = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
    result = {}
    for item, frame in zip(dataset.PerFrameFunctionalGroupsSequence, pixels, strict=True):
        holder = item if "SegmentIdentificationSequence" in item else shared
        number = holder.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        position = item.PlanePositionSequence[0].ImagePositionPatient
        result[(number, tuple(round(float(v), 6) for v in position))] = frame
    return result


def source_position(folder, uid):
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        if dataset.SOPInstanceUID == uid:
            return tuple(round(float(v), 6) for v in dataset.ImagePositionPatient)
    raise LookupError(uid)


@pytest.mark.parametrize("kind", list(SERIES))
def test_every_frame_lies_on_its_image(tmp_path, kind):
    folder = write_series(tmp_path / "ct", kind)
    volume = read_dicom(folder)
    one, other = mask_on(volume), mask_on(volume, seed=1, name="second")
    write_dicom_seg([one, other], folder, tmp_path / "seg.dcm")
    result = frames_by_position(tmp_path / "seg.dcm")
    stored = {
        round(float(volume.array[d, 0, 0])): d for d in range(5)
    }  # each slice is known by its first value
    expected = {}
    for index in range(5):
        plane = pydicom.dcmread(next(p for p in folder.iterdir() if _has(p, slice_uid(index))))
        d = stored[int(plane.pixel_array[0, 0]) - 1024]
        for number, labelled in ((1, one), (2, other)):
            if labelled.mask.array[d].any():
                position = source_position(folder, slice_uid(index))
                expected[(number, position)] = labelled.mask.array[d]
    assert result.keys() == expected.keys()
    for key, frame in expected.items():
        np.testing.assert_array_equal(result[key], frame)
    orientation = pydicom.dcmread(tmp_path / "seg.dcm").SharedFunctionalGroupsSequence[0]
    cosines = orientation.PlaneOrientationSequence[0].ImageOrientationPatient
    np.testing.assert_allclose([float(v) for v in cosines], SERIES[kind][0], atol=1e-9)


def _has(path, uid):
    return pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID == uid


def test_highdicom_finds_the_frames_by_the_images_they_refer_to(tmp_path):
    folder = write_series(tmp_path / "ct", "oblique")
    volume = read_dicom(folder)
    one, other = mask_on(volume, density=0.6), mask_on(volume, seed=1, name="second", density=0.6)
    write_dicom_seg([one, other], folder, tmp_path / "seg.dcm")
    seg = highdicom.seg.segread(tmp_path / "seg.dcm")
    uids = [slice_uid(index) for index in range(5)]  # the step of this series is along its normal
    pixels = seg.get_pixels_by_source_instance(uids, ignore_spatial_locations=False,
                                               assert_missing_frames_are_empty=True)  # fmt: skip
    np.testing.assert_array_equal(pixels[..., 0], one.mask.array)
    np.testing.assert_array_equal(pixels[..., 1], other.mask.array)
    assert str(seg.SegmentsOverlap) == "YES"


def test_an_enhanced_source_in_one_file(tmp_path):
    folder = write_enhanced(tmp_path / "ct", "sagittal")
    volume = read_dicom(folder)
    labelled = mask_on(volume)
    write_dicom_seg([labelled], folder, tmp_path / "seg.dcm")
    source = pydicom.dcmread(folder / "enhanced")
    numbers = list(range(1, 6))
    seg = highdicom.seg.segread(tmp_path / "seg.dcm")
    pixels = seg.get_pixels_by_source_frame(
        source.SOPInstanceUID, numbers, assert_missing_frames_are_empty=True
    )[..., 0]
    for number, frame in zip(numbers, pixels, strict=True):
        value = int(source.pixel_array[number - 1, 0, 0]) - 1024
        (d,) = np.flatnonzero(volume.array[:, 0, 0] == value)
        np.testing.assert_array_equal(frame, labelled.mask.array[d])


def test_patient_study_and_frame_of_reference_are_kept(tmp_path):
    folder = write_series(tmp_path / "ct")
    write_dicom_seg([mask_on(read_dicom(folder))], folder, tmp_path / "seg.dcm")
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    for keyword in (
        "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientAge", "StudyInstanceUID",
        "StudyDate", "StudyTime", "StudyID", "StudyDescription", "AccessionNumber",
        "ReferringPhysicianName", "FrameOfReferenceUID",
    ):  # fmt: skip
        assert str(seg[keyword].value) == PATIENT[keyword], keyword
    assert seg.SpecificCharacterSet == "ISO_IR 192"
    (series,) = seg.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == PATIENT["SeriesInstanceUID"]
    assert {r.ReferencedSOPInstanceUID for r in series.ReferencedInstanceSequence} == {
        slice_uid(index) for index in range(5)
    }
    assert seg.SeriesInstanceUID != PATIENT["SeriesInstanceUID"]
    assert (seg.SeriesNumber, seg.Modality, seg.SegmentationType) == (1005, "SEG", "BINARY")
    assert seg.SOPInstanceUID == seg.file_meta.MediaStorageSOPInstanceUID


def test_a_segment_says_what_made_it(tmp_path):
    folder = write_series(tmp_path / "ct")
    volume = read_dicom(folder)
    masks = [
        mask_on(volume, name="Läsion 1", model_id="m-small", model_version="sha256 0123"),
        mask_on(volume, seed=1, name="drawn", made_by="person"),
        mask_on(volume, seed=2, name="auto", model_id="m", made_by="model"),
    ]
    write_dicom_seg(masks, folder, tmp_path / "seg.dcm")
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    first, second, third = seg.SegmentSequence
    assert [s.SegmentLabel for s in seg.SegmentSequence] == ["Läsion 1", "drawn", "auto"]
    assert [s.SegmentAlgorithmType for s in seg.SegmentSequence] == [
        "SEMIAUTOMATIC", "MANUAL", "AUTOMATIC",
    ]  # fmt: skip
    (algorithm,) = first.SegmentationAlgorithmIdentificationSequence
    assert algorithm.AlgorithmName == "clickvol m-small"
    assert algorithm.AlgorithmVersion.startswith("model sha256 0123, clickvol ")
    assert "SegmentationAlgorithmIdentificationSequence" not in second
    assert "m-small" in first.SegmentDescription
    for segment in seg.SegmentSequence:
        assert "research use only" in segment.SegmentDescription
    assert "research use only" in seg.ContentDescription
    assert third.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Neoplasm"


def test_empty_masks_are_written_as_such(tmp_path):
    folder = write_series(tmp_path / "ct")
    volume = read_dicom(folder)
    nothing = LabelledMask(name="gone", mask=Mask(np.zeros((5, 7, 6), np.uint8), volume.grid))
    write_dicom_seg([nothing], folder, tmp_path / "seg.dcm")
    assert not pydicom.dcmread(tmp_path / "seg.dcm").pixel_array.any()


def test_a_header_that_breaks_the_rules_does_not_stop_the_mask(tmp_path):
    folder = write_series(
        tmp_path / "ct", PatientBirthDate="", StudyTime="", PatientSex="X", PatientName=None,
        StudyID=None, AccessionNumber=None, ReferringPhysicianName=None, FrameOfReferenceUID=None,
        SliceThickness=None, StudyDate=None, SeriesNumber=None,
    )  # fmt: skip
    write_dicom_seg([mask_on(read_dicom(folder))], folder, tmp_path / "seg.dcm")
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    assert seg.PatientSex == ""
    assert seg.PatientID == "PID-4711"
    assert seg.FrameOfReferenceUID.startswith("2.25.")
    assert seg.SeriesNumber == 1000


def test_a_mask_that_lies_elsewhere_is_refused(tmp_path):
    folder = write_series(tmp_path / "ct", "tilted")
    volume = read_dicom(folder, gantry_tilt="resample")
    with pytest.raises(OutputError, match="does not lie on the slices of its DICOM series"):
        write_dicom_seg([mask_on(volume)], folder, tmp_path / "seg.dcm")
    assert not (tmp_path / "seg.dcm").exists()


def test_no_mask_at_all(tmp_path):
    with pytest.raises(OutputError, match="there is no mask to write; give at least one object"):
        write_dicom_seg([], write_series(tmp_path / "ct"), tmp_path / "seg.dcm")


def test_without_the_extra_one_line_says_how_to_get_it(tmp_path, monkeypatch):
    folder = write_series(tmp_path / "ct")
    monkeypatch.setitem(__import__("sys").modules, "highdicom", None)
    with pytest.raises(OutputError, match=r'pip install "clickvol\[dicom\]"') as caught:
        write_dicom_seg([mask_on(read_dicom(folder))], folder, tmp_path / "seg.dcm")
    assert "\n" not in str(caught.value)


def test_several_multi_frame_files_cannot_be_referred_to(tmp_path):
    folder = write_enhanced(tmp_path / "ct")
    second = pydicom.dcmread(folder / "enhanced")
    second.SOPInstanceUID = second.file_meta.MediaStorageSOPInstanceUID = "1.2.999.8"
    for item in second.PerFrameFunctionalGroupsSequence:
        item.PlanePositionSequence[0].ImagePositionPatient[2] += 15
    second.save_as(folder / "more", enforce_file_format=True)
    with pytest.raises(OutputError, match="several multi-frame files"):
        write_dicom_seg([mask_on(read_dicom(folder))], folder, tmp_path / "seg.dcm")
