import numpy as np
import pytest

from clickvol.errors import ClickError
from clickvol.evaluation.box_prompt import BoxPrompt
from clickvol.evaluation.regions import Region
from clickvol.geometry.box import VoxelBox
from clickvol.geometry.coordinates import VoxelPoint, WorldPointRAS
from clickvol.prompts.click import Click


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
