import numpy as np
import pytest

from clickvol.adapt.cases import CaseObjects, numbered_parts, stored_scan
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.volume import Volume
from clickvol.methods.promise3d import promise3d_recipe
from reference.random_models import random_model


def test_parts_are_numbered_by_size_and_specks_are_none():
    mask = np.zeros((8, 8, 8), np.uint8)
    mask[0, 0, 0] = 1
    mask[2:4, 0:2, 0:3] = 1  # 12 voxels
    mask[5:8, 5:8, 5:8] = 1  # 27
    numbers = numbered_parts(mask)
    assert np.bincount(numbers.ravel()).tolist() == [512 - 39, 27, 12]
    assert numbers[6, 6, 6] == 1


def test_a_speck_alone_is_an_object():
    mask = np.zeros((4, 4, 4), np.uint8)
    mask[1, 1, 1] = 1
    assert numbered_parts(mask)[1, 1, 1] == 1


def test_corners_touch():
    mask = np.zeros((6, 6, 6), np.uint8)
    mask[:3, :3, :3] = mask[3:, 3:, 3:] = 1
    assert numbered_parts(mask).max() == 1


@pytest.mark.parametrize("flip", [False, True])
def test_a_stored_scan_lies_along_the_patient(flip):
    """A copy of the file with its axes reversed is the same scan."""
    affine = np.array([[0, 0, -1.0, 9], [0, -1.0, 0, 9], [3.0, 0, 0, 0], [0, 0, 0, 1]])
    array = np.random.default_rng(1).normal(0, 60, (6, 10, 10)).astype(np.float32)
    numbers = np.zeros(array.shape, np.uint8)
    numbers[2:4, 1:4, 5:8] = 1
    if flip:
        affine = affine @ np.array([[-1.0, 0, 0, 5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
        array, numbers = array[::-1], numbers[::-1]
    case = CaseObjects("a", "p", Volume(array, VolumeGrid(array.shape, affine), "CT"), numbers, (9.0,))
    scan = stored_scan(case, random_model(promise3d_recipe("clickvol", "tiny")))
    assert scan.spacing_dhw_mm == (3.0, 1.0, 1.0)
    # Patient axes: superior, anterior (the file's rows reversed), right (its columns reversed).
    assert np.argwhere(scan.label).min(axis=0).tolist() == [2, 6, 2]
    assert np.argwhere(scan.label).max(axis=0).tolist() == [3, 8, 4]


def test_little_more_than_the_objects_is_stored():
    array = np.zeros((10, 400, 400), np.float32)
    numbers = np.zeros(array.shape, np.uint8)
    numbers[4, 200, 200] = 1
    grid = VolumeGrid.axial(array.shape, (3.0, 1.0, 1.0))
    scan = stored_scan(
        CaseObjects("a", "p", Volume(array, grid, "CT"), numbers, (1.0,)),
        random_model(promise3d_recipe("clickvol", "tiny")),
    )
    assert scan.image.shape == (10, 201, 201)
    assert scan.label.sum() == 1
