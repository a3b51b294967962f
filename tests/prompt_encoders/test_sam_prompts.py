import copy
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from clickvol.errors import ConfigError
from clickvol.prompt_encoders.sam_prompts import Prompts2d, SamPromptConfig, SamPrompts
from reference.compare import deviation, noise, randomise

TINY = SamPromptConfig(width=8, image_side=32, grid_side=4, mask_channels=8)


def make_encoder():
    torch.manual_seed(0)
    return randomise(SamPrompts(TINY))


def code(encoder, x, y):
    """Return the code of a place in pixels, sum by sum."""
    matrix = encoder.pe_layer.positional_encoding_gaussian_matrix
    place = [2 * (x + 0.5) / 32 - 1, 2 * (y + 0.5) / 32 - 1]
    angles = [2 * math.pi * sum(place[a] * matrix[a, c].item() for a in (0, 1)) for c in range(4)]
    return torch.tensor([math.sin(a) for a in angles] + [math.cos(a) for a in angles])


def points(*xy_label):
    """Return points of one image from (x, y, label)."""
    xy = torch.tensor([[p[:2] for p in xy_label]], dtype=torch.float32)
    return Prompts2d(points_xy_pixel=xy, labels=torch.tensor([[p[2] for p in xy_label]]))


def kind(encoder, number):
    return encoder.point_embeddings[number].weight[0]


def test_points_are_codes_with_their_sign_and_a_padding_point():
    encoder = make_encoder()
    sparse = encoder(points((3.0, 20.0, 1), (7.5, 0.0, 0)), 1).sparse
    expected = torch.stack(
        [
            code(encoder, 3.0, 20.0) + kind(encoder, 1),
            code(encoder, 7.5, 0.0) + kind(encoder, 0),
            encoder.not_a_point_embed.weight[0],
        ]
    )[None]
    assert deviation(sparse, expected) < 1e-5


def test_padding_ignores_its_coordinates():
    encoder = make_encoder()
    sparse = encoder(points((3.0, 20.0, 1), (math.nan, 1e9, -1)), 1).sparse
    expected = encoder(points((3.0, 20.0, 1), (0.0, 0.0, -1)), 1).sparse
    assert deviation(sparse, expected) == 0
    assert deviation(sparse[0, 1], encoder.not_a_point_embed.weight[0]) == 0


def test_a_box_is_two_corners_after_the_points_without_padding():
    encoder = make_encoder()
    prompts = points((3.0, 20.0, 1))
    both = replace(prompts, boxes_xyxy_pixel=torch.tensor([[1.0, 2.0, 30.0, 28.0]]))
    expected = torch.stack(
        [
            code(encoder, 3.0, 20.0) + kind(encoder, 1),
            code(encoder, 1.0, 2.0) + kind(encoder, 2),
            code(encoder, 30.0, 28.0) + kind(encoder, 3),
        ]
    )[None]
    assert deviation(encoder(both, 1).sparse, expected) < 1e-5
    alone = Prompts2d(boxes_xyxy_pixel=both.boxes_xyxy_pixel)
    assert deviation(encoder(alone, 1).sparse, expected[:, 1:]) < 1e-5


def test_without_prompts_there_are_no_tokens_and_the_learned_absence_of_a_mask():
    encoder = make_encoder()
    result = encoder(Prompts2d(), 3)
    assert result.sparse.shape == (3, 0, 8)
    absent = encoder.no_mask_embed.weight.view(1, 8, 1, 1).expand(3, 8, 4, 4)
    assert torch.equal(result.dense, absent)


def test_a_mask_is_two_halving_convolutions_and_a_pointwise_one():
    encoder, masks = make_encoder(), noise(2, 1, 16, 16)
    result = encoder(Prompts2d(masks=masks), 2)

    def halved(x, conv, norm):
        blocks = x.unfold(2, 2, 2).unfold(3, 2, 2)
        x = torch.einsum("bchwyx,ecyx->behw", blocks, conv.weight) + conv.bias[:, None, None]
        x = F.layer_norm(x.movedim(1, -1), x.shape[1:2], norm.weight, norm.bias, 1e-6)
        return F.gelu(x.movedim(-1, 1))

    layers = encoder.mask_downscaling
    hidden = halved(halved(masks, layers[0], layers[1]), layers[3], layers[4])
    expected = torch.einsum("bchw,ec->behw", hidden, layers[6].weight[:, :, 0, 0])
    assert deviation(result.dense, expected + layers[6].bias[:, None, None]) < 1e-5
    assert result.sparse.shape == (2, 0, 8)


def test_a_cell_of_the_grid_has_the_code_of_its_centre():
    encoder = make_encoder()
    positions = encoder.grid_positions()
    assert positions.shape == (1, 8, 4, 4)
    # Cell (row 1, column 2) covers the pixels 8 to 15 and 16 to 23.
    assert deviation(positions[0, :, 1, 2], code(encoder, 19.5, 11.5)) < 1e-5


def test_gradients_reach_the_coordinates_of_real_points_only():
    encoder = make_encoder()
    prompts = points((3.0, 20.0, 1), (5.0, 5.0, -1), (9.0, 2.0, 0))
    xy = prompts.points_xy_pixel.requires_grad_()
    encoder(prompts, 1).sparse.square().sum(-1).sum().backward()
    assert xy.grad[0, 1].abs().max() == 0
    assert xy.grad[0, [0, 2]].abs().min() > 1e-4


def test_gradients_reach_boxes_and_masks():
    encoder = make_encoder()
    box = torch.tensor([[1.0, 2.0, 30.0, 28.0]], requires_grad=True)
    masks = noise(1, 1, 16, 16).requires_grad_()
    result = encoder(Prompts2d(boxes_xyxy_pixel=box, masks=masks), 1)
    (result.sparse.square().sum() + result.dense.square().sum()).backward()
    assert box.grad.abs().min() > 0
    assert masks.grad.abs().max() > 0


def test_places_are_reckoned_in_float32_whatever_the_network_is():
    """bfloat16 has eight bits: the pixels 512 and 513 of an input would be the same place."""
    encoder = make_encoder().to(torch.bfloat16)
    result = encoder(points((19.01, 20.0, 1)), 1)
    exact = copy.deepcopy(encoder).float()(points((19.01, 20.0, 1)), 1)
    assert result.sparse.dtype == torch.bfloat16
    assert torch.equal(result.sparse[0, 1], exact.sparse[0, 1].to(torch.bfloat16))
    # One rounding of the code and one of the sum, of numbers below 4.
    assert deviation(result.sparse.float(), exact.sparse) < 2e-2


def test_points_without_labels_are_refused():
    with pytest.raises(ConfigError, match="points need labels"):
        Prompts2d(points_xy_pixel=torch.zeros(1, 1, 2))
    with pytest.raises(ConfigError, match="points need labels"):
        Prompts2d(labels=torch.zeros(1, 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"width": 9}, "width 9 is odd"), ({"mask_channels": 6}, "mask_channels 6 is not")],
)
def test_a_contradiction_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        replace(TINY, **change)


def test_the_published_size():
    with torch.device("meta"):
        state = SamPrompts(SamPromptConfig()).state_dict()
    # Counted in the file of LiteMedSAM, whose prompt encoder is SAM's.
    assert sum(tensor.numel() for tensor in state.values()) == 6476
    assert "pe_layer.positional_encoding_gaussian_matrix" in state
    assert state["mask_downscaling.6.weight"].shape == (256, 16, 1, 1)
