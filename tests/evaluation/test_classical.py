import sys

import numpy as np
import pytest

from clickvol.errors import ConfigError
from clickvol.evaluation.classical import ball, random_walker, region_growing
from clickvol.geometry.coordinates import VoxelPoint, WorldPointRAS
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.volume import Volume
from clickvol.metrics.overlap import dice
from clickvol.prompts.click import Click
from reference.evaluation_sets import block_arrays, oblique_grid


def scan_of(array, grid=None):
    return Volume(array, grid or oblique_grid(array.shape))


def click(d, h, w, *, foreground=True):
    return Click(VoxelPoint(float(d), float(h), float(w)), foreground)


def answer(classical, scan, *clicks):
    mask = classical.segment(scan, clicks)
    assert mask.dtype == bool
    return mask


def test_a_ball_has_the_voxels_within_its_radius():
    scan = scan_of(np.zeros((9, 9, 9)), VolumeGrid((9, 9, 9), np.diag([2.0, 1.0, 1.0, 1.0])))
    mask = answer(ball(2.0), scan, click(4, 4, 4))
    # Per slice: radius 2 has 13 voxels; the slices 2 mm away have their centre only.
    assert mask.sum(axis=(1, 2)).tolist() == [0, 0, 0, 1, 13, 1, 0, 0, 0]


def test_a_ball_is_round_in_the_patient_on_a_sheared_grid():
    affine = np.eye(4)
    affine[:3, :3] = [[1, 0.4, 0], [0, 1.5, 0.3], [0.2, 0, 2]]
    grid = VolumeGrid((20, 16, 12), affine)
    centre = grid.to_world(VoxelPoint(9.3, 8.1, 5.6))
    mask = answer(ball(4.0), scan_of(np.zeros(grid.shape_dhw), grid), Click(centre))
    d, h, w = np.indices(grid.shape_dhw)
    places = np.stack([d, h, w], axis=-1) @ affine[:3, :3].T
    distance = np.linalg.norm(places - centre.as_array(), axis=-1)
    assert np.array_equal(mask, distance <= 4.0)
    assert mask.any()


def test_a_ball_is_cut_at_the_scan_and_there_is_one_per_foreground_click():
    scan = scan_of(np.zeros((5, 5, 5)), VolumeGrid((5, 5, 5), np.eye(4)))
    mask = answer(ball(1.0), scan, click(0, 0, 0), click(4, 4, 4), click(2, 2, 2, foreground=False))
    assert mask.sum() == 4 + 4
    assert mask[0, 0, 0] == mask[4, 4, 4] == 1


def test_a_click_in_millimetres_is_the_same_click():
    scan = scan_of(np.zeros((9, 9, 9)))
    world = scan.grid.to_world(VoxelPoint(4, 4, 4))
    in_mm = Click(WorldPointRAS(world.x, world.y, world.z))
    assert np.array_equal(answer(ball(4.0), scan, in_mm), answer(ball(4.0), scan, click(4, 4, 4)))


@pytest.mark.parametrize("radius", [0.0, -1.0, float("nan"), float("inf")])
def test_a_ball_without_a_radius_is_refused(radius):
    with pytest.raises(ConfigError, match="radius above 0 mm"):
        ball(radius)


def test_a_region_of_one_value_is_grown():
    _, label = block_arrays()
    scan = scan_of(label.astype(np.int16) * 200)
    mask = answer(region_growing(), scan, click(4, 10, 11), click(0, 0, 0, foreground=False))
    corners = label.copy()  # which the opening takes off
    corners[3:6] = corners[:, 7:13] = corners[:, :, 7:15] = 0
    assert np.array_equal(mask, label - corners > 0)


def test_a_bright_block_is_walked():
    image, label = block_arrays()
    grid = oblique_grid(image.shape, (6.0, 6.0, 6.0))
    mask = answer(random_walker(), scan_of(image.astype(np.int16), grid), click(4, 10, 11))
    assert dice(mask, label) > 0.8


def test_a_background_click_keeps_the_walker_out():
    _, label = block_arrays(start=(2, 4, 2), stop=(8, 20, 22))
    scan = scan_of(label.astype(np.int16), oblique_grid(label.shape, (6.0, 6.0, 6.0)))
    one = answer(random_walker(), scan, click(5, 12, 6))
    two = answer(random_walker(), scan, click(5, 12, 6), click(5, 12, 10, foreground=False))
    assert one[5, 12, 9] == 1
    assert two[5, 12, 9] == 0
    assert two[5, 12, 6] == 1


def test_a_flat_scan_gives_the_walker_nothing():
    assert not answer(random_walker(), scan_of(np.zeros((8, 8, 8))), click(4, 4, 4)).any()


def test_the_walker_says_what_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(ConfigError, match=r"clickvol\[evaluate\]"):
        random_walker()
