from dataclasses import FrozenInstanceError

import pytest

from clickvol.errors import ConfigError
from clickvol.methods.lifted_segmenter import LiftedSegmenterConfig
from clickvol.methods.recipe import AlignmentTerm, BoundaryTerm, LossRecipe, Recipe, TrainingClicks


@pytest.mark.parametrize("kernel", [(4, 5, 5), (5, 5, 0), (5, -1, 5)])
def test_a_pooling_window_without_a_middle_is_refused(kernel):
    with pytest.raises(ConfigError, match="a pooling window needs odd sides"):
        BoundaryTerm(kernel_dhw=kernel)


def test_logits_of_both_channels_have_no_label_to_be_compared_with():
    with pytest.raises(ConfigError, match="compares the foreground channel with the label"):
        BoundaryTerm(compared="logits", channels="both")
    assert BoundaryTerm(compared="logits").channels == "foreground"


def test_what_is_not_said_is_the_repaired_form():
    term = BoundaryTerm()
    assert (term.weight, term.kernel_dhw) == (10.0, (5, 5, 5))
    assert (term.border, term.channels, term.compared) == (
        "inside_only",
        "foreground",
        "probabilities",
    )
    alignment = AlignmentTerm()
    assert (alignment.weight, alignment.focal_input, alignment.object_word) == (
        1.0,
        "scores",
        "organ",
    )


def test_the_plain_loss_is_half_dice_and_half_cross_entropy():
    loss = LossRecipe()
    assert (loss.dice_weight, loss.cross_entropy_weight) == (0.5, 0.5)
    assert loss.boundary is None
    assert loss.alignment is None


def test_the_released_training_clicks():
    clicks = TrainingClicks()
    assert (clicks.foreground, clicks.others, clicks.others_from) == (10, 20, "everywhere")


def test_a_recipe_is_data_that_does_not_change():
    recipe = Recipe(method="m", preset="p", network=LiftedSegmenterConfig())
    assert recipe.training_clicks is None
    assert recipe == Recipe(method="m", preset="p", network=LiftedSegmenterConfig())
    with pytest.raises(FrozenInstanceError):
        recipe.preset = "q"
