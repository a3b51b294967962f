import numpy as np
import pytest

from clickvol.errors import ConfigError, UnreadableVolumeError
from clickvol.evaluation.contestants import Scan
from clickvol.evaluation.predicted_masks import PredictedMasks
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.dicom.rtstruct import write_rtstruct
from clickvol.io.dicom.seg import write_dicom_seg
from clickvol.io.dicom.series import read_dicom
from clickvol.io.formats import write_volume
from clickvol.io.labelled_mask import LabelledMask
from clickvol.io.volume import Mask, Volume
from reference.dicom_series import write_series
from reference.evaluation_sets import oblique_grid

GRID = oblique_grid()


@pytest.fixture
def mask():
    array = np.zeros(GRID.shape_dhw, np.uint8)
    array[3:6, 4:9, 4:9] = 2
    return array


def scan_of(case_id="case"):
    return Scan.blind("data", case_id, Volume(np.zeros(GRID.shape_dhw), GRID))


def test_a_mask_is_found_by_the_name_of_its_case(tmp_path, mask):
    write_volume(mask, GRID, tmp_path / "case.nii.gz")
    answer = PredictedMasks(tmp_path).mask_of(scan_of())
    assert np.array_equal(answer.mask, mask > 0)
    assert answer.mask.dtype == np.uint8
    assert answer.seconds == 0.0


def test_an_empty_mask_is_one(tmp_path, mask):
    write_volume(mask * 0, GRID, tmp_path / "case.nii.gz")
    assert not PredictedMasks(tmp_path).mask_of(scan_of()).mask.any()


def test_another_set_of_files_is_another_contestant(tmp_path, mask):
    write_volume(mask, GRID, tmp_path / "case.nii.gz")
    before = PredictedMasks(tmp_path).fingerprint
    assert PredictedMasks(tmp_path).fingerprint == before
    write_volume(mask, GRID, tmp_path / "other.nii.gz")
    assert PredictedMasks(tmp_path).fingerprint != before


@pytest.mark.parametrize("change", ["shape", "offset", "spacing"])
def test_a_mask_on_another_grid_is_refused(tmp_path, mask, change):
    affine, shape = np.array(GRID.affine_ras_mm), mask.shape
    if change == "offset":
        affine[0, 3] += 1.0
    elif change == "spacing":
        affine[2, 0] *= 1.01
    else:
        mask = mask[:-1]
        shape = mask.shape
    write_volume(mask, VolumeGrid(shape, affine), tmp_path / "case.nii.gz")
    with pytest.raises(ConfigError, match="not on the grid of its scan"):
        PredictedMasks(tmp_path).mask_of(scan_of())


def test_a_missing_mask_is_a_failure_and_a_folder_without_any_is_refused(tmp_path, mask):
    with pytest.raises(ConfigError, match="holds no masks"):
        PredictedMasks(tmp_path)
    write_volume(mask, GRID, tmp_path / "case.nii.gz")
    with pytest.raises(UnreadableVolumeError, match="no mask of other"):
        PredictedMasks(tmp_path).mask_of(scan_of("other"))


@pytest.mark.parametrize("write", [write_dicom_seg, write_rtstruct])
def test_a_mask_as_dicom_is_all_that_it_holds(tmp_path, write):
    volume = read_dicom(write_series(tmp_path / "ct", "oblique"))
    arrays = np.zeros((2, *volume.array.shape), np.uint8)
    arrays[0, 1:3, 2:4, 1:4] = arrays[1, 2, 3:6, 3:5] = 1
    masks = [LabelledMask(name=f"o{n}", mask=Mask(a, volume.grid)) for n, a in enumerate(arrays)]
    (tmp_path / "predictions").mkdir()
    write(masks, tmp_path / "ct", tmp_path / "predictions" / "case.dcm")
    scan = Scan.blind("data", "case", volume)
    predicted = PredictedMasks(tmp_path / "predictions")
    np.testing.assert_array_equal(predicted.mask_of(scan).mask, arrays.any(axis=0))
    with pytest.raises(UnreadableVolumeError, match="no mask of other"):
        predicted.mask_of(Scan.blind("data", "other", volume))
