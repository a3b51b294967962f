"""The tiny networks without clicks learn one patch."""

import pytest
import torch

from clickvol.methods.baselines import baseline_recipe
from clickvol.methods.registry import baseline_ids
from reference.lessons import Lesson, dice, learn, make_patch, mask_of

pytestmark = pytest.mark.slow

# (steps at most, rate). nnFormer learns slowly: what is fine reaches its answer through attention alone.
LEARNED_IN = {
    "dynunet": (40, 3e-2),
    "swin_unetr": (15, 3e-2),
    "unetr": (20, 3e-2),
    "uxnet3d": (30, 3e-2),
    "nnformer": (60, 5e-3),
}


def cube(shape_dhw, start, stop):
    """Return a mask along the cells of all these networks: what is finer, nnFormer learns slowly."""
    mask = torch.zeros(shape_dhw, dtype=torch.bool)
    mask[(slice(start, stop),) * 3] = True
    return mask


@pytest.mark.parametrize("kind", baseline_ids())
def test_it_learns_which_lesion_is_meant(kind):
    recipe = baseline_recipe(kind, "automatic", "tiny")
    d, h, w = recipe.network.patch_shape_dhw
    first, second = cube((d, h, w), 4, 16), cube((d, h, w), 16, 28)
    # The one that is meant is the darker one.
    patch = make_patch(1.5 * first - 1.5 * second)
    steps, rate = LEARNED_IN[kind]
    network = learn(recipe, patch, [Lesson((), second)], steps=steps, rate=rate)
    result = mask_of(network, patch)
    assert dice(result, second) > 0.9
    assert dice(result, first) < 0.1
