"""Released, paper and ours, and the rows of Table 2: each differs by what it is named for."""

from dataclasses import replace

import pytest
import torch

from clickvol.methods.freezing import freeze_foundation, num_parameters
from clickvol.methods.lifted_segmenter import LiftedSegmenter, LiftedSegmenterConfig
from clickvol.methods.promise3d import ABLATIONS, FIDELITIES, PRESETS, promise3d_recipe
from clickvol.methods.recipe import BoundaryTerm, LossRecipe, TrainingClicks
from clickvol.methods.sam3d_adapter import sam3d_adapter_recipe

# Trained values that a row of Table 2 has more than 3DSAM-adapter, at ViT-B size.
SECOND_ADAPTERS = 12 * 601_728
UP_CONVOLUTIONS = 4 * (128 * 128 * 2**3 + 128)
IMAGE_CNN = 27 * 1 * 128 + 27 * 128 * 128
JOINED_CNN = 27 * 128 * 128
MORE_THAN_BASELINE = {
    "baseline": 0,
    "two-adapters": SECOND_ADAPTERS,
    "up-conv": SECOND_ADAPTERS + UP_CONVOLUTIONS,
    "r": SECOND_ADAPTERS + UP_CONVOLUTIONS + IMAGE_CNN,
    "r-b": SECOND_ADAPTERS + UP_CONVOLUTIONS + IMAGE_CNN,
    "c": SECOND_ADAPTERS + UP_CONVOLUTIONS + IMAGE_CNN + JOINED_CNN,
    "c-b": SECOND_ADAPTERS + UP_CONVOLUTIONS + IMAGE_CNN + JOINED_CNN,
}
RELEASED_BOUNDARY = BoundaryTerm(weight=10.0, kernel_dhw=(5, 5, 1), border="zeros_counted", channels="both")


def row(name, size="vit_b"):
    return promise3d_recipe(f"table2-{name}", size)


def counted(recipe):
    with torch.device("meta"):
        network = LiftedSegmenter(recipe.network)
    freeze_foundation(network)
    return num_parameters(network)


def test_all_presets():
    assert FIDELITIES == ("released", "paper", "clickvol")
    assert tuple(MORE_THAN_BASELINE) == ABLATIONS
    assert set(PRESETS) == {*FIDELITIES, "clickvol-prompts", *(f"table2-{name}" for name in ABLATIONS)}
    assert len(PRESETS) == len(set(PRESETS)) == 4 + 7
    for preset in PRESETS:
        assert promise3d_recipe(preset, "tiny").preset == preset


def test_the_numbers_made_by_hand():
    assert SECOND_ADAPTERS == 7_220_736
    assert UP_CONVOLUTIONS == 524_800
    assert IMAGE_CNN == 445_824
    assert JOINED_CNN == 442_368


@pytest.mark.parametrize("name", ABLATIONS)
def test_a_row_has_exactly_the_parameters_that_it_adds(name):
    more = MORE_THAN_BASELINE[name]
    assert counted(row(name)) == (114_045_580 + more, 25_198_976 + more)


@pytest.mark.parametrize("name", ABLATIONS)
def test_only_the_rows_with_b_have_the_boundary_term(name):
    boundary = RELEASED_BOUNDARY if name in ("r-b", "c-b") else None
    assert row(name).loss == LossRecipe(dice_weight=0.5, cross_entropy_weight=0.5, boundary=boundary)


def test_each_row_changes_what_it_is_named_for_and_nothing_else():
    baseline, adapters, up, r, r_b, c, c_b = (row(name).network for name in ABLATIONS)
    assert baseline.encoder.second_adapter == "none"
    assert adapters == replace(baseline, encoder=replace(baseline.encoder, second_adapter="doubled"))
    assert baseline.decoder.level_enlargement == "trilinear"
    assert up == replace(adapters, decoder=replace(adapters.decoder, level_enlargement="transposed"))
    assert (up.decoder.image_fusion, up.decoder.image_width) == ("none", 0)
    assert r == r_b
    assert r == replace(up, decoder=replace(up.decoder, image_fusion="added", image_width=128))
    assert c == c_b
    assert c == replace(up, decoder=replace(up.decoder, image_fusion="concatenated", image_width=128))


@pytest.mark.parametrize("size", ["vit_b", "tiny"])
def test_the_first_row_is_3dsam_adapter(size):
    other = sam3d_adapter_recipe("released", size)
    first = row("baseline", size)
    assert first == replace(other, method="promise3d", preset="table2-baseline")


@pytest.mark.parametrize("size", ["vit_b", "vit_h", "small", "tiny"])
def test_the_last_row_is_the_released_system(size):
    assert row("c-b", size) == replace(promise3d_recipe("released", size), preset="table2-c-b")


def test_the_defaults_are_the_released_network():
    assert LiftedSegmenterConfig() == promise3d_recipe("released", "vit_b").network


def test_the_released_form():
    recipe = promise3d_recipe("released", "vit_b")
    assert recipe.loss.boundary == RELEASED_BOUNDARY
    assert recipe.training_clicks == TrainingClicks(foreground=10, others=20, others_from="everywhere")
    network = recipe.network
    assert network.encoder.second_adapter == "doubled"
    assert (network.prompt.positions, network.prompt.signed) == ("ignored", False)
    assert (network.click_radii_voxel, network.mask_prompt) == ((), False)


def test_what_the_paper_says_otherwise():
    released, paper = (promise3d_recipe(name, "vit_b") for name in ("released", "paper"))
    assert paper.network == replace(
        released.network,
        encoder=replace(released.network.encoder, second_adapter="plain"),
        prompt=replace(released.network.prompt, positions="fourier"),
    )
    assert (paper.loss.dice_weight, paper.loss.cross_entropy_weight) == (1.0, 1.0)
    assert paper.loss.boundary.weight == 10.0
    assert paper.loss.boundary.kernel_dhw == (5, 5, 5)
    assert (paper.loss.boundary.compared, paper.loss.boundary.channels) == ("logits", "foreground")
    assert paper.training_clicks == TrainingClicks(foreground=10, others=10, others_from="background")


def test_ours_repairs_and_adds_and_keeps_the_rest():
    released, ours = (promise3d_recipe(name, "vit_b") for name in ("released", "clickvol"))
    changed = replace(
        released.network.encoder,
        second_adapter="plain",
        adapter_initialisation="zero",
        adapter_final_relu=False,
        depth_position_start=0.0,
    )
    assert ours.network.encoder == changed
    assert ours.network.prompt == replace(released.network.prompt, signed=True, positions="fourier")
    # Three radii of each sign, and the earlier mask.
    assert ours.network.decoder == replace(released.network.decoder, num_prompt_maps=7)
    assert ours.network.mask_prompt
    assert ours.loss.boundary.border == "inside_only"
    assert ours.loss.boundary.channels == "foreground"
    assert ours.training_clicks is None
