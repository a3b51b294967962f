"""The tiny networks of 3DSAM-adapter learn one patch."""

import pytest
import torch

from clickvol.methods.sam3d_adapter import sam3d_adapter_recipe
from reference.lessons import (
    UNLIKE,
    UNLIKE_LESSONS,
    Lesson,
    check_that_the_click_moves_the_mask,
    dice,
    ellipsoid,
    learn,
    make_patch,
    mask_of,
)

pytestmark = pytest.mark.slow


def test_the_prompted_one_learns_two_lesions_and_the_click_moves_the_mask():
    patch = make_patch(UNLIKE)
    recipe = sam3d_adapter_recipe("released", "tiny")
    # Of the narrow network's starts some learn late; this one does not.
    network = learn(recipe, patch, UNLIKE_LESSONS, steps=120, seed=3)
    check_that_the_click_moves_the_mask(network, patch)


def test_the_automatic_one_learns_which_lesion_is_meant_without_a_click():
    first = ellipsoid((20.0, 18.0, 22.0), (12.0, 10.0, 14.0), side=64)
    second = ellipsoid((42.0, 44.0, 40.0), (10.0, 14.0, 12.0), side=64)
    # The one that is meant is the darker one; no click says so.
    patch = make_patch(1.5 * first - 1.5 * second)
    recipe = sam3d_adapter_recipe("automatic", "tiny")
    network = learn(recipe, patch, [Lesson((), second)], steps=120)
    result = mask_of(network, patch)
    assert dice(result, second) > 0.9
    assert dice(result, first) < 0.1
    # A click is not looked at.
    assert torch.equal(mask_of(network, patch, ((20.0, 18.0, 22.0), 1)), result)
