import torch

from clickvol.datasets.device.prompts import (
    _box,
    _diameter,
    _scribble,
    _slice_box,
    random_error_click,
    random_voxel,
)
from clickvol.shapes import BACKGROUND_LABEL, FOREGROUND_LABEL, PADDING_LABEL

SEEDS = torch.tensor([5, 6])


def bar():
    """Two masks (D, H, W) with a bar along w on slices 3 to 5: rows 6 to 7, columns 2 to 12."""
    label = torch.zeros(2, 8, 16, 16, dtype=torch.bool)
    label[:, 3:6, 6:8, 2:13] = True
    return label


def test_a_random_voxel_is_any_of_the_mask():
    mask = torch.zeros(2, 1, 3, 4, 5, dtype=torch.bool)
    mask[0, 0, 2, 1, 3] = True
    voxel, is_there = random_voxel(mask, SEEDS, 1)
    assert voxel[0].tolist() == [2, 1, 3]
    assert is_there.tolist() == [True, False]
    both = torch.ones(400, 1, 1, 1, 2, dtype=torch.bool)
    drawn, _ = random_voxel(both, torch.arange(400), 1)
    assert 150 < drawn[:, 2].sum() < 250


def test_a_correction_goes_into_the_middle_of_the_error():
    label = torch.zeros(2, 1, 5, 5, 5, dtype=torch.bool)
    label[0, 0, 1:4, 1:4, 1:4] = True
    predicted = torch.zeros_like(label)
    voxel, sign = random_error_click(predicted, label, SEEDS, 1)
    assert voxel[0].tolist() == [2, 2, 2]
    assert sign.tolist() == [FOREGROUND_LABEL, PADDING_LABEL]
    _, sign = random_error_click(label, predicted, SEEDS, 1)
    assert sign[0] == BACKGROUND_LABEL


def test_the_diameter_runs_along_the_bar_on_the_clicked_slice():
    middle = torch.full((2, 64), 0.5)  # a hand that does not shake
    tube = _diameter(bar(), torch.tensor([[4.0, 6, 5], [7.0, 6, 5]]), middle)
    # The longest of sixteen directions, corner to corner at 11 degrees, or along the bar.
    assert tube[0, 4, 6:8, 2].max() > 0.9
    assert tube[0, 4, 6:8, 12].max() > 0.9
    assert tube[0, 4, 12, 7] < 0.01
    assert tube[0, 0].max() < 0.1
    # A slice without the object: that of its largest area is taken instead.
    assert tube[1].amax((1, 2)).argmax() in (3, 4, 5)


def test_boxes_hold_the_object():
    label, click = bar(), torch.tensor([[4.0, 6, 5]] * 2)
    exact = torch.full((2, 64), 0.35)  # no slack
    box = _box(label, click, exact)
    assert torch.equal(box > 0, label)
    flat = _slice_box(label, click, exact)
    assert (flat[:, 0] == 0).all()
    assert torch.equal(flat[:, 4] > 0, label[:, 4])
    assert (flat[:, 4][~label[:, 4]] == -1).all()


def test_a_scribble_stays_in_the_object():
    stroke = _scribble(bar(), torch.tensor([[4.0, 6, 5]] * 2), torch.full((2, 64), 0.2))
    assert stroke.sum() > 0
    assert (stroke[:, 4] * ~bar()[:, 4]).sum() == 0
    assert stroke[:, 1].sum() == 0
