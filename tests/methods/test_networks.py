from typing import get_args

import pytest
import torch

from clickvol.errors import ConfigError
from clickvol.methods import promise3d, sam3d_adapter, tags
from clickvol.methods.baselines import BASELINE_IDS, BaselineConfig, BaselineSegmenter
from clickvol.methods.lifted_segmenter import LiftedSegmenter, LiftedSegmenterConfig
from clickvol.methods.networks import find_recipe, network_kind
from clickvol.methods.promise2d import Promise2d, Promise2dConfig
from clickvol.methods.sam2d import Sam2d, Sam2dConfig
from clickvol.weights.card import ModelCard

KINDS = {
    "promise3d": (LiftedSegmenterConfig, LiftedSegmenter),
    "sam3d_adapter": (LiftedSegmenterConfig, LiftedSegmenter),
    "tags": (LiftedSegmenterConfig, LiftedSegmenter),
    "promise2d": (Promise2dConfig, Promise2d),
    "sam2d": (Sam2dConfig, Sam2d),
    **dict.fromkeys(BASELINE_IDS, (BaselineConfig, BaselineSegmenter)),
}
PRESETS = [(page.METHOD_ID, preset) for page in (promise3d, sam3d_adapter, tags) for preset in page.PRESETS]
PRESETS += [(kind, "automatic") for kind in BASELINE_IDS]


@pytest.mark.parametrize("method", KINDS)
def test_what_the_networks_of_a_method_are_made_of(method):
    kind = network_kind(method)
    assert (kind.config_type, kind.build) == KINDS[method]


def test_every_method_of_a_card_has_networks():
    methods = get_args(ModelCard.model_fields["method"].annotation)
    assert set(methods) == set(KINDS)


@pytest.mark.parametrize(("method", "preset"), PRESETS)
def test_every_preset_of_a_3d_method_is_found_and_builds(method, preset):
    recipe = find_recipe(method, preset, "tiny")
    assert (recipe.method, recipe.preset) == (method, preset)
    with torch.device("meta"):
        network = network_kind(method).build(recipe.network)
    assert network.config == recipe.network


def test_an_unknown_method_is_refused_with_the_known_ones():
    baselines = ", ".join(BASELINE_IDS)
    known = f"promise3d, sam3d_adapter, tags, promise2d, sam2d, {baselines}"
    with pytest.raises(ConfigError, match=f"no method 'unet'; choose one of {known}$"):
        network_kind("unet")
    known = f"promise3d, sam3d_adapter, tags, {baselines}"
    with pytest.raises(ConfigError, match=f"no 3D method 'sam2d'; choose one of {known}$"):
        find_recipe("sam2d", "released", "tiny")


@pytest.mark.parametrize(
    ("method", "presets"),
    [
        ("promise3d", "released"),
        ("sam3d_adapter", "released"),
        ("tags", "released"),
        *[(kind, "automatic") for kind in BASELINE_IDS],
    ],
)
def test_an_unknown_preset_or_size_is_refused(method, presets):
    with pytest.raises(ConfigError, match=f"has no preset 'newest'; choose one of {presets}"):
        find_recipe(method, "newest", "tiny")
    with pytest.raises(ConfigError, match="there is no size 'vast'"):
        find_recipe(method, presets, "vast")
