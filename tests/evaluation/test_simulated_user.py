import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from clickvol.errors import ClickError
from clickvol.evaluation.simulated_user import BoxPrompt, SimulatedUser, Truth
from clickvol.geometry.box import VoxelBox
from clickvol.geometry.coordinates import VoxelPoint, WorldPointRAS
from clickvol.geometry.grid import VolumeGrid
from clickvol.prompts.click import Click
from clickvol.prompts.simulate import Region

SHAPE = (12, 24, 24)
SPACING = (3.0, 1.0, 1.0)


def grid_of(shape=SHAPE, spacing=SPACING):
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = (100, 200, 300)
    return VolumeGrid(shape, affine)


def user_of(label, *, placement="random", next_clicks="error", seed=0, case_id="case", grid=None):
    truth = Truth.of(label)
    return SimulatedUser(
        truth,
        grid or grid_of(label.shape),
        case_id=case_id,
        seed=seed,
        placement=placement,
        next_clicks=next_clicks,
    )


@pytest.fixture
def label():
    """A block of 5 x 9 x 9 voxels and a single voxel far away."""
    array = np.zeros(SHAPE, np.uint8)
    array[3:8, 4:13, 4:13] = 1
    array[10, 20, 20] = 1
    return array


def voxel(placed):
    return tuple(placed.click.position.as_array().astype(int).tolist())


def test_the_truth_knows_its_hash_and_an_empty_one_is_none(label):
    truth = Truth.of(label * 7)
    assert truth.sha256 == hashlib.sha256(label.tobytes()).hexdigest()
    assert truth.tumour.num_voxels == 5 * 81 + 1
    assert Truth.of(np.zeros(SHAPE)) is None


def test_the_centre_is_the_deepest_voxel_of_the_largest_part_in_mm(label):
    placed = user_of(label, placement="centre").first_click()
    assert voxel(placed) == (5, 8, 8)
    assert placed.click.foreground
    assert placed.voxel_ijk == (8, 8, 5)
    assert placed.world_ras_mm == (115.0, 208.0, 308.0)
    assert placed.region_voxels == 405
    assert placed.drawn_from == "centre of the largest part of the tumour"


def test_random_draws_every_voxel_of_the_tumour():
    label = np.zeros((3, 3, 3), np.uint8)
    label[1, 1] = 1
    drawn = {voxel(user_of(label, seed=seed).first_click()) for seed in range(40)}
    assert drawn == {(1, 1, 0), (1, 1, 1), (1, 1, 2)}


def test_seed_and_case_alone_decide_a_random_click(label):
    first = [voxel(user_of(label, seed=s, case_id=c).first_click()) for s in (0, 1) for c in "ab"]
    again = [voxel(user_of(label, seed=s, case_id=c).first_click()) for s in (0, 1) for c in "ab"]
    assert first == again
    assert len(set(first)) == 4


def test_a_random_click_is_the_same_in_every_version():
    """The number is written down: a change of it would change every published evaluation."""
    label = np.ones((10, 10, 10), np.uint8)
    assert voxel(user_of(label, seed=3, case_id="sts_008").first_click()) == (7, 1, 9)


@given(seed=st.integers(0, 10_000), placement=st.sampled_from(["inside", "edge", "outside"]))
def test_a_first_click_lies_where_it_should(seed, placement):
    rng = np.random.default_rng(seed)
    label = np.zeros(SHAPE, np.uint8)
    size = rng.integers(2, (6, 12, 12))
    start = rng.integers(0, np.array(SHAPE) - size)
    label[tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))] = 1
    placed = user_of(label, placement=placement, seed=seed).first_click()
    assert placed.click.foreground
    padded = np.pad(label, 6)
    depth = ndimage.distance_transform_edt(padded, sampling=SPACING)
    distance = ndimage.distance_transform_edt(padded == 0, sampling=SPACING)
    index = tuple(np.array(voxel(placed)) + 6)
    if placement == "inside":
        assert depth[index] >= depth.max() / 2
    elif placement == "edge":
        assert 0 < depth[index] <= 2 or not ndimage.binary_erosion(padded)[index]
        assert padded[index]
    else:
        assert 2 <= distance[index] <= 5
        assert label[voxel(placed)] == 0


def test_a_missed_part_is_clicked_as_foreground_at_its_centre(label):
    user = user_of(label, placement="centre")
    user.first_click()
    mask = label.copy()
    mask[3:8, 4:13, 8:13] = 0  # 5 x 9 x 5 voxels are missed; w 8..12, of which 8 holds the first click
    placed = user.next_click(mask)
    assert placed.click.foreground
    assert placed.drawn_from == "centre of the largest missed part"
    assert placed.region_voxels == 5 * 9 * 5
    # 3 mm deep are w 10, h 6..10 of every slice, but not near the first click in slice 5.
    assert voxel(placed) == (4, 8, 10)


def test_too_much_is_clicked_as_background_when_it_is_larger(label):
    user = user_of(label, placement="centre")
    user.first_click()
    mask = label.copy()
    mask[10, 20, 20] = 0
    mask[0:3, 17:22, 17:22] = 1
    placed = user.next_click(mask)
    assert not placed.click.foreground
    assert voxel(placed) == (1, 19, 19)
    assert placed.region_voxels == 75


def test_nothing_wrong_needs_no_click(label):
    user = user_of(label)
    user.first_click()
    assert user.next_click(label) is None


@pytest.mark.parametrize("placement", ["random", "centre", "edge", "outside", "box"])
def test_no_click_is_repeated_though_the_mask_never_moves(label, placement):
    user = user_of(label, placement=placement)
    clicks = [voxel(user.first_click())]
    clicks += [voxel(user.next_click(np.zeros(SHAPE, np.uint8))) for _ in range(20)]
    assert len(set(clicks)) == 21


def test_when_every_wrong_voxel_was_clicked_the_next_largest_error_follows_then_nothing():
    label = np.zeros((3, 3, 8), np.uint8)
    label[1, 1, 0:2] = 1
    label[1, 1, 5] = 1
    user = user_of(label, placement="centre")
    empty = np.zeros_like(label)
    clicks = [voxel(user.first_click())]
    clicks += [voxel(user.next_click(empty)) for _ in range(2)]
    assert clicks == [(1, 1, 0), (1, 1, 1), (1, 1, 5)]
    assert user.next_click(empty) is None


def test_published_clicks_are_drawn_from_the_tumour_whatever_the_mask(label):
    masks = [np.zeros(SHAPE, np.uint8), label]
    drawn = []
    for mask in masks:
        user = user_of(label, next_clicks="random_foreground")
        drawn.append([voxel(user.first_click()), *(voxel(user.next_click(mask)) for _ in range(9))])
    assert drawn[0] == drawn[1]
    assert all(label[place] for place in drawn[0])
    assert len(set(drawn[0])) > 5


def test_the_box_gives_its_centre_as_a_click(label):
    user = user_of(label, placement="box")
    placed = user.first_click()
    assert user.box.box.start_dhw == (3, 4, 4)
    assert user.box.box.stop_dhw == (11, 13, 13)  # the single voxel's slice is in, its place is not
    assert voxel(placed) == (6, 8, 8)


def test_there_is_no_place_beside_a_tumour_that_fills_the_scan():
    with pytest.raises(ClickError, match="choose another placement"):
        user_of(np.ones((4, 4, 4), np.uint8), placement="outside").first_click()


@pytest.fixture
def box():
    """A large middle slice between two small ones: the box has the height of all, the width of the middle."""
    label = np.zeros((8, 20, 20), bool)
    label[2, 0, 0] = label[4, 15, 15] = True
    label[3, 6:10, 4:12] = True
    return BoxPrompt.around(Region.of(label))


def test_it_has_all_slices_and_the_middle_slice_s_rows_and_columns(box):
    assert box.box == VoxelBox((2, 6, 4), (5, 10, 12))
    assert box.middle_d == 3


def test_its_click_is_in_the_middle_of_the_middle_slice(box):
    assert box.click() == Click(VoxelPoint(3.0, 7.0, 7.0))


def test_of_an_even_number_of_slices_the_middle_is_the_upper_one():
    label = np.zeros((6, 3, 3), bool)
    label[1:5, 1, 1] = True
    assert BoxPrompt.around(Region.of(label)).middle_d == 3


def test_a_mask_is_cut_to_the_box_and_a_quarter_of_its_sides(box):
    cut = box.cut(np.ones((8, 20, 20), np.uint8), [])
    expected = np.zeros((8, 20, 20), np.uint8)
    expected[2:5, 5:11, 2:14] = 1
    assert np.array_equal(cut, expected)


def test_a_foreground_click_widens_the_bound_and_a_background_click_does_not(box):
    clicks = [Click(VoxelPoint(0, 7, 17)), Click(VoxelPoint(3, 19, 7), foreground=False)]
    cut = box.cut(np.ones((8, 20, 20), np.uint8), clicks)
    expected = np.zeros((8, 20, 20), np.uint8)
    expected[0:5, 5:11, 2:20] = 1
    assert np.array_equal(cut, expected)


def test_clicks_in_millimetres_are_refused(box):
    with pytest.raises(ClickError, match="in voxels"):
        box.cut(np.ones((8, 20, 20), np.uint8), [Click(WorldPointRAS(0, 0, 0))])
