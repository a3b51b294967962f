import re
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from clickvol.image_encoders.lifted_tiny_vit import LiftedTinyVitConfig
from clickvol.image_encoders.tiny_vit import TinyVitConfig
from clickvol.methods.freezing import freeze_foundation, num_parameters
from clickvol.methods.lifted_segmenter import LiftedSegmenter
from clickvol.methods.promise3d import promise3d_recipe
from clickvol.methods.registry import find_recipe
from clickvol.prompt_encoders.feature_sampling import PointPrompts
from reference.compare import noise, randomise
from reference.plain_tiny_vit import randomise_norms

PATCH = (16, 32, 24)
PROMPTS = PointPrompts(
    torch.tensor([[[5.0, 20.0, 12.0], [9.0, 3.0, 20.0]], [[1.0, 30.0, 2.0], [0.0, 0.0, 0.0]]]),
    torch.tensor([[1, 0], [1, -1]]),
)
# What the published code trains of the encoder (ProMISe-3D, section 2.2, and its released build).
TRAINED_OF_SAM = re.compile(
    r"depth_embed|embedding\.slice_embed\..+|necks\..+"
    r"|blocks\.\d+\.(norm1|norm2|adapter|adapter_back)\..+|blocks\.\d+\.attn\.rel_pos_d"
)

# Published: all and trained of the encoder; spec of the released builds, counted on them.
PROMISE_ENCODER = (111_277_324, 22_430_720)
ADAPTER_ENCODER = (104_056_588, 15_209_984)
PROMPT_ENCODER = 2_900_736
PROMISE_DECODER, ADAPTER_DECODER = 8_501_248, 7_088_256
# The repaired form: two signs, seven drawn maps joined to the features and to the decoder.
CLICKVOL_MORE = 2 * 256 + (7 * 256 + 256) + 27 * 7 * 128


def counted(method, preset):
    with torch.device("meta"):
        network = LiftedSegmenter(find_recipe(method, preset, "vit_b").network)
    freeze_foundation(network)
    return network


def count(module):
    sizes = [(p.numel(), p.requires_grad) for p in module.parameters()]
    return sum(n for n, _ in sizes), sum(n for n, trained in sizes if trained)


@pytest.mark.parametrize(
    ("method", "preset", "encoder", "prompt", "decoder"),
    [
        ("promise3d", "released", PROMISE_ENCODER, PROMPT_ENCODER, PROMISE_DECODER),
        ("promise3d", "paper", PROMISE_ENCODER, PROMPT_ENCODER, PROMISE_DECODER),
        ("sam3d_adapter", "released", ADAPTER_ENCODER, PROMPT_ENCODER, ADAPTER_DECODER),
        ("sam3d_adapter", "automatic", ADAPTER_ENCODER, 0, ADAPTER_DECODER),
    ],
)
def test_the_published_counts(method, preset, encoder, prompt, decoder):
    network = counted(method, preset)
    assert count(network.image_encoder) == encoder
    assert count(network.mask_decoder) == (decoder, decoder)
    if prompt:
        assert count(network.prompt_encoder) == (prompt, prompt)
    else:
        assert network.prompt_encoder is None
    rest = prompt + decoder
    assert num_parameters(network) == (encoder[0] + rest, encoder[1] + rest)


def test_the_published_sums():
    assert num_parameters(counted("promise3d", "released")) == (122_679_308, 33_832_704)
    assert num_parameters(counted("sam3d_adapter", "released")) == (114_045_580, 25_198_976)
    assert num_parameters(counted("sam3d_adapter", "automatic")) == (111_144_844, 22_298_240)


def test_the_repaired_form_trains_a_little_more():
    result = num_parameters(counted("promise3d", "clickvol"))
    assert CLICKVOL_MORE == 26_752
    assert result == (122_679_308 + CLICKVOL_MORE, 33_832_704 + CLICKVOL_MORE)


def gradients(network, shape=PATCH):
    """Return the names of the parameters with a gradient after one backward pass, and without."""
    logits = network(noise(2, 1, *shape), PROMPTS)
    F.cross_entropy(logits, (noise(2, *shape, seed=2) > 0).long()).backward()
    names = dict(network.named_parameters())
    return {n for n in names if names[n].grad is not None}, {n for n in names if names[n].grad is None}


def moved(network):
    """Return the names of the parameters whose gradient is more than rounding."""
    result = {n: p.grad.abs().max() for n, p in network.named_parameters() if p.grad is not None}
    largest = max(result.values())
    return {name for name, size in result.items() if size > 1e-7 * largest}


TINY = [
    *(("promise3d", name) for name in ("released", "paper", "clickvol")),
    *(("promise3d", f"table2-{row}") for row in ("two-adapters", "up-conv", "r", "c")),
    *(("sam3d_adapter", name) for name in ("released", "automatic")),
]


@pytest.mark.parametrize(("method", "preset"), TINY)
def test_gradients_reach_exactly_what_is_trained(method, preset):
    torch.manual_seed(3)
    network = randomise(LiftedSegmenter(find_recipe(method, preset, "tiny").network))
    freeze_foundation(network)
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    expected = {
        name
        for name, _ in network.named_parameters()
        if not name.startswith("image_encoder.")
        or TRAINED_OF_SAM.fullmatch(name.removeprefix("image_encoder."))
    }
    assert trained == expected
    with_gradient, without = gradients(network)
    assert with_gradient == trained
    assert without == {name for name, p in network.named_parameters() if not p.requires_grad}
    assert without
    # The bias of a key adds the same number to every logit of a row, which softmax ignores.
    assert trained - moved(network) == {n for n in trained if n.endswith("k_proj.bias")}


def lifted_litemedsam():
    """A tiny lifted TinyViT around which everything is of the tiny size."""
    encoder = LiftedTinyVitConfig(
        slice_encoder=TinyVitConfig(
            widths=(4, 6, 8, 12),
            depths=(1, 2, 1, 1),
            num_heads=(1, 2, 2, 3),
            windows=(3, 3, 4, 3),
            feature_width=10,
        ),
        slice_steps=(1, 2, 2, 1),
        feature_width=16,
        token_stride=4,
    )
    config = promise3d_recipe("clickvol", "tiny").network
    decoder = replace(config.decoder, num_levels=4)
    return LiftedSegmenter(replace(config, encoder=encoder, decoder=decoder))


def test_a_lifted_tiny_vit_trains_all_but_its_2d_network():
    torch.manual_seed(4)
    network = lifted_litemedsam()
    randomise_norms(network.image_encoder.slice_encoder)
    for part in (network.prompt_encoder, network.mask_decoder, network.draw_on_features):
        randomise(part)
    randomise(network.image_encoder.adapters)
    freeze_foundation(network)
    statistics = {name: values.clone() for name, values in network.named_buffers()}
    network.train()
    with_gradient, without = gradients(network)
    own = {n for n, _ in network.named_parameters() if "image_encoder.slice_encoder." in n}
    assert without == own
    assert len(own) > 50
    assert all("image_encoder.slice_encoder." not in name for name in with_gradient)
    assert {n for n in with_gradient - moved(network) if not n.endswith("k_proj.bias")} == set()
    # What the 2D network knows of its images stays too.
    assert all(torch.equal(values, statistics[name]) for name, values in network.named_buffers())
    total, trained = num_parameters(network)
    assert total - trained == sum(p.numel() for p in network.image_encoder.slice_encoder.parameters())
