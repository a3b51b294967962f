import warnings

import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

from clickvol.errors import DicomSeriesError, ScanTooLargeError
from clickvol.files.limits import ReadLimits
from clickvol.io.dicom.reading.headers import ImageFile, find_images
from clickvol.io.dicom.reading.slices import slices_of


def test_a_slice_says_where_it_lies(write_series):
    (piece,) = slices_of(find_images(write_series(skip=(0, 1, 3))).files[0])
    assert piece.shape_hw == (5, 6)
    assert piece.position_lps_mm.tolist() == [-100, -50, 26]
    assert piece.orientation_lps.tolist() == [1, 0, 0, 0, 1, 0]
    assert piece.spacing_hw_mm == (0.8, 0.5)
    assert (piece.slope, piece.intercept, piece.thickness_mm) == (1.0, -1024.0, 3.0)


def test_everything_that_is_no_scan_is_passed_over(write_series, make_dataset, stored_pixels):
    folder = write_series()
    (folder / "readme.txt").write_text("not DICOM")
    (folder / "empty").write_bytes(b"")
    for modality in ("SEG", "RTDOSE", "PR"):
        make_dataset(stored_pixels[0], 0, Modality=modality).save_as(folder / modality)
    report = make_dataset(stored_pixels[0], 0, Modality="SR", Rows=None, Columns=None)
    report.save_as(folder / "DICOMDIR")
    assert len(find_images(folder).files) == 4


def test_a_position_that_is_no_number_is_refused(make_dataset, stored_pixels, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = make_dataset(stored_pixels[0], 0, ImagePositionPatient=[0, "nan", 0])
    with pytest.raises(DicomSeriesError, match="no usable ImagePositionPatient"):
        slices_of(ImageFile(tmp_path / "IM1", header))


@pytest.mark.parametrize("tag", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
def test_missing_places_are_named(make_dataset, stored_pixels, tmp_path, tag):
    file = ImageFile(tmp_path / "IM1", make_dataset(stored_pixels[0], 0, **{tag: None}))
    with pytest.raises(DicomSeriesError, match=f"IM1 has no usable {tag}"):
        slices_of(file)


def test_colour_is_refused(make_dataset, stored_pixels, tmp_path):
    for tags in ({"SamplesPerPixel": 3}, {"PhotometricInterpretation": "PALETTE COLOR"}):
        file = ImageFile(tmp_path / "IM1", make_dataset(stored_pixels[0], 0, **tags))
        with pytest.raises(DicomSeriesError, match=r"colour image.*single grey channel"):
            slices_of(file)


def test_frames_of_an_enhanced_file(tmp_path, enhanced_ct):
    enhanced_ct.save_as(tmp_path / "enhanced", enforce_file_format=True)
    (file,) = find_images(tmp_path).files
    frames = slices_of(file)
    assert [f.position_lps_mm[2] for f in frames] == [20, 17, 14, 11]
    assert {(f.slope, f.intercept, f.spacing_hw_mm) for f in frames} == {(2, -1000, (0.8, 0.5))}
    assert frames[2].name == "enhanced frame 3"


def test_multi_frame_without_places_is_named(make_dataset, stored_pixels, tmp_path):
    dataset = make_dataset(stored_pixels, 0, NumberOfFrames=4, SOPClassUID="1.2.840.10008.5.1.4.1.1.20")
    dataset.save_as(tmp_path / "nm", enforce_file_format=True)
    with pytest.raises(DicomSeriesError, match=r"multi-frame object \(Nuclear Medicine"):
        slices_of(find_images(tmp_path).files[0])


def test_a_damaged_dicom_file_is_named_and_not_passed_over(write_series):
    folder = write_series()
    (folder / "damaged").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 10)
    with pytest.raises(DicomSeriesError, match="damaged is a damaged or unreadable DICOM file"):
        find_images(folder)


def test_a_message_names_the_source_and_the_file(write_series):
    folder = write_series()
    (folder / "damaged").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 10)
    with pytest.raises(DicomSeriesError, match=r"^ct\.zip: damaged is a damaged or unreadable"):
        find_images(folder, source="ct.zip")


def test_parts_of_a_concatenation_are_refused_by_name(tmp_path, enhanced_ct):
    enhanced_ct.ConcatenationUID = "1.2.3.77"
    enhanced_ct.InConcatenationNumber, enhanced_ct.InConcatenationTotalNumber = 2, 3
    enhanced_ct.save_as(tmp_path / "part", enforce_file_format=True)
    with pytest.raises(DicomSeriesError, match="part is part 2 of 3 of a concatenation"):
        slices_of(find_images(tmp_path).files[0])
    del enhanced_ct.InConcatenationTotalNumber  # optional in the standard
    enhanced_ct.save_as(tmp_path / "part", enforce_file_format=True)
    with pytest.raises(DicomSeriesError, match=r"part 2 of \? of a concatenation"):
        slices_of(find_images(tmp_path).files[0])
    enhanced_ct.InConcatenationTotalNumber = 1
    enhanced_ct.save_as(tmp_path / "part", enforce_file_format=True)
    assert len(slices_of(find_images(tmp_path).files[0])) == 4


def test_frames_that_do_not_add_up_are_refused(tmp_path, enhanced_ct):
    enhanced_ct.NumberOfFrames = 4_000_000
    enhanced_ct.save_as(tmp_path / "enhanced", enforce_file_format=True)
    with pytest.raises(DicomSeriesError, match="4000000 frames, but places 4"):
        slices_of(find_images(tmp_path).files[0])


def test_deflated_files_are_bounded_before_they_are_inflated(
    tmp_path, make_dataset, stored_pixels, monkeypatch
):
    dataset = make_dataset(stored_pixels[0], 0)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(tmp_path / "a", enforce_file_format=True)
    assert len(find_images(tmp_path).files) == 1
    possible = (tmp_path / "a").stat().st_size * 1032
    wide = ReadLimits(max_voxels=30, max_bytes_unpacked=possible)
    assert len(find_images(tmp_path, limits=wide).files) == 1
    tight = ReadLimits(max_voxels=30, max_bytes_unpacked=possible - 1)
    monkeypatch.setattr(pydicom, "dcmread", None)  # whoever calls it fails otherwise
    with pytest.raises(ScanTooLargeError, match=f"a unpacks to {possible} bytes"):
        find_images(tmp_path, limits=tight)
