import pytest
import torch
from torch import nn

from clickvol.layers.norms import ChannelLayerNorm, InstanceNormReLU
from reference.compare import deviation, noise, randomise


def test_channel_norm_is_layer_norm_with_the_channels_last():
    norm = randomise(ChannelLayerNorm(7))
    x = 3 * noise(2, 7, 2, 3, 4) + 1
    plain = nn.LayerNorm(7, eps=1e-6)
    plain.load_state_dict(norm.state_dict())
    assert deviation(norm(x), plain(x.movedim(1, -1)).movedim(-1, 1)) < 1e-5


def test_channel_norm_by_hand():
    x = torch.tensor([1.0, 3.0]).view(1, 2, 1, 1, 1)
    # Mean 2, biased variance 1; eps 1e-6 moves the seventh digit.
    assert ChannelLayerNorm(2)(x).flatten().tolist() == pytest.approx([-1.0, 1.0], abs=1e-6)


def test_channel_norm_keeps_the_number_format():
    x = noise(1, 4, 2, 2, 2).bfloat16()
    assert ChannelLayerNorm(4)(x).dtype == torch.bfloat16


def test_instance_norm_is_torchs_with_relu():
    x = 5 * noise(2, 3, 4, 5, 6) - 2
    assert deviation(InstanceNormReLU()(x), nn.InstanceNorm3d(3)(x).relu()) < 1e-5


def test_instance_norm_treats_samples_alone_in_training_and_evaluation():
    x = noise(2, 3, 4, 5, 6) * torch.tensor([1.0, 50.0]).view(2, 1, 1, 1, 1)
    norm = InstanceNormReLU()
    together = norm.train()(x)
    alone = torch.cat([norm.eval()(x[:1]), norm.eval()(x[1:])])
    assert deviation(together, alone) < 1e-6


@pytest.mark.parametrize("shape", [(2, 3, 4, 5, 6), (1, 2, 9, 46, 46), (2, 1, 2, 3, 4)])
def test_channels_last_in_memory_without_gradient_is_the_same(shape):
    x = 5 * noise(*shape) + 20
    last = x.contiguous(memory_format=torch.channels_last_3d)
    with torch.no_grad():
        result = InstanceNormReLU()(last)
    assert result.is_contiguous(memory_format=torch.channels_last_3d)
    assert deviation(result, nn.InstanceNorm3d(shape[1])(x).relu()) < 1e-5
    with torch.no_grad():
        coarse = InstanceNormReLU()(last.bfloat16())
    assert coarse.dtype == torch.bfloat16
    # The input is coarse too: a part in 256 of 20 is 0.016 standard deviations.
    assert deviation(coarse.float(), result) < 0.05
