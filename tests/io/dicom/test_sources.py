import numpy as np
import pydicom
import pytest

from clickvol.errors import DicomSeriesError, OutputError
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.dicom.reading.series import read_dicom
from clickvol.io.dicom.sources import check_is_series, read_source_images
from clickvol.io.formats import write_mask
from clickvol.io.volume import Mask
from reference.dicom_series import SERIES, slice_uid, write_enhanced, write_series


@pytest.mark.parametrize("kind", list(SERIES))
def test_the_slices_are_in_the_order_of_the_array(tmp_path, kind):
    folder = write_series(tmp_path / "ct", kind)
    volume, images = read_dicom(folder), read_source_images(folder)
    assert images.grid == volume.grid
    by_uid = {d.SOPInstanceUID: d for d in map(pydicom.dcmread, folder.iterdir())}
    for index, plane in enumerate(volume.array):
        source = images.slices[index]
        assert source.frame is None
        np.testing.assert_array_equal(by_uid[source.sop_instance_uid].pixel_array.astype(int) - 1024, plane)


def test_the_frames_of_one_file(tmp_path):
    folder = write_enhanced(tmp_path / "ct", "oblique")
    volume, images = read_dicom(folder), read_source_images(folder)
    pixels = pydicom.dcmread(folder / "enhanced").pixel_array
    assert {s.sop_instance_uid for s in images.slices} == {"1.2.999.7"}
    for index, plane in enumerate(volume.array):
        np.testing.assert_array_equal(pixels[images.slices[index].frame].astype(int) - 1024, plane)


@pytest.mark.parametrize("kind", list(SERIES))
def test_places_in_a_slice_are_those_of_the_grid(tmp_path, kind):
    images = read_source_images(write_series(tmp_path / "ct", kind))
    positions = np.array([[0, 0], [2.5, -0.5], [6, 5]])
    for index in range(5):
        expected = [images.grid.to_world(VoxelPoint(index, h, w)).to_lps() for h, w in positions.tolist()]
        np.testing.assert_allclose(images.corner_lps_mm(index, positions), expected, atol=1e-9)


def test_a_series_by_number_uid_or_grid(tmp_path):
    write_series(tmp_path / "all" / "a")
    write_series(tmp_path / "all" / "b", "sagittal", SeriesInstanceUID="1.9", SeriesNumber=8)
    write_series(tmp_path / "all" / "scout", shape_dhw=(1, 3, 3), SeriesInstanceUID="1.8", SeriesNumber=1)
    everything = tmp_path / "all"
    for series in ("1.9", "8", " 8 "):
        images = read_source_images(everything, series=series)
        assert images.text("SeriesInstanceUID") == "1.9"
    on_grid = read_source_images(everything, grid=read_dicom(everything, series="5").grid)
    assert on_grid.text("SeriesInstanceUID") == "1.2.999.4"
    with pytest.raises(OutputError, match="3 series that the mask could lie on"):
        read_source_images(everything)
    with pytest.raises(OutputError, match="0 series"):
        read_source_images(everything, series="77")


def test_a_grid_within_a_hundredth_of_a_millimetre_is_the_same(tmp_path):
    images = read_source_images(write_series(tmp_path / "ct"))
    for shift_mm, same in ((0.009, True), (0.011, False)):
        affine = images.grid.affine_ras_mm.copy()
        affine[0, 3] += shift_mm
        grid = VolumeGrid(images.grid.shape_dhw, affine)
        if same:
            images.check_grid(grid)
        else:
            with pytest.raises(OutputError, match="does not lie on the slices"):
                images.check_grid(grid)
    with pytest.raises(OutputError, match=r"shape \(D, H, W\) is \(5, 7, 5\)"):
        images.check_grid(VolumeGrid((5, 7, 5), images.grid.affine_ras_mm))


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SOPInstanceUID", "SOPClassUID"])
def test_images_that_cannot_be_referred_to(tmp_path, keyword):
    folder = write_series(tmp_path / "ct")
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        delattr(dataset, keyword)
        dataset.save_as(path)
    with pytest.raises(OutputError, match=r"to refer to; write the mask as \.nii\.gz"):
        read_source_images(folder)


def test_a_damaged_series_is_told_by_its_reader(tmp_path):
    folder = write_series(tmp_path / "ct")
    next(p for p in folder.iterdir() if pydicom.dcmread(p).SOPInstanceUID == slice_uid(2)).unlink()
    with pytest.raises(DicomSeriesError, match="1 slice is missing"):
        read_source_images(folder)


def test_only_folders_and_zips_hold_series(tmp_path, plain_grid):
    write_mask(Mask(np.zeros(plain_grid.shape_dhw, np.uint8), plain_grid), tmp_path / "a.nii.gz")
    for path in ("", tmp_path / "a.nii.gz", tmp_path / "nothing"):
        with pytest.raises(OutputError, match="is not a DICOM series"):
            check_is_series(path)
    assert check_is_series(str(tmp_path)) == tmp_path
    assert check_is_series(tmp_path / "a.ZIP") == tmp_path / "a.ZIP"
