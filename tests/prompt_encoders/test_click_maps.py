import math

import pytest
import torch

from clickvol.prompt_encoders.click_maps import draw_clicks
from clickvol.prompt_encoders.feature_sampling import PointPrompts

INSIDE, OUTSIDE, ABSENT = 1, 0, -1


def prompts(*samples):
    """Each sample is a list of ((d, h, w), label)."""
    points = torch.tensor([[place for place, _ in s] for s in samples], dtype=torch.float32)
    return PointPrompts(points, torch.tensor([[label for _, label in s] for s in samples]))


def test_a_blob_is_one_at_the_click_and_falls_with_the_distance():
    maps = draw_clicks(prompts([((1, 2, 3), INSIDE)]), (4, 5, 6), (4, 5, 6), (2.0,))
    assert maps.shape == (1, 2, 4, 5, 6)
    assert maps[0, 0, 1, 2, 3].item() == 1.0
    # One and two voxels off along h, the diagonal (1, 2, -3).
    assert maps[0, 0, 1, 3, 3].item() == pytest.approx(math.exp(-1 / 8))
    assert maps[0, 0, 1, 0, 3].item() == pytest.approx(math.exp(-4 / 8))
    assert maps[0, 0, 2, 4, 0].item() == pytest.approx(math.exp(-14 / 8))


def test_an_absent_sign_is_zeros():
    maps = draw_clicks(prompts([((1, 2, 3), INSIDE)]), (4, 5, 6), (4, 5, 6), (2.0, 900.0))
    assert maps[:, 2:].abs().max() == 0
    maps = draw_clicks(prompts([((1, 2, 3), OUTSIDE)]), (4, 5, 6), (4, 5, 6), (2.0, 900.0))
    assert maps[:, :2].abs().max() == 0
    assert maps[0, 2, 1, 2, 3] == 1.0


def test_padding_draws_nothing_and_changes_nothing():
    only = draw_clicks(prompts([((1, 2, 3), INSIDE)]), (4, 5, 6), (4, 5, 6), (1.0, 3.0))
    padded = prompts([((0, 0, 0), ABSENT), ((1, 2, 3), INSIDE), ((3, 3, 3), ABSENT)])
    assert torch.equal(draw_clicks(padded, (4, 5, 6), (4, 5, 6), (1.0, 3.0)), only)
    nothing = draw_clicks(prompts([((1, 2, 3), ABSENT)]), (4, 5, 6), (4, 5, 6), (1.0, 3.0))
    assert nothing.abs().max() == 0


def test_the_nearest_click_of_a_sign_counts():
    clicks = prompts([((0, 0, 0), INSIDE), ((0, 0, 5), INSIDE), ((0, 0, 1), OUTSIDE)])
    row = draw_clicks(clicks, (1, 1, 6), (1, 1, 6), (1.0,))[0, :, 0, 0]
    inside = [math.exp(-(min(w, 5 - w) ** 2) / 2) for w in range(6)]
    outside = [math.exp(-((w - 1) ** 2) / 2) for w in range(6)]
    assert row[0].tolist() == pytest.approx(inside)
    assert row[1].tolist() == pytest.approx(outside)


def test_channels_are_inside_for_each_radius_then_beside():
    clicks = prompts([((0, 0, 0), INSIDE), ((0, 0, 1), OUTSIDE)])
    values = draw_clicks(clicks, (1, 1, 3), (1, 1, 3), (1.0, 2.0))[0, :, 0, 0, 2]
    expected = [math.exp(-4 / 2), math.exp(-4 / 8), math.exp(-1 / 2), math.exp(-1 / 8)]
    assert values.tolist() == pytest.approx(expected)


def test_coarse_cells_are_measured_from_their_centres_in_patch_voxels():
    # Cell 1 of two over four voxels has its centre at voxel 2.5; the sides differ in their factors.
    maps = draw_clicks(prompts([((2, 1, 3), INSIDE)]), (2, 3, 2), (4, 3, 8), (2.0,))
    assert maps[0, 0, 1, 1, 0].item() == pytest.approx(math.exp(-(0.5**2 + 0 + 1.5**2) / 8))
    assert maps[0, 0, 0, 2, 1].item() == pytest.approx(math.exp(-(1.5**2 + 1 + 2.5**2) / 8))


def test_a_click_outside_the_patch_is_measured_too():
    maps = draw_clicks(prompts([((-1, 0, 0), INSIDE)]), (2, 1, 1), (2, 1, 1), (1.0,))
    assert maps.flatten().tolist()[:2] == pytest.approx([math.exp(-1 / 2), math.exp(-4 / 2)])


def test_samples_have_their_own_clicks():
    first, second = [((0, 1, 2), INSIDE)], [((1, 0, 0), OUTSIDE)]
    both = draw_clicks(prompts(first, second), (2, 2, 3), (2, 2, 3), (1.5,))
    assert torch.equal(both[:1], draw_clicks(prompts(first), (2, 2, 3), (2, 2, 3), (1.5,)))
    assert torch.equal(both[1:], draw_clicks(prompts(second), (2, 2, 3), (2, 2, 3), (1.5,)))
