import pytest
import torch
import torch.nn.functional as F

from clickvol.layers.conv3d import DoubleConv, UShape
from reference.compare import deviation, noise, randomise


@pytest.mark.parametrize("stride", [1, 2])
def test_double_conv_is_two_convolutions_with_instance_norm(stride):
    block = randomise(DoubleConv(3, 5, stride))
    x = noise(2, 3, 4, 6, 8)
    expected = F.instance_norm(F.conv3d(x, block[0].weight, padding=1, stride=stride)).relu()
    expected = F.instance_norm(F.conv3d(expected, block[2].weight, padding=1)).relu()
    assert deviation(block(x), expected) < 1e-5


def test_one_scale_changes_nothing():
    x = noise(1, 4, 3, 5, 7)
    assert torch.equal(UShape((4,))(x), x)
    assert list(UShape((4,)).parameters()) == []


@pytest.mark.parametrize("shape", [(8, 12, 16), (7, 9, 10), (5, 11, 6)])
def test_the_shape_is_kept_whatever_it_is(shape):
    unet = randomise(UShape((4, 6, 8)))
    assert unet(noise(2, 4, *shape)).shape == (2, 4, *shape)


def test_coarse_scales_reach_the_result():
    unet = randomise(UShape((4, 6, 8)))
    x = noise(1, 4, 8, 12, 16)
    before = unet(x)
    with torch.no_grad():
        unet.down[1][2].weight.mul_(-1)
    assert deviation(unet(x), before) > 1e-3
