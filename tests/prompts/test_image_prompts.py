import numpy as np
import pytest

from clickvol.errors import ClickError
from clickvol.prompts.image_prompts import (
    ImageClick,
    ImagePrompts,
    check_prompts,
    prompts_of_truth,
)

SHAPE_HW = (3, 5)


def at(column, row):
    return ImagePrompts((ImageClick(column, row),))


def test_every_pixel_may_be_clicked_and_the_range_is_named_for_others():
    for column, row in ((0, 0), (4, 2), (3.5, 0)):
        check_prompts(at(column, row), SHAPE_HW)
    for column, row in ((5, 0), (0, 3), (-1, 0), (0, -0.5), (float("nan"), 0)):
        with pytest.raises(ClickError, match="its columns are 0 to 4 and rows 0 to 2"):
            check_prompts(at(column, row), SHAPE_HW)


def test_boxes_are_ordered_and_inside():
    for box in ((0, 0, 4, 2), (2, 1, 2, 1)):
        check_prompts(ImagePrompts((), box), SHAPE_HW)
    for box in ((0, 0, 5, 2), (0, 0, 4, 3), (3, 0, 2, 2), (0, 2, 4, 1), (-1, 0, 2, 2)):
        with pytest.raises(ClickError, match="columns are 0 to 4 and rows 0 to 2"):
            check_prompts(ImagePrompts((), box), SHAPE_HW)


def test_something_must_be_pointed_at():
    with pytest.raises(ClickError, match="nothing is pointed at"):
        check_prompts(ImagePrompts(), SHAPE_HW)


def test_points_of_the_truth_are_where_their_label_says_and_repeat_with_the_seed():
    truth = np.zeros((4, 9), bool)
    truth[1:3, 6:] = True
    first, again = (prompts_of_truth(truth, 10, np.random.default_rng(5)) for _ in range(2))
    assert first == again
    assert first.box_xyxy_pixel is None
    assert sum(click.foreground for click in first.clicks) == 5
    for click in first.clicks:
        assert truth[int(click.row), int(click.column)] == click.foreground
    assert prompts_of_truth(truth, 10, np.random.default_rng(6)) != first
