"""The page of ProMISe-3D: what it refuses, and the published numbers of parameters."""

import pytest
import torch

from clickvol.errors import ConfigError
from clickvol.methods.lifted_segmenter import LiftedSegmenter
from clickvol.methods.promise3d import promise3d_recipe
from reference.compare import num_parameters


def test_the_base_preset_has_the_published_number_of_parameters():
    with torch.device("meta"):
        network = LiftedSegmenter(promise3d_recipe("released", "vit_b").network)
    assert num_parameters(network.image_encoder) == 111_277_324
    assert num_parameters(network.image_encoder.blocks[0]) == 8_296_513
    assert num_parameters(network.image_encoder.blocks[2]) == 8_315_713
    assert num_parameters(network.image_encoder.necks) == 7_868_416
    assert num_parameters(network.mask_decoder) == 8_501_248
    # Without the parts that the published network stores and never uses.
    assert num_parameters(network.prompt_encoder) == 2_900_736
    assert network.draw_on_features is None
    assert not list(network.buffers())


def test_an_unknown_preset_is_refused_with_the_known_ones():
    known = "released, paper, clickvol, clickvol-prompts, table2-b"
    with pytest.raises(ConfigError, match=f"no preset 'table2'; choose one of {known}"):
        promise3d_recipe("table2", "tiny")
