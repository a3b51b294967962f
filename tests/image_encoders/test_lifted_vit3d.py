from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from clickvol.errors import ConfigError
from clickvol.image_encoders.lifted_vit3d import (
    FoldedEmbedding,
    LiftedVit3d,
    LiftedVitConfig,
    interpolation_taps,
)
from reference.compare import deviation, noise, randomise
from reference.plain_attention import plain_block
from reference.plain_embedding import plain_embedding

TINY = LiftedVitConfig(
    width=12,
    depth=3,
    num_heads=3,
    mlp_ratio=2.0,
    tokens_dhw=(4, 4, 4),
    position_table_side=8,
    window=4,
    local_table_window=5,
    global_table_window=9,
    global_blocks=(1,),
    taps=(0, 2),
    feature_width=6,
)


def make_encoder(config=TINY):
    return randomise(LiftedVit3d(config))


@pytest.mark.parametrize("enlargement", [1, 2, 4, 8, 16])
def test_one_convolution_is_the_plain_embedding(enlargement):
    config = replace(TINY, width=5, num_heads=1, enlargement=enlargement)
    embedding = randomise(FoldedEmbedding(config))
    stride = 16 // enlargement
    patch = noise(2, 1, 2 * stride, 3 * stride, 4 * stride)
    result = embedding(patch)
    assert result.shape == (2, 2, 3, 4, 5)
    assert deviation(result, plain_embedding(embedding, patch)) < 1e-5


def test_the_embedding_knows_its_axes():
    embedding = randomise(FoldedEmbedding(replace(TINY, width=5, num_heads=1)))
    patch = noise(1, 1, 8, 8, 8)
    turned = embedding(patch.permute(0, 1, 3, 4, 2)).permute(0, 3, 1, 2, 4)
    assert deviation(turned, embedding(patch)) > 1e-2


def test_tokens_are_float32_and_in_order_whatever_the_rest_is_in():
    embedding = randomise(FoldedEmbedding(replace(TINY, width=5, num_heads=1)))
    patch = noise(2, 1, 8, 12, 16)
    with torch.autocast("cpu", torch.bfloat16):
        tokens = embedding(patch)
    assert tokens.is_contiguous()
    assert torch.equal(tokens, embedding(patch))


def test_both_published_kernels_can_be_trained_through_the_fold():
    embedding = randomise(FoldedEmbedding(replace(TINY, width=5, num_heads=1)))
    patch = noise(1, 1, 4, 8, 8)
    result = torch.autograd.grad(embedding(patch).square().sum(), list(embedding.parameters()))
    expected = torch.autograd.grad(
        plain_embedding(embedding, patch).square().sum(), list(embedding.parameters())
    )
    for ours, plain in zip(result, expected, strict=True):
        assert deviation(ours, plain) <= 1e-4 * plain.abs().max() + 1e-5


def test_interpolation_by_hand():
    # Enlarged twice, the fine voxels 0, 1 and 15 are at -0.25, 0.25 and 7.25 of the token's coarse ones.
    taps = interpolation_taps(2, like=torch.zeros(1))
    assert taps.shape == (16, 10)
    assert taps[0].tolist() == [0.25, 0.75, *[0.0] * 8]
    assert taps[1].tolist() == [0.0, 0.75, 0.25, *[0.0] * 7]
    assert taps[15].tolist() == [*[0.0] * 8, 0.75, 0.25]


def test_without_enlargement_nothing_is_interpolated():
    taps = interpolation_taps(1, like=torch.zeros(1))
    assert torch.equal(taps[:, 1:-1], torch.eye(16))
    assert taps[:, [0, -1]].abs().max() == 0


def plain_encoder(encoder, patch):
    """Feature maps from the plain embedding, positions and blocks."""
    tokens = plain_embedding(encoder.embedding, patch)
    d, h, w = tokens.shape[1:4]
    side = encoder.pos_embed.shape[1]
    planar = encoder.pos_embed.view(1, h, side // h, w, side // w, -1).mean(dim=(2, 4))
    tokens = tokens + planar[:, None] + encoder.depth_embed.view(1, d, 1, 1, -1)
    maps = []
    for index, block in enumerate(encoder.blocks):
        tokens = plain_block(block, tokens)
        if index in encoder.config.taps:
            neck = encoder.necks[len(maps)]
            x = F.linear(tokens, neck[0].weight[:, :, 0, 0, 0])
            x = F.layer_norm(x, x.shape[-1:], neck[1].weight, neck[1].bias, 1e-6)
            x = F.conv3d(x.movedim(-1, 1), neck[2].weight, padding=1).movedim(1, -1)
            x = F.layer_norm(x, x.shape[-1:], neck[3].weight, neck[3].bias, 1e-6)
            maps.append(x.movedim(-1, 1))
    return maps


def test_the_whole_encoder_is_the_plain_one():
    # Three different sides; tables of 8 in-plane places pooled to 4 and 8.
    config = replace(TINY, tokens_dhw=(6, 4, 8), window=4)
    encoder = make_encoder(config)
    patch = noise(2, 1, 24, 16, 32)
    result = encoder(patch).maps
    expected = plain_encoder(encoder, patch)
    assert len(result) == len(expected) == 2
    for ours, plain in zip(result, expected, strict=True):
        assert ours.shape == (2, 6, 6, 4, 8)
        assert deviation(ours, plain) < 1e-4


def test_blocks_are_shifted_in_turn_beginning_with_the_first():
    encoder = make_encoder()
    assert [block.shifted for block in encoder.blocks] == [True, False, True]
    still = make_encoder(replace(TINY, shift_windows=False))
    assert [block.shifted for block in still.blocks] == [False, False, False]


def test_tables_have_the_lengths_of_sam():
    encoder = make_encoder()
    assert [block.attn.rel_pos_d.shape[0] for block in encoder.blocks] == [9, 17, 9]


def test_nothing_derived_is_stored():
    encoder = make_encoder()
    parameters = dict(encoder.named_parameters())
    assert encoder.state_dict().keys() == parameters.keys()
    # Neither a mask, nor a folded kernel (width, 1, 6, 6, 6), nor a resampled table of 7 rows.
    shapes = {tuple(p.shape) for p in parameters.values()}
    assert not any(s[-1:] == (64,) or s[-3:] == (6, 6, 6) or s[:1] == (7,) for s in shapes)
    assert not any("mask" in name for name in parameters)


def test_depth_positions_start_at_one_as_published():
    assert torch.equal(LiftedVit3d(TINY).depth_embed, torch.ones(1, 4, 12))
    assert LiftedVit3d(replace(TINY, depth_position_start=0.0)).depth_embed.abs().max() == 0


@pytest.mark.parametrize("shape", [(8, 16, 24), (16, 32, 16), (4, 40, 12)])
def test_a_batch_is_its_samples(shape):
    encoder = make_encoder()
    patch = noise(2, 1, *shape)
    together = encoder(patch).maps
    for index in (0, 1):
        for joint, alone in zip(together, encoder(patch[index : index + 1]).maps, strict=True):
            assert joint.shape[2:] == tuple(n // 4 for n in shape)
            assert deviation(joint[index : index + 1], alone) < 1e-5


def test_inference_is_the_path_with_gradient(monkeypatch):
    monkeypatch.setattr("clickvol.layers.vit._CHUNK_TOKENS", 100)
    encoder = make_encoder()
    patch = noise(2, 1, 20, 32, 24)
    with torch.inference_mode():
        result = encoder(patch).maps
    for ours, expected in zip(result, encoder(patch).maps, strict=True):
        assert deviation(ours, expected) < 1e-5


def test_checkpointed_blocks_have_the_same_gradients():
    encoder = make_encoder()
    patch = noise(2, 1, 16, 16, 20)

    def gradients():
        encoder.zero_grad()
        torch.stack([m.square().sum() for m in encoder(patch).maps]).sum().backward()
        return {name: parameter.grad.clone() for name, parameter in encoder.named_parameters()}

    expected = gradients()
    encoder.checkpoint_blocks = True
    for name, result in gradients().items():
        assert deviation(result, expected[name]) <= 1e-5 * float(expected[name].abs().max()), name


def test_checkpointed_blocks_keep_less_for_the_backward_pass():
    encoder = make_encoder()
    patch = noise(2, 1, 16, 16, 20)

    def kept_bytes():
        sizes = {}

        def keep(tensor):
            sizes[tensor.data_ptr()] = tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            maps = encoder(patch).maps
        return sum(sizes.values()), maps

    whole, _ = kept_bytes()
    encoder.checkpoint_blocks = True
    assert kept_bytes()[0] < 0.5 * whole


@pytest.mark.parametrize("shape", [(15, 16, 16), (16, 18, 16), (16, 16, 1)])
def test_a_side_that_is_no_multiple_of_the_stride_is_refused(shape):
    with pytest.raises(ConfigError, match=r"every side must be a multiple of 4"):
        make_encoder()(torch.zeros(1, 1, *shape))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"enlargement": 3}, "enlargement is 3"),
        ({"width": 13}, "width 13 is not a multiple of num_heads 3"),
        ({"taps": ()}, "taps"),
        ({"taps": (2, 0)}, "taps"),
        ({"taps": (0, 0)}, "taps"),
        ({"taps": (0, 3)}, "below depth 3"),
        ({"taps": (-1, 2)}, "taps"),
    ],
)
def test_a_contradictory_configuration_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        replace(TINY, **change)
