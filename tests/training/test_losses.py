import json
import math

import numpy as np
import pytest
import torch

from clickvol.training.losses import dice_cross_entropy
from reference.golden import GOLDEN
from reference.seeded_official import loss_cases


@pytest.mark.parametrize("name", ["plain", "no_foreground", "touching_border"])
def test_it_is_the_structural_loss_of_the_published_code(name):
    expected = json.loads((GOLDEN / "losses.json").read_text())[name]["structural"]
    assert dice_cross_entropy(*loss_cases()[name]).item() == pytest.approx(expected, abs=2e-6)


def test_its_gradient_is_the_published_one():
    logits, label = loss_cases()["no_foreground"]
    logits.requires_grad_()
    dice_cross_entropy(logits, label).backward()
    with np.load(GOLDEN / "losses_no_foreground_gradient.npz") as stored:
        expected = stored["gradient"]
    found = logits.grad[0, :, ::3, ::3, ::3].numpy()
    assert np.abs(expected).max() > 1e-5
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-9)


def test_undecided_logits_by_hand():
    logits = torch.zeros(1, 2, 1, 2, 4)
    label = torch.tensor([1, 1, 0, 0, 0, 0, 0, 0], dtype=torch.uint8).view(1, 1, 1, 2, 4)
    # Probability one half everywhere: overlap 2 * 1, total 4 + 2.
    expected = 0.5 * (1 - 2 / 6) + 0.5 * math.log(2)
    assert dice_cross_entropy(logits, label).item() == pytest.approx(expected, abs=1e-5)


def test_dice_is_taken_per_sample_and_averaged():
    logits = torch.zeros(2, 2, 1, 1, 2)
    label = torch.zeros(2, 1, 1, 1, 2)
    label[0] = 1
    # The first sample: 2 * 1 / (1 + 2); the second: nothing over 1.
    expected = 0.5 * ((1 - 2 / 3) + 1) / 2 + 0.5 * math.log(2)
    assert dice_cross_entropy(logits, label).item() == pytest.approx(expected, abs=1e-5)


def test_a_perfect_answer_costs_nothing_and_a_wrong_one_much():
    label = torch.zeros(1, 1, 2, 2, 2)
    label[..., 0] = 1
    sure = 40 * (2 * torch.cat([1 - label, label], dim=1) - 1)
    assert dice_cross_entropy(sure, label).item() == pytest.approx(0, abs=1e-5)
    assert dice_cross_entropy(-sure, label).item() == pytest.approx(0.5 + 0.5 * 80, rel=1e-5)


def test_an_empty_label_answered_with_nothing_costs_nothing():
    label = torch.zeros(1, 1, 2, 2, 2)
    sure = 60 * (2 * torch.cat([1 - label, label], dim=1) - 1)
    assert dice_cross_entropy(sure, label).item() == pytest.approx(0, abs=1e-5)
