import math

import pytest
import torch

from clickvol.training.tasks.losses2d import bce_dice


def square(share, side=20):
    """A mask of whole rows that covers a share of the image."""
    mask = torch.zeros(1, 1, side, side)
    mask[:, :, : round(share * side)] = 1
    return mask


def test_undecided_logits_by_hand():
    target = torch.tensor([1, 0, 0, 0], dtype=torch.uint8).view(1, 1, 2, 2)
    # Probability one half everywhere: overlap 2 * (0.5 + 1), total 2 + 1 + 1.
    expected = math.log(2) + 1 - 3 / 4
    assert bce_dice(torch.zeros(1, 1, 2, 2), target).item() == pytest.approx(expected, abs=1e-6)


def test_unequal_logits_by_hand():
    logits = torch.tensor([[math.log(3), -math.log(3)]]).view(1, 1, 1, 2)  # 3/4 and 1/4
    target = torch.tensor([[1.0, 0.0]]).view(1, 1, 1, 2)
    expected = -math.log(3 / 4) + 0  # overlap 2 * (3 / 4 + 1), total 1 + 1 + 1: above 1
    assert bce_dice(logits, target).item() == pytest.approx(expected, abs=1e-6)


def test_dice_is_taken_per_image_and_averaged():
    logits = torch.zeros(2, 1, 1, 4)
    target = torch.zeros(2, 1, 1, 4)
    target[0] = 1
    # The first image: 2 * (2 + 1) / (2 + 4 + 1); the second: 2 * (0 + 1) / (2 + 0 + 1).
    expected = math.log(2) + (1 / 7 + 1 / 3) / 2
    assert bce_dice(logits, target).item() == pytest.approx(expected, abs=1e-6)


def test_a_perfect_mask_costs_nothing_and_a_wrong_one_much():
    target = square(0.15)
    sure = 40 * (2 * target - 1)
    assert bce_dice(sure, target).item() == pytest.approx(0, abs=1e-5)
    wrong = bce_dice(-sure, target).item()
    assert wrong == pytest.approx(40 + 1 - 2 / (1 + target.numel()), rel=1e-4)


def test_an_empty_mask_answered_with_nothing_costs_nothing():
    assert bce_dice(torch.full((1, 1, 4, 4), -60.0), torch.zeros(1, 1, 4, 4)).item() < 1e-5


def test_with_two_sigmoids_a_perfect_mask_still_costs_132_hundredths():
    target = square(0.15, side=200)
    sure = 60 * (2 * target - 1)
    # By hand: the model's 1 and 0 count as logits, of probability 0.7311 and 0.5.
    cross_entropy = 0.15 * math.log(1 + math.exp(-1)) + 0.85 * math.log(2)
    result = 0.15 / (1 + math.exp(-1))
    dice = 2 * result / (result + 0.85 * 0.5 + 0.15)
    loss = bce_dice(sure, target, sigmoid="twice").item()
    assert loss == pytest.approx(cross_entropy + 1 - dice, abs=1e-4)
    assert loss == pytest.approx(1.32, abs=0.005)


def test_two_sigmoids_shrink_the_gradient():
    target = square(0.15)
    size = {}
    for sigmoid in ("once", "twice"):
        logits = torch.zeros_like(target).requires_grad_()
        bce_dice(logits, target, sigmoid=sigmoid).backward()
        size[sigmoid] = logits.grad.abs().sum().item()
    # The derivative of the sigmoid at 0 is 1/4.
    assert 0 < size["twice"] < 0.3 * size["once"]


def test_a_finer_target_is_brought_to_the_logits():
    logits = torch.tensor([[2.0, -1.0], [0.5, -3.0]]).view(1, 1, 2, 2)
    finer = torch.zeros(1, 1, 4, 4, dtype=torch.uint8)
    finer[0, 0, :2, 0] = 1  # half of the first cell
    coarse = torch.tensor([[0.5, 0.0], [0.0, 0.0]]).view(1, 1, 2, 2)
    result = bce_dice(logits, finer).item()
    assert result == pytest.approx(bce_dice(logits, coarse).item(), abs=1e-6)
    assert result != pytest.approx(bce_dice(logits, (coarse > 0).float()).item(), abs=1e-3)
