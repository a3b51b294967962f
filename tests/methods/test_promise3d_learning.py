"""The tiny network learns one patch with two lesions, and to give the clicked one."""

from dataclasses import replace

import pytest
import torch

from clickvol.methods.promise3d import promise3d_recipe
from clickvol.methods.recipe import LossRecipe
from reference.lessons import (
    BOTH,
    CENTRE_A,
    CENTRE_B,
    INSIDE,
    OUTSIDE,
    UNLIKE,
    UNLIKE_LESSONS,
    A,
    B,
    Lesson,
    check_that_the_click_moves_the_mask,
    dice,
    ellipsoid,
    learn,
    logits_of,
    make_patch,
    mask_of,
)

pytestmark = pytest.mark.slow

LESSONS = {
    "a": Lesson(((CENTRE_A, INSIDE),), A),
    "b": Lesson(((CENTRE_B, INSIDE),), B),
    "a and b": Lesson(((CENTRE_A, INSIDE), (CENTRE_B, INSIDE)), BOTH),
    "a not b": Lesson(((CENTRE_A, INSIDE), (CENTRE_B, OUTSIDE)), A),
}


PATCH = make_patch()


@pytest.fixture(scope="module")
def network():
    # Alike in every way but their place: the loss without the boundary term is enough to tell them apart.
    recipe = replace(promise3d_recipe("clickvol", "tiny"), loss=LossRecipe())
    return learn(recipe, PATCH, list(LESSONS.values()), steps=120)


def test_the_released_form_learns_two_lesions_and_the_click_moves_the_mask():
    patch = make_patch(UNLIKE)
    released = learn(promise3d_recipe("released", "tiny"), patch, UNLIKE_LESSONS, steps=80)
    check_that_the_click_moves_the_mask(released, patch)


@pytest.mark.parametrize("name", LESSONS)
def test_the_lessons_are_learned(network, name):
    lesson = LESSONS[name]
    assert dice(mask_of(network, PATCH, *lesson.clicks), lesson.target) > 0.9


def test_the_click_moves_the_mask(network):
    at_a, at_b = (mask_of(network, PATCH, (place, INSIDE)) for place in (CENTRE_A, CENTRE_B))
    assert not torch.equal(at_a, at_b)
    assert dice(at_a, B) < 0.1
    assert dice(at_b, A) < 0.1


def test_a_click_elsewhere_in_the_lesion_finds_the_same_lesion(network):
    off_centre = tuple(c + 2 for c in CENTRE_B)
    assert dice(mask_of(network, PATCH, (off_centre, INSIDE)), B) > 0.8


def test_a_background_click_is_not_an_object_click(network):
    first = (CENTRE_A, INSIDE)
    with_b, without_b = (mask_of(network, PATCH, first, (CENTRE_B, s)) for s in (INSIDE, OUTSIDE))
    assert with_b[21, 22, 20]
    assert not without_b[21, 22, 20]
    assert dice(with_b & B, B) > 0.8
    assert dice(without_b & B, B) < 0.1


def test_a_background_click_changes_the_logits_around_it_most(network):
    # A place and a pair of clicks of which no lesson said anything.
    before = logits_of(network, PATCH, (CENTRE_A, INSIDE))
    change = (logits_of(network, PATCH, (CENTRE_A, INSIDE), ((10.0, 14.0, 11.0), OUTSIDE)) - before).abs()
    near = ellipsoid((10.0, 14.0, 11.0), (3.0, 3.0, 3.0))
    far = ~ellipsoid((10.0, 14.0, 11.0), (14.0, 14.0, 14.0))
    assert change[near].mean() > 2 * change[far].mean()
