import warnings

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset

from clickvol.errors import BadGeometryError, DicomSeriesError, UnreadableVolumeError
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.io.dicom.reading.series import SeriesSummary, list_series, read_dicom


def itk_volume(folder):
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    return sitk.ReadImage(names)


def test_known_voxel_lies_at_known_millimetres(write_series, stored_pixels):
    volume = read_dicom(write_series())
    assert volume.array.dtype == np.int16
    np.testing.assert_array_equal(volume.array, stored_pixels.astype(int) - 1024)
    # i=4 (column), j=3 (row), k=2: LPS (-100 + 4*0.5, -50 + 3*0.8, 20 + 2*3)
    point = volume.grid.to_world(VoxelPoint.from_ijk(4, 3, 2))
    np.testing.assert_allclose(point.as_array(), [98.0, 47.6, 26.0])
    assert (volume.modality, volume.notes, volume.grid.file_facts) == ("CT", (), None)
    assert volume.source.endswith("ct")


@pytest.mark.parametrize(
    ("cosines", "step"),
    [
        ([1, 0, 0, 0, 1, 0], [0, 0, -3]),
        ([0, 1, 0, 0, 0, -1], [2.5, 0, 0]),
        ([0.8, 0.6, 0, -0.48, 0.64, 0.6], [1.08, -1.44, 2.4]),
    ],
    ids=["axial from above", "sagittal", "oblique"],
)
def test_the_grid_is_the_one_of_itk(write_series, cosines, step):
    folder = write_series(
        ImageOrientationPatient=cosines,
        per_slice=lambda k: {"ImagePositionPatient": [10 + k * step[0], 20 + k * step[1], k * step[2]]},
    )
    volume, image = read_dicom(folder), itk_volume(folder)
    np.testing.assert_array_equal(volume.array, sitk.GetArrayFromImage(image))
    for ijk in [(0, 0, 0), (5, 4, 3), (2, 1, 3)]:
        lps = image.TransformIndexToPhysicalPoint(ijk)
        ours = volume.grid.to_world(VoxelPoint.from_ijk(*ijk)).to_lps()
        np.testing.assert_allclose(ours, lps, atol=1e-6)


def test_planes_between_slices_that_lie_apart_are_interpolated(write_series, stored_pixels):
    heights_mm = [0, 3, 6, 9, 15, 21, 27]
    pixels = stored_pixels[0] + (np.arange(7) ** 2 * 10).astype(np.uint16)[:, None, None]
    folder = write_series(
        pixels=pixels, per_slice=lambda k: {"ImagePositionPatient": [-100, -50, heights_mm[k]]}
    )
    volume = read_dicom(folder, resample_gaps=True)
    squares = [0, 1, 4, 9, 12.5, 16, 20.5, 25, 30.5, 36]
    expected = stored_pixels[0].astype(int) - 1024 + (np.array(squares) * 10).astype(int)[:, None, None]
    assert volume.array.dtype == np.int16
    np.testing.assert_array_equal(volume.array, expected)
    assert volume.grid.file_facts is None
    assert volume.notes[0].endswith("the scan was resampled to a gap of 3.00 mm.")


def test_each_slice_has_its_own_rescale(write_series, stored_pixels):
    folder = write_series(
        Modality="PT",
        per_slice=lambda k: {"RescaleSlope": 0.5 + k, "RescaleIntercept": k},
    )
    volume = read_dicom(folder)
    assert (volume.array.dtype, volume.modality) == (np.float32, "PT")
    for k in range(4):
        np.testing.assert_allclose(volume.array[k], stored_pixels[k] * (0.5 + k) + k, rtol=1e-6)


def test_signed_pixels_and_no_rescale_stay_as_stored(write_series, stored_pixels):
    pixels = (stored_pixels.astype(int) - 2000).astype(np.int16)
    folder = write_series(pixels=pixels, RescaleSlope=None, RescaleIntercept=None, Modality="MR")
    volume = read_dicom(folder)
    assert (volume.array.dtype, volume.modality) == (np.int16, "MR")
    np.testing.assert_array_equal(volume.array, pixels)


def test_an_unknown_modality_is_unknown(write_series):
    assert read_dicom(write_series(Modality="OT")).modality == "unknown"


def test_enhanced_ct_is_a_stack_of_its_frames(tmp_path, enhanced_ct, stored_pixels):
    enhanced_ct.save_as(tmp_path / "enhanced", enforce_file_format=True)
    volume = read_dicom(tmp_path)
    np.testing.assert_array_equal(volume.array, stored_pixels[::-1] * 2.0 - 1000)
    np.testing.assert_allclose(volume.grid.affine_ijk_ras_mm[:3, 3], [100, 50, 11])
    assert volume.grid.spacing_dhw_mm.tolist() == [3, 0.8, 0.5]
    assert list_series(tmp_path)[0].num_slices == 4


def test_enhanced_mr_has_measures_and_rescales_of_its_frames(tmp_path, enhanced_ct, stored_pixels):
    enhanced_ct.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4.1"
    enhanced_ct.Modality = "MR"
    shared = enhanced_ct.SharedFunctionalGroupsSequence[0]
    # The distance of slices comes from their positions, not from what the file says of it.
    measures = shared.PixelMeasuresSequence
    measures[0].SpacingBetweenSlices = 4.5
    del shared.PixelMeasuresSequence, shared.PixelValueTransformationSequence
    for number, frame in enumerate(enhanced_ct.PerFrameFunctionalGroupsSequence):
        frame.PixelMeasuresSequence = measures
        values = Dataset()
        values.RescaleSlope, values.RescaleIntercept = 1 + number, -number
        frame.PixelValueTransformationSequence = pydicom.Sequence([values])
    enhanced_ct.save_as(tmp_path / "enhanced", enforce_file_format=True)
    volume = read_dicom(tmp_path)
    assert (volume.modality, volume.grid.spacing_dhw_mm.tolist()) == ("MR", [3, 0.8, 0.5])
    for number in range(4):
        expected = stored_pixels[number] * (1.0 + number) - number
        np.testing.assert_allclose(volume.array[3 - number], expected)


def test_several_series_are_listed_and_chosen(write_series, stored_pixels):
    write_series()
    folder = write_series(
        pixels=stored_pixels[:3],
        SeriesInstanceUID="1.2.3.9",
        SeriesNumber=2,
        SeriesDescription="lung",
    )
    assert list_series(str(folder)) == [
        SeriesSummary(uid="1.2.3.9", number=2, description="lung", modality="CT", num_slices=3),
        SeriesSummary(uid="1.2.3.4", number=5, description="abdomen", modality="CT", num_slices=4),
    ]
    with pytest.raises(DicomSeriesError) as caught:
        read_dicom(folder)
    message = str(caught.value)
    for word in ("holds 2 series", "'lung'", "'abdomen'", "CT", "3 slices", "1.2.3.9", "--series"):
        assert word in message
    assert "\n" not in message
    assert read_dicom(folder, series="2").grid.shape_dhw[0] == 3
    assert read_dicom(folder, series="1.2.3.4").grid.shape_dhw[0] == 4
    with pytest.raises(DicomSeriesError, match="has no series '7'; there are"):
        read_dicom(folder, series="7")


def test_a_number_that_two_series_share_is_not_enough(write_series):
    write_series()
    folder = write_series(SeriesInstanceUID="1.2.3.9")
    with pytest.raises(DicomSeriesError, match="2 series with the number 5; give the UID"):
        read_dicom(folder, series="5")


def test_folders_without_images_are_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    for read in (read_dicom, list_series):
        with pytest.raises(UnreadableVolumeError, match="holds no DICOM images"):
            read(tmp_path)
    with pytest.raises(UnreadableVolumeError, match="is not a folder"):
        list_series(tmp_path / "notes.txt")


def test_irregular_series_are_refused(write_series):
    with pytest.raises(DicomSeriesError, match=r"1 slice is missing: between 20.00 and 26.00 mm"):
        read_dicom(write_series(skip=(1,)))
    with pytest.raises(DicomSeriesError, match="duplicated"):
        read_dicom(write_series("twice", per_slice=lambda k: {"ImagePositionPatient": [0, 0, k % 3]}))
    with pytest.raises(DicomSeriesError, match="localizer"):
        read_dicom(
            write_series(
                "mixed",
                per_slice=lambda k: {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]} if k == 2 else {},
            )
        )
    with pytest.raises(BadGeometryError, match="spacing"):
        read_dicom(write_series("flat", PixelSpacing=[0, 0.5]))


def test_a_constant_series_is_refused(write_series, stored_pixels):
    with pytest.raises(UnreadableVolumeError, match="every voxel is -1024"):
        read_dicom(write_series(pixels=np.zeros_like(stored_pixels)))


def test_pixels_that_do_not_match_the_header_are_refused(write_series):
    with pytest.raises(DicomSeriesError, match="pixels of"):
        read_dicom(write_series(Rows=50))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = write_series("nan", RescaleSlope="nan")
    with pytest.raises(DicomSeriesError, match="no finite number"):
        read_dicom(folder)


def test_a_place_that_no_patient_has_is_refused(write_series):
    folder = write_series()
    for file in folder.iterdir():
        header = pydicom.dcmread(file)
        header.ImagePositionPatient[0] = 1e300
        header.save_as(file)
    with pytest.raises(BadGeometryError, match="from the origin"):
        read_dicom(folder)
