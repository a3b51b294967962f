"""DICOM structure sets, read back by pydicom and drawn by scikit-image, not by our reader."""

import numpy as np
import pydicom
import pytest
from skimage.draw import polygon2mask

from clickvol.errors import OutputError
from clickvol.io.dicom.reading.series import read_dicom
from clickvol.io.dicom.rtstruct import write_rtstruct
from clickvol.io.labelled_mask import LabelledMask
from clickvol.io.volume import Mask
from reference.dicom_series import (
    ENHANCED_CT,
    PATIENT,
    SERIES,
    SPACING_HW_MM,
    slice_uid,
    write_enhanced,
    write_series,
)


def mask_on(volume, seed=0, name="tumour", density=0.5, **known):
    array = (np.random.default_rng(seed).random(volume.array.shape) < density).astype(np.uint8)
    array[2] = 0
    return LabelledMask(name=name, mask=Mask(array, volume.grid), **known)


def drawn(dataset, number, shape_hw, *, place_of):
    """Return {referenced image: mask (H, W)}; a contour is placed by the header of its image alone."""
    (item,) = (i for i in dataset.ROIContourSequence if i.ReferencedROINumber == number)
    masks = {}
    for contour in item.get("ContourSequence", ()):
        assert contour.ContourGeometricType == "CLOSED_PLANAR"
        (image,) = contour.ContourImageSequence
        key = (image.ReferencedSOPInstanceUID, image.get("ReferencedFrameNumber"))
        position, cosines = place_of(*key)
        points = np.array(contour.ContourData, float).reshape(-1, 3)
        assert len(points) == contour.NumberOfContourPoints
        offsets = points - position
        row, column = np.array(cosines[:3]), np.array(cosines[3:])
        np.testing.assert_allclose(offsets @ np.cross(row, column), 0, atol=1e-3)  # in the plane
        polygon = np.stack([offsets @ column / SPACING_HW_MM[0], offsets @ row / SPACING_HW_MM[1]], axis=1)
        before = masks.setdefault(key, np.zeros(shape_hw, bool))
        inside = polygon2mask(shape_hw, polygon)
        assert not (before & inside).any()  # so that uniting and XOR are the same
        masks[key] = before | inside
    return masks


@pytest.mark.parametrize("kind", list(SERIES))
def test_the_contours_enclose_the_mask_on_their_images(tmp_path, kind):
    folder = write_series(tmp_path / "ct", kind)
    volume = read_dicom(folder)
    one, other = mask_on(volume), mask_on(volume, seed=1, name="second")
    write_rtstruct([one, other], folder, tmp_path / "rt.dcm")
    images = {d.SOPInstanceUID: d for d in map(pydicom.dcmread, folder.iterdir())}

    def place_of(uid, frame):
        assert frame is None
        header = images[uid]
        return np.array(header.ImagePositionPatient, float), header.ImageOrientationPatient

    dataset = pydicom.dcmread(tmp_path / "rt.dcm")
    for number, labelled in ((1, one), (2, other)):
        result = drawn(dataset, number, (7, 6), place_of=place_of)
        assert len(result) == 4
        for (uid, _), mask in result.items():
            value = int(images[uid].pixel_array[0, 0]) - 1024
            (d,) = np.flatnonzero(volume.array[:, 0, 0] == value)
            np.testing.assert_array_equal(mask, labelled.mask.array[d])


def test_contours_on_the_frames_of_an_enhanced_source(tmp_path):
    folder = write_enhanced(tmp_path / "ct", "oblique")
    volume = read_dicom(folder)
    labelled = mask_on(volume)
    write_rtstruct([labelled], folder, tmp_path / "rt.dcm")
    source = pydicom.dcmread(folder / "enhanced")

    def place_of(uid, frame):
        assert uid == source.SOPInstanceUID
        item = source.PerFrameFunctionalGroupsSequence[frame - 1]
        return (
            np.array(item.PlanePositionSequence[0].ImagePositionPatient, float),
            SERIES["oblique"][0],
        )

    result = drawn(pydicom.dcmread(tmp_path / "rt.dcm"), 1, (7, 6), place_of=place_of)
    assert len(result) == 4
    for (_, frame), mask in result.items():
        value = int(source.pixel_array[frame - 1, 0, 0]) - 1024
        (d,) = np.flatnonzero(volume.array[:, 0, 0] == value)
        np.testing.assert_array_equal(mask, labelled.mask.array[d])


def test_one_voxel_in_exact_millimetres(tmp_path):
    folder = write_series(tmp_path / "ct")
    volume = read_dicom(folder)
    array = np.zeros(volume.array.shape, np.uint8)
    array[3, 4, 2] = 1
    labelled = LabelledMask(name="dot", mask=Mask(array, volume.grid))
    write_rtstruct([labelled], folder, tmp_path / "rt.dcm")
    dataset = pydicom.dcmread(tmp_path / "rt.dcm")
    (contour,) = dataset.ROIContourSequence[0].ContourSequence
    points = np.array(contour.ContourData, float).reshape(-1, 3)
    # Column 2 of 0.5 mm from -10.5 and row 4 of 0.8 mm from 20, each with half a voxel around.
    np.testing.assert_allclose(points.min(axis=0), [-9.75, 22.8, 9])
    np.testing.assert_allclose(points.max(axis=0), [-9.25, 23.6, 9])
    assert contour.ContourImageSequence[0].ReferencedSOPInstanceUID == slice_uid(3)


def test_what_it_says_of_patient_study_images_and_itself(tmp_path):
    folder = write_series(tmp_path / "ct")
    volume = read_dicom(folder)
    masks = [
        mask_on(volume, name="Läsion 1", model_id="m-small"),
        mask_on(volume, seed=1, name="drawn", made_by="person"),
    ]
    write_rtstruct(masks, folder, tmp_path / "rt.dcm")
    rt = pydicom.dcmread(tmp_path / "rt.dcm")
    for keyword in (
        "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate",
        "StudyID", "AccessionNumber", "ReferringPhysicianName", "FrameOfReferenceUID",
    ):  # fmt: skip
        assert str(rt[keyword].value) == PATIENT[keyword], keyword
    assert (rt.Modality, rt.ApprovalStatus, rt.SeriesNumber) == ("RTSTRUCT", "UNAPPROVED", 1005)
    assert rt.SeriesInstanceUID != PATIENT["SeriesInstanceUID"]
    (frame,) = rt.ReferencedFrameOfReferenceSequence
    assert frame.FrameOfReferenceUID == PATIENT["FrameOfReferenceUID"]
    (study,) = frame.RTReferencedStudySequence
    assert study.ReferencedSOPInstanceUID == PATIENT["StudyInstanceUID"]
    (series,) = study.RTReferencedSeriesSequence
    assert series.SeriesInstanceUID == PATIENT["SeriesInstanceUID"]
    named = [i.ReferencedSOPInstanceUID for i in series.ContourImageSequence]
    assert named == [slice_uid(index) for index in range(5)]
    first, second = rt.StructureSetROISequence
    assert (first.ROIName, first.ROIGenerationAlgorithm) == ("Läsion 1", "SEMIAUTOMATIC")
    assert (second.ROIName, second.ROIGenerationAlgorithm) == ("drawn", "MANUAL")
    assert "m-small" in first.ROIDescription
    assert "research use only" in first.ROIDescription
    assert [o.ReferencedROINumber for o in rt.RTROIObservationsSequence] == [1, 2]
    colours = [tuple(i.ROIDisplayColor) for i in rt.ROIContourSequence]
    assert len(set(colours)) == 2


def test_an_enhanced_source_is_named_once(tmp_path):
    folder = write_enhanced(tmp_path / "ct")
    write_rtstruct([mask_on(read_dicom(folder))], folder, tmp_path / "rt.dcm")
    rt = pydicom.dcmread(tmp_path / "rt.dcm")
    study = rt.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
    (image,) = study.RTReferencedSeriesSequence[0].ContourImageSequence
    assert image.ReferencedSOPClassUID == ENHANCED_CT


def test_an_empty_mask_is_a_region_without_contours(tmp_path):
    folder = write_series(tmp_path / "ct")
    volume = read_dicom(folder)
    nothing = LabelledMask(name="gone", mask=Mask(np.zeros((5, 7, 6), np.uint8), volume.grid))
    write_rtstruct([nothing], folder, tmp_path / "rt.dcm")
    rt = pydicom.dcmread(tmp_path / "rt.dcm")
    assert [r.ROIName for r in rt.StructureSetROISequence] == ["gone"]
    assert "ContourSequence" not in rt.ROIContourSequence[0]


def test_a_contour_of_more_than_64_kib(tmp_path):
    folder = write_series(tmp_path / "ct", shape_dhw=(2, 64, 65))
    volume = read_dicom(folder)
    array = np.zeros(volume.array.shape, np.uint8)
    array[1] = np.indices((64, 65)).sum(axis=0) % 2  # points everywhere ...
    array[1, ::2] = 1
    array[1, 1::2, ::2] = 1  # ... in one part
    labelled = LabelledMask(name="ragged", mask=Mask(array, volume.grid))
    write_rtstruct([labelled], folder, tmp_path / "rt.dcm")
    rt = pydicom.dcmread(tmp_path / "rt.dcm")
    contours = rt.ROIContourSequence[0].ContourSequence
    longest = max(contours, key=lambda c: c.NumberOfContourPoints)
    assert sum(len(str(v)) + 1 for v in longest.ContourData) > 65536
    assert longest["ContourData"].VR == "DS"


def test_no_mask_and_masks_that_lie_elsewhere_are_refused(tmp_path):
    folder = write_series(tmp_path / "ct", "tilted")
    with pytest.raises(OutputError, match="no mask"):
        write_rtstruct([], folder, tmp_path / "rt.dcm")
    volume = read_dicom(folder, gantry_tilt="resample")
    with pytest.raises(OutputError, match="does not lie on the slices"):
        write_rtstruct([mask_on(volume)], folder, tmp_path / "rt.dcm")
    assert not (tmp_path / "rt.dcm").exists()
