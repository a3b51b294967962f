import math

import pytest
import torch

from clickvol.baselines.uxnet3d import UxBlock, UxNet3d, UxNet3dConfig
from clickvol.errors import ConfigError
from reference.compare import deviation, noise, num_parameters


def test_the_published_number_of_parameters():
    """53.0 M, table 1 of the paper."""
    with torch.device("meta"):
        network = UxNet3d(UxNet3dConfig())
    assert num_parameters(network) == 53_007_266


def test_a_block_mixes_places_of_one_channel_and_then_scales_each_value():
    """Against sums written out: kernel of 7^3, zeros outside, exact GELU, both steps added."""
    torch.manual_seed(0)
    block = UxBlock(2)
    x = noise(1, 2, 3, 4, 2)
    normed = block.norm_places(x)
    mixed = x.clone()
    for c in range(2):
        for d, h, w in torch.cartesian_prod(*[torch.arange(n) for n in (3, 4, 2)]).tolist():
            total = block.places.bias[c]
            for i, j, k in torch.cartesian_prod(*[torch.arange(n) for n in (3, 4, 2)]).tolist():
                weight = block.places.weight[c, 0, i - d + 3, j - h + 3, k - w + 3]
                total = total + weight * normed[0, c, i, j, k]
            mixed[0, c, d, h, w] = mixed[0, c, d, h, w] + total
    normed = block.norm_scaling(mixed)
    expected = mixed.clone()
    for c in range(2):
        expected[0, c] += block.reduce.bias[c]
        for inner in range(4):
            hidden = normed[0, c] * block.enlarge.weight[4 * c + inner, 0, 0, 0, 0]
            hidden = hidden + block.enlarge.bias[4 * c + inner]
            hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
            expected[0, c] += hidden * block.reduce.weight[c, inner, 0, 0, 0]
    assert deviation(block(x), expected) < 1e-5


def test_a_block_of_a_channel_has_two_kernels_and_no_matrix():
    """7^3 + 1, 4 + 4 and 4 + 1 values, and two norms of two."""
    assert num_parameters(UxBlock(8)) == 8 * (344 + 8 + 5 + 4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UxNet3dConfig(width=0), "width is 0"),
        (lambda: UxNet3dConfig(depths=(2, 2, 0, 2)), r"depths are \(2, 2, 0, 2\)"),
        (lambda: UxNet3dConfig().patch_step_dhw((16, 16, 16)), "too small for 3D UX-Net"),
    ],
)
def test_what_cannot_be_built_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
