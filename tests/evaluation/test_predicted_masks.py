import numpy as np
import pytest

from clickvol.errors import ConfigError, UnreadableVolumeError
from clickvol.evaluation.contestants import Scan
from clickvol.evaluation.predicted_masks import PredictedMasks
from clickvol.geometry.grid import VolumeGrid
from clickvol.volumes.formats import write_volume
from clickvol.volumes.volume import Volume
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
    write_volume(mask, GRID, None, tmp_path / "case.nii.gz")
    answer = PredictedMasks(tmp_path).mask_of(scan_of())
    assert np.array_equal(answer.mask, mask > 0)
    assert answer.mask.dtype == np.uint8
    assert answer.seconds == 0.0


def test_an_empty_mask_is_one(tmp_path, mask):
    write_volume(mask * 0, GRID, None, tmp_path / "case.nii.gz")
    assert not PredictedMasks(tmp_path).mask_of(scan_of()).mask.any()


def test_another_set_of_files_is_another_contestant(tmp_path, mask):
    write_volume(mask, GRID, None, tmp_path / "case.nii.gz")
    before = PredictedMasks(tmp_path).fingerprint
    assert PredictedMasks(tmp_path).fingerprint == before
    write_volume(mask, GRID, None, tmp_path / "other.nii.gz")
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
    write_volume(mask, VolumeGrid(shape, affine), None, tmp_path / "case.nii.gz")
    with pytest.raises(ConfigError, match="not on the grid of its scan"):
        PredictedMasks(tmp_path).mask_of(scan_of())


def test_a_missing_mask_is_a_failure_and_a_folder_without_any_is_refused(tmp_path, mask):
    with pytest.raises(ConfigError, match="holds no masks"):
        PredictedMasks(tmp_path)
    write_volume(mask, GRID, None, tmp_path / "case.nii.gz")
    with pytest.raises(UnreadableVolumeError, match="no mask of other"):
        PredictedMasks(tmp_path).mask_of(scan_of("other"))
