from dataclasses import replace

import pytest
import torch

from clickvol.errors import ConfigError
from clickvol.mask_decoders.sam_mask_decoder import (
    LayeredMlp,
    SamMaskDecoder,
    SamMaskDecoderConfig,
)
from clickvol.prompt_encoders.sam_prompts import SamPromptEmbedding
from reference.compare import deviation, noise, randomise

TINY = SamMaskDecoderConfig(width=16, num_heads=2, mlp_width=24, iou_width=20)


def make_decoder(config=TINY):
    torch.manual_seed(0)
    return randomise(SamMaskDecoder(config))


def make_inputs(batch=2, num_prompts=3):
    prompts = SamPromptEmbedding(
        sparse=noise(batch, num_prompts, 16, seed=1), dense=noise(batch, 16, 4, 6, seed=2)
    )
    return noise(batch, 16, 4, 6), noise(1, 16, 4, 6, seed=3), prompts


def test_it_is_tokens_transformer_upscaling_and_inner_products():
    decoder = make_decoder()
    embedding, positions, prompts = make_inputs()
    result = decoder(embedding, positions, prompts)
    for b in range(2):
        weights = (decoder.iou_token.weight, decoder.mask_tokens.weight, prompts.sparse[b])
        image = (embedding + prompts.dense)[b].reshape(1, 16, 24).mT
        tokens, image = decoder.transformer(torch.cat(weights)[None], image, positions.reshape(1, 16, 24).mT)
        fine = decoder.output_upscaling(image.mT.reshape(1, 16, 4, 6))[0]
        assert fine.shape == (2, 16, 24)
        for m in range(4):
            classifier = decoder.output_hypernetworks_mlps[m](tokens[0, m + 1])
            expected = (classifier[:, None, None] * fine).sum(0)
            assert deviation(result.logits[b, m], expected) < 1e-5
        assert deviation(result.iou[b], decoder.iou_prediction_head(tokens[0, 0])) < 1e-5


def test_a_zero_shift_is_none_exactly_and_another_is_not():
    decoder, inputs = make_decoder(), make_inputs()
    plain = decoder(*inputs)
    unshifted = decoder(*inputs, mask_token_shift=torch.zeros(2, 4, 16))
    assert torch.equal(plain.logits, unshifted.logits)
    assert torch.equal(plain.iou, unshifted.iou)
    shift = torch.zeros(2, 4, 16)
    shift[1, 2] = 1.0
    shifted = decoder(*inputs, mask_token_shift=shift)
    assert torch.equal(shifted.logits[0], plain.logits[0])
    assert deviation(shifted.logits[1, 2], plain.logits[1, 2]) > 1e-3


def test_a_shift_is_a_change_of_the_learned_tokens():
    decoder, inputs = make_decoder(), make_inputs()
    shift = noise(4, 16, seed=5)
    shifted = decoder(*inputs, mask_token_shift=shift.expand(2, -1, -1))
    with torch.no_grad():
        decoder.mask_tokens.weight += shift
    assert deviation(shifted.logits, decoder(*inputs).logits) < 1e-5


def test_gradients_reach_shift_prompts_and_image_through_a_frozen_decoder():
    decoder = make_decoder().requires_grad_(False)
    embedding, positions, prompts = make_inputs()
    shift = torch.zeros(2, 4, 16, requires_grad=True)
    for tensor in (embedding, prompts.sparse, prompts.dense):
        tensor.requires_grad_()
    decoder(embedding, positions, prompts, mask_token_shift=shift).logits[:, 0].sum().backward()
    for tensor in (embedding, prompts.sparse, prompts.dense, shift):
        assert tensor.grad.abs().max() > 1e-5


def test_no_prompts_at_all_are_possible():
    embedding, positions, prompts = make_inputs(num_prompts=0)
    result = make_decoder()(embedding, positions, prompts)
    assert result.logits.shape == (2, 4, 16, 24)
    assert result.logits.isfinite().all()


def test_other_numbers_of_masks():
    decoder = make_decoder(replace(TINY, num_multimask=1))
    result = decoder(*make_inputs())
    assert result.logits.shape == (2, 2, 16, 24)
    assert result.iou.shape == (2, 2)


def test_relu_stands_between_the_layers_and_not_behind_them():
    mlp = LayeredMlp(1, 1, 1, depth=3)
    with torch.no_grad():
        for layer, weight in zip(mlp.layers, (1.0, 1.0, -1.0), strict=True):
            layer.weight.fill_(weight)
            layer.bias.zero_()
    assert mlp(torch.tensor([[2.0], [-2.0]])).flatten().tolist() == [-2.0, 0.0]


def test_the_published_size():
    with torch.device("meta"):
        state = SamMaskDecoder(SamMaskDecoderConfig()).state_dict()
    # Counted in the file of LiteMedSAM, whose mask decoder is SAM's.
    assert sum(tensor.numel() for tensor in state.values()) == 4058340
    assert state["output_upscaling.0.weight"].shape == (256, 64, 2, 2)
    assert state["iou_prediction_head.layers.2.weight"].shape == (4, 256)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 20}, "width is 20, but it must be a multiple of 8"),
        ({"num_heads": 3}, "half of it one of num_heads 3"),
        ({"iou_depth": 0}, "iou_depth is 0"),
    ],
)
def test_a_contradiction_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        replace(TINY, **change)
