import pytest
import torch
import torch.nn.functional as F

from clickvol.layers.tiny_vit import (
    BiasedAttention2d,
    ConvNorm2d,
    InvertedBottleneck,
    PatchMerging,
    TinyVitBlock,
    offset_index,
)
from reference.compare import deviation, noise, randomise
from reference.plain_tiny_vit import (
    numbered_offsets,
    plain_block,
    plain_bottleneck,
    plain_merging,
    plain_window_attention_2d,
    randomise_norms,
)


def make_block():
    return randomise_norms(TinyVitBlock(6, 2, window=4, hidden=9))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_offsets_by_hand():
    # Places (0,0) (0,1) (1,0) (1,1); offsets in order (0,0) (0,1) (1,0) (1,1).
    assert offset_index((2, 2), 2).tolist() == [
        [0, 1, 2, 3],
        [1, 0, 3, 2],
        [2, 3, 0, 1],
        [3, 2, 1, 0],
    ]


def test_a_smaller_window_uses_the_same_entries():
    # Places (0,0) (0,1) (0,2) of a table for 4 x 4: |dx| alone; and (0,0) (1,0): |dy| = 1 is entry 4.
    assert offset_index((1, 3), 4).tolist() == [[0, 1, 2], [1, 0, 1], [2, 1, 0]]
    assert offset_index((2, 1), 4).tolist() == [[0, 4], [4, 0]]


@pytest.mark.parametrize("window", [3, 7])
def test_offsets_are_numbered_as_they_first_appear(window):
    numbers = numbered_offsets(window)
    assert len(numbers) == window * window
    index = offset_index((window, window), window)
    for i in range(window * window):
        for j in range(window * window):
            dy, dx = abs(i // window - j // window), abs(i % window - j % window)
            assert index[i, j] == numbers[(dy, dx)]


def test_a_normalised_convolution_by_hand():
    part = ConvNorm2d(1, 1, kernel=3, stride=2).eval()
    with torch.no_grad():
        part.c.weight.fill_(1.0)
        part.bn.running_mean.fill_(1.0)
        part.bn.running_var.fill_(4.0 - 1e-5)
        part.bn.weight.fill_(6.0)
        part.bn.bias.fill_(0.5)
    result = part(torch.arange(15.0).view(1, 1, 3, 5))
    # Sums around (0,0) (0,2) (0,4) and (2,0) (2,2) (2,4), zeros outside; then (sum - 1) * 3 + 0.5.
    sums = torch.tensor([[0 + 1 + 5 + 6, 1 + 2 + 3 + 6 + 7 + 8, 3 + 4 + 8 + 9]])
    sums = torch.cat([sums, torch.tensor([[5 + 6 + 10 + 11, 6 + 7 + 8 + 11 + 12 + 13, 8 + 9 + 27]])])
    assert torch.allclose(result[0, 0], (sums - 1) * 3 + 0.5, atol=1e-4)


def test_in_training_a_convolution_is_normalised_by_its_own_batch():
    part = ConvNorm2d(3, 4, kernel=3).train()
    result = part(noise(2, 3, 6, 7) * 5 + 2)
    assert result.mean(dim=(0, 2, 3)).abs().max() < 1e-5
    assert (result.var(dim=(0, 2, 3), correction=0) - 1).abs().max() < 1e-3
    assert part.bn.running_mean.abs().max() > 0


def test_a_bottleneck_without_update_is_gelu():
    block = randomise_norms(InvertedBottleneck(3, 12))
    with torch.no_grad():
        block.conv3.bn.weight.zero_()
        block.conv3.bn.bias.zero_()
    x = noise(2, 3, 4, 5)
    assert deviation(block(x), F.gelu(x)) == 0


def test_a_bottleneck_is_the_plain_one():
    block, x = randomise_norms(InvertedBottleneck(3, 12)), noise(2, 3, 4, 5)
    assert deviation(block(x), plain_bottleneck(block, x)) < 1e-5


@pytest.mark.parametrize("stride", [1, 2])
def test_merging_is_the_plain_one(stride):
    part, x = randomise_norms(PatchMerging(3, 5, stride=stride)), noise(2, 3, 5, 6)
    result = part(x)
    assert result.shape == ((2, 5, 5, 6) if stride == 1 else (2, 5, 3, 3))
    assert deviation(result, plain_merging(part, x)) < 1e-5


@pytest.mark.parametrize("window_hw", [(4, 4), (2, 3), (1, 4)])
def test_attention_is_that_over_all_pairs(window_hw):
    attention = randomise(BiasedAttention2d(6, 2, window=4))
    windows = noise(2, *window_hw, 6)
    expected = torch.stack([plain_window_attention_2d(attention, one) for one in windows])
    assert deviation(attention(windows), expected) < 1e-5


def test_biases_move_the_result():
    attention = randomise(BiasedAttention2d(6, 2, window=4))
    windows = noise(2, 4, 4, 6)
    before = attention(windows)
    with torch.no_grad():
        attention.attention_biases[:, 6] += 5.0
    # Offset (1, 2) exists in a window of 4 x 4, but not in one of 4 x 2.
    assert deviation(attention(windows), before) > 1e-2
    narrow = attention(windows[:, :, :2])
    with torch.no_grad():
        attention.attention_biases[:, 6] -= 5.0
    assert deviation(attention(windows[:, :, :2]), narrow) == 0


# Grids that the window of 4 divides, does not divide, and is larger than.
@pytest.mark.parametrize("grid", [(4, 8), (5, 6), (8, 7), (3, 6), (4, 3), (2, 3), (1, 9)])
def test_a_block_is_the_plain_one(grid):
    block, x = make_block(), noise(2, 6, *grid)
    assert deviation(block(x), plain_block(block, x)) < 1e-5


def test_padded_places_are_keys():
    block, x = make_block(), noise(1, 6, 5, 4)
    tokens = x.permute(0, 2, 3, 1)
    # The last row of a map of 5 shares its window with three rows of zeros.
    alone = block.attn(tokens[:, 4:])
    with_zeros = block.attn(F.pad(tokens[:, 4:], (0, 0, 0, 0, 0, 3)))[:, :1]
    assert deviation(alone, with_zeros) > 1e-2
    attended = torch.cat([block.attn(tokens[:, :4]), with_zeros], dim=1).permute(0, 3, 1, 2)
    local = block.local_conv(x + attended)
    expected = local + block.mlp(local.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    assert deviation(block(x), expected) < 1e-6


def test_windows_do_not_see_each_other_except_through_the_local_convolution():
    block, x = make_block(), noise(1, 6, 8, 4)
    changed = x.clone()
    changed[:, :, 0] = noise(6, 4, seed=1)
    difference = (block(changed) - block(x)).abs().amax(dim=(0, 1, 3))
    # The window ends after row 3; the 3x3 convolution carries it one row further.
    assert difference[:5].min() > 1e-4
    assert difference[5:].max() < 1e-6


def test_a_small_map_is_its_own_window():
    block, x = make_block(), noise(1, 6, 3, 2)
    attended = block.attn(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    local = block.local_conv(x + attended)
    expected = local + block.mlp(local.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    assert deviation(block(x), expected) < 1e-6
    # Zeros up to the window of 4 would be keys and change the result.
    assert deviation(block(x), block(F.pad(x, (0, 2, 0, 1)))[:, :, :3, :2]) > 1e-3
