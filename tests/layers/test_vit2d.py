import pytest
import torch

from clickvol.layers.vit2d import (
    GridAttention2d,
    VitBlock2d,
    cut_squares,
    join_squares,
)
from reference.compare import deviation, noise, randomise
from reference.plain_attention2d import plain_block2d, plain_grid_attention


def make_block(window, grid_side):
    torch.manual_seed(0)
    block = VitBlock2d(12, 3, mlp_ratio=2.0, window=window, grid_side=grid_side)
    return randomise(block)


def test_extra_columns_are_a_bias_tensor():
    attention = randomise(GridAttention2d(12, 3, table_side=5))
    grids = noise(2, 5, 5, 12)
    expected = torch.stack([plain_grid_attention(attention, grid) for grid in grids])
    assert deviation(attention(grids), expected) < 1e-5


def test_squares_by_hand():
    grid = torch.arange(1.0, 7.0).view(1, 2, 3, 1)
    assert cut_squares(grid, 2).flatten(1).tolist() == [[1, 2, 4, 5], [3, 0, 6, 0]]


@pytest.mark.parametrize("shape", [(4, 4), (5, 7), (1, 2), (6, 3)])
def test_squares_are_joined_again(shape):
    grids = noise(2, *shape, 5)
    assert torch.equal(join_squares(cut_squares(grids, 3), shape), grids)


@pytest.mark.parametrize("axis", ["h", "w"])
def test_the_relative_terms_are_query_minus_key_and_not_scaled(axis):
    attention = GridAttention2d(8, 2, table_side=2)
    with torch.no_grad():
        attention.qkv.weight.copy_(torch.eye(8).repeat(3, 1))
        attention.qkv.bias.zero_()
        attention.proj.weight.copy_(torch.eye(8))
        attention.proj.bias.zero_()
        table = attention.rel_pos_h if axis == "h" else attention.rel_pos_w
        table.copy_(torch.tensor([0.0, 0.0, 2.0])[:, None].expand(3, 4))
    # Second head of the last token: q = k = e0. Its key is 0 elsewhere. Two of the four tokens lie one
    # step before it on the axis: logits 2 (relative term, not halved), 2, 0, and 0.5 against itself, of
    # which 0 and 0.5 share its place on the axis.
    x = torch.zeros(1, 2, 2, 8)
    x[0, 1, 1, 4] = 1.0
    share = torch.softmax(torch.tensor([2.0, 2.0, 0.0, 0.5]), 0)[3].item()
    assert attention(x)[0, 1, 1, 4].item() == pytest.approx(share, abs=1e-6)


@pytest.mark.parametrize(
    ("window", "shape"),
    [(4, (4, 8)), (3, (7, 5)), (4, (2, 3)), (0, (6, 6))],
    ids=["divides", "pads", "smaller than a window", "whole grid"],
)
def test_a_block_is_that_window_by_window(window, shape):
    block = make_block(window, shape[0])
    tokens = noise(2, *shape, 12)
    expected = torch.stack([plain_block2d(block, grid) for grid in tokens])
    assert deviation(block(tokens), expected) < 1e-5


def test_padding_is_attended_to():
    """As in SAM: a padded token is zero after norm1, so its key and value are the biases of qkv."""
    block = make_block(2, 1)
    with torch.no_grad():
        block.attn.qkv.weight.zero_()
        block.attn.qkv.weight[24:] = torch.eye(12)
        block.attn.qkv.bias.zero_()
        block.attn.proj.weight.copy_(torch.eye(12))
        block.attn.proj.bias.zero_()
        block.mlp.lin2.weight.zero_()
        block.mlp.lin2.bias.zero_()
    token = noise(1, 1, 1, 12)
    # All logits are zero: the token is a quarter of what it reads, the rest are zeros.
    assert deviation(block(token), token + block.norm1(token) / 4) < 1e-6


def test_windows_do_not_see_each_other_and_the_whole_grid_does():
    tokens = noise(1, 6, 6, 12)
    moved = tokens.clone()
    moved[0, 5, 5] *= -1
    windowed, whole = make_block(3, 6), make_block(0, 6)
    assert deviation(windowed(tokens)[:, :3], windowed(moved)[:, :3]) == 0
    assert deviation(whole(tokens)[:, :3], whole(moved)[:, :3]) > 1e-3


def test_half_precision_is_near():
    block = make_block(3, 5)
    tokens = noise(1, 5, 5, 12)
    exact = block(tokens)
    rough = block.to(torch.bfloat16)(tokens.to(torch.bfloat16))
    assert rough.dtype == torch.bfloat16
    assert deviation(rough.float(), exact) < 0.1
