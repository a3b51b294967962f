import torch

from clickvol.datasets.device.prompts import (
    _box,
    _diameter,
    _extra_clicks,
    _scribble,
    _slice_box,
    published_clicks,
    random_error_click,
    random_voxels,
    validation_clicks,
)
from clickvol.methods.recipe import TrainingClicks
from clickvol.shapes import BACKGROUND_LABEL, FOREGROUND_LABEL, PADDING_LABEL

SEEDS = torch.tensor([5, 6])


def bar():
    """Two masks (D, H, W) with a bar along w on slices 3 to 5: rows 6 to 7, columns 2 to 12."""
    label = torch.zeros(2, 8, 16, 16, dtype=torch.bool)
    label[:, 3:6, 6:8, 2:13] = True
    return label


def test_random_voxels_are_any_of_the_mask():
    mask = torch.zeros(2, 1, 3, 4, 5, dtype=torch.bool)
    mask[0, 0, 2, 1, 3] = True
    voxel, is_there = random_voxels(mask, torch.tensor([[0.0, 0.9999999], [0.3, 0.4]]))
    assert voxel[0].tolist() == [[2, 1, 3], [2, 1, 3]]
    assert voxel[1].tolist() == [[0, 0, 0], [0, 0, 0]]
    assert is_there.tolist() == [True, False]
    mask[0, 0, 0, 0, 4] = True
    voxel, _ = random_voxels(mask, torch.tensor([[0.49, 0.51], [0.0, 0.0]]))
    assert voxel[0].tolist() == [[0, 0, 4], [2, 1, 3]]


def test_published_clicks_lie_in_the_object_and_anywhere():
    label = torch.zeros(2, 1, 6, 6, 6, dtype=torch.uint8)
    label[0, 0, 2:4, 1:5, 3] = 1
    prompts = published_clicks(label, TrainingClicks(foreground=10, others=200), SEEDS)
    d, h, w = prompts.points_dhw[0, :10].long().T
    assert label[0, 0, d, h, w].all()
    assert prompts.labels[0].tolist() == [1] * 10 + [0] * 200
    assert prompts.labels[1].tolist() == [PADDING_LABEL] * 10 + [0] * 200
    others = prompts.points_dhw[1, 10:].long()
    assert len(others.unique(dim=0)) > 100
    assert others.amin() == 0
    assert others.amax() == 5
    background = published_clicks(
        label, TrainingClicks(foreground=0, others=200, others_from="background"), SEEDS
    )
    d, h, w = background.points_dhw[0].long().T
    assert not label[0, 0, d, h, w].any()
    full = torch.ones(1, 1, 2, 2, 2, dtype=torch.uint8)
    assert (
        len(
            published_clicks(
                full, TrainingClicks(foreground=0, others=50, others_from="background"), SEEDS[:1]
            ).labels[0]
        )
        == 50
    )


def test_validation_clicks_are_all_inside_or_anywhere_without_an_object():
    label = torch.zeros(2, 1, 6, 6, 6, dtype=torch.uint8)
    label[0, 0, 2:4, 1:5, 3] = 1
    prompts = validation_clicks(label, 10, SEEDS)
    assert prompts.points_dhw.shape == (2, 10, 3)
    assert (prompts.labels == FOREGROUND_LABEL).all()
    d, h, w = prompts.points_dhw[0].long().T
    assert label[0, 0, d, h, w].all()
    assert len(prompts.points_dhw[1].unique(dim=0)) > 5


def test_further_clicks_carry_the_sign_of_the_label_under_them():
    label = torch.zeros(40, 1, 32, 32, 32, dtype=torch.bool)
    label[:, :, 10:20, 8:24, 12:20] = True
    places, signs = _extra_clicks(label, torch.full((40,), 4), torch.arange(40))
    d, h, w = places.round().long().clamp(0, 31).unbind(2)
    under = label[torch.arange(40)[:, None], 0, d, h, w]
    assert ((signs == PADDING_LABEL) | (signs == under.long())).all()
    drawn = signs[signs != PADDING_LABEL]
    assert 0.5 < drawn.float().mean() < 0.9
    _, none = _extra_clicks(label, torch.zeros(40, dtype=torch.int64), torch.arange(40))
    assert (none == PADDING_LABEL).all()


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
