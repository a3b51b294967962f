import warnings

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import RLELossless, generate_uid

from clickvol.errors import DicomSeriesError
from clickvol.volumes.dicom_slices import ImageFile, find_images, read_stored_pixels, slices_of


def test_a_slice_says_where_it_lies(write_series):
    (piece,) = slices_of(find_images(write_series(skip=(0, 1, 3)))[0])
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
    assert len(find_images(folder)) == 4


def test_folders_below_are_searched_only_when_needed(write_series, tmp_path):
    (tmp_path / "disk").mkdir()
    write_series("disk/a")
    assert len(find_images(tmp_path / "disk")) == 4
    write_series("disk", skip=(1, 2, 3))
    assert len(find_images(tmp_path / "disk")) == 1


def test_a_file_without_preamble_is_read(tmp_path, make_dataset, stored_pixels):
    dataset = make_dataset(stored_pixels[0], 0)
    dataset.preamble = None
    del dataset.file_meta
    dataset.save_as(tmp_path / "old", implicit_vr=True, little_endian=True)
    assert (tmp_path / "old").read_bytes()[:2] == b"\x08\x00"
    (file,) = find_images(tmp_path)
    np.testing.assert_array_equal(read_stored_pixels(file.path)[0], stored_pixels[0])


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
    (file,) = find_images(tmp_path)
    frames = slices_of(file)
    assert [f.position_lps_mm[2] for f in frames] == [20, 17, 14, 11]
    assert {(f.slope, f.intercept, f.spacing_hw_mm) for f in frames} == {(2, -1000, (0.8, 0.5))}
    assert frames[2].name == "enhanced frame 3"


def test_multi_frame_without_places_is_named(make_dataset, stored_pixels, tmp_path):
    header = make_dataset(
        stored_pixels, 0, NumberOfFrames=4, SOPClassUID="1.2.840.10008.5.1.4.1.1.20"
    )
    with pytest.raises(DicomSeriesError, match=r"multi-frame object \(Nuclear Medicine"):
        slices_of(ImageFile(tmp_path / "nm", header))


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.uint8])
def test_stored_values_come_without_rescale(tmp_path, make_dataset, dtype):
    pixels = (np.arange(30).reshape(5, 6) * 8).astype(dtype)
    make_dataset(pixels, 0).save_as(tmp_path / "a", enforce_file_format=True)
    stored = read_stored_pixels(tmp_path / "a")
    assert (stored.shape, stored.dtype) == ((1, 5, 6), dtype)
    np.testing.assert_array_equal(stored[0], pixels)


def test_a_damaged_dicom_file_is_named_and_not_passed_over(write_series):
    folder = write_series()
    (folder / "damaged").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 10)
    with pytest.raises(DicomSeriesError, match="damaged is a damaged or unreadable DICOM file"):
        find_images(folder)


def test_run_length_pixels(tmp_path, make_dataset, stored_pixels):
    dataset = make_dataset(stored_pixels[1], 0)
    dataset.compress(RLELossless)
    dataset.save_as(tmp_path / "a", enforce_file_format=True)
    np.testing.assert_array_equal(read_stored_pixels(tmp_path / "a")[0], stored_pixels[1])


@pytest.mark.parametrize("compressor", ["JPEG2000", "JPEG"])
def test_compressed_pixels_come_without_rescale(tmp_path, compressor, capfd):
    pixels = np.random.default_rng(0).integers(-900, 2000, (1, 32, 40)).astype(np.int16)
    image = sitk.GetImageFromArray(pixels)[:, :, 0]
    image = sitk.JoinSeries([image])
    image.SetMetaData("0008|0060", "CT")
    image.SetMetaData("0008|0016", "1.2.840.10008.5.1.4.1.1.2")
    image.SetMetaData("0020|000e", str(generate_uid()))
    image.SetMetaData("0028|1052", "-24")
    image.SetMetaData("0028|1053", "2")
    writer = sitk.ImageFileWriter()
    writer.SetFileName(str(tmp_path / "a.dcm"))
    writer.KeepOriginalImageUIDOn()
    writer.SetImageIO("GDCMImageIO")
    writer.SetCompressor(compressor)
    writer.UseCompressionOn()
    writer.Execute(image)
    (file,) = find_images(tmp_path)
    slope = float(file.header.get("RescaleSlope", 1))
    intercept = float(file.header.get("RescaleIntercept", 0))
    stored = read_stored_pixels(file.path)
    # What ITK wrote are stored values that its own rescale tags turn into the image.
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a.dcm")))
    np.testing.assert_array_equal(stored * slope + intercept, expected)
    assert pydicom.dcmread(tmp_path / "a.dcm").file_meta.TransferSyntaxUID.is_compressed
    assert (slope, intercept) != (1, 0)
    assert capfd.readouterr() == ("", "")


def test_truncated_pixels_are_refused(tmp_path, make_dataset, stored_pixels):
    make_dataset(stored_pixels[0], 0).save_as(tmp_path / "a", enforce_file_format=True)
    (tmp_path / "a").write_bytes((tmp_path / "a").read_bytes()[:-9])
    with pytest.raises(DicomSeriesError, match="pixels of a are missing, truncated") as caught:
        read_stored_pixels(tmp_path / "a")
    assert "\n" not in str(caught.value)
