import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clickvol.layers.conv3d import DepthwiseConv3d, DoubleConv, Doubling, UShape, convolve
from reference.compare import deviation, noise, randomise


@pytest.mark.parametrize("stride", [1, 2])
def test_double_conv_is_two_convolutions_with_instance_norm(stride):
    block = randomise(DoubleConv(3, 5, stride))
    x = noise(2, 3, 4, 6, 8)
    expected = F.instance_norm(F.conv3d(x, block[0].weight, padding=1, stride=stride)).relu()
    expected = F.instance_norm(F.conv3d(expected, block[2].weight, padding=1)).relu()
    assert deviation(block(x), expected) < 1e-5


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize(
    ("shape", "stride"), [((1, 10, 32, 32, 4), 1), ((1, 3, 7, 8, 9), 2), ((2, 1, 1, 3, 2), 1)]
)
def test_a_convolution_without_gradients_is_torchs(shape, stride, memory_format):
    x, kernel = noise(*shape).contiguous(memory_format=memory_format), noise(6, shape[1], 3, 3, 3, seed=1)
    expected = F.conv3d(x, kernel, stride=stride, padding=1)
    with torch.no_grad():
        assert deviation(convolve(x, kernel, stride), expected) < 2e-4  # of 100


@pytest.mark.parametrize("autocast", [False, True])
def test_doubling_without_gradients_is_the_transposed_convolution(autocast):
    doubling, x = randomise(Doubling(5, 3, kernel_size=2, stride=2)), noise(2, 5, 3, 4, 6)
    plain = F.conv_transpose3d(x, doubling.weight, doubling.bias, stride=2)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        with torch.no_grad():
            fast = doubling(x)
        assert fast.dtype == doubling(x).dtype
    assert deviation(fast.float(), plain) < (3e-2 if autocast else 1e-5)


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


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("shape", [(2, 3, 4, 5, 6), (1, 4, 1, 3, 2), (2, 2, 2, 1, 3), (1, 1, 3, 3, 3)])
def test_depth_wise_convolution_and_its_gradients_are_torchs(shape, memory_format):
    ours = randomise(DepthwiseConv3d(shape[1]))
    plain = nn.Conv3d(shape[1], shape[1], kernel_size=3, padding=1, groups=shape[1])
    plain.load_state_dict(ours.state_dict())
    gradients, results = [], []
    for module in (ours, plain):
        x = noise(*shape).contiguous(memory_format=memory_format).requires_grad_()
        results.append(module(x))
        (results[-1] * noise(*shape, seed=1)).sum().backward()
        gradients.append([x.grad, module.weight.grad, module.bias.grad])
    assert torch.equal(*results)
    for outcome, expected in zip(*gradients, strict=True):
        assert deviation(outcome, expected) < 2e-5
    with torch.no_grad():
        assert deviation(ours(noise(*shape)), plain(noise(*shape))) == 0


def test_depth_wise_gradients_under_autocast_are_nearly_the_same():
    ours, x = randomise(DepthwiseConv3d(4)), noise(2, 4, 5, 6, 7)
    ours(x).square().sum().backward()
    expected = [p.grad for p in ours.parameters()]
    ours.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        result = ours(x)
    assert result.dtype == torch.bfloat16
    result.float().square().sum().backward()
    for parameter, gradient in zip(ours.parameters(), expected, strict=True):
        assert parameter.grad.dtype == torch.float32
        assert deviation(parameter.grad, gradient) < 0.02 * float(gradient.abs().max())
