import torch
import torch.nn.functional as F

from clickvol.baselines.residual_conv import RaiseAndMerge, ResidualConv
from reference.compare import deviation, noise


def test_without_convolutions_the_shortcut_is_left():
    block = ResidualConv(2, 2)
    torch.nn.init.zeros_(block.second.weight)
    x = noise(1, 2, 3, 4, 5)
    assert deviation(block(x), torch.where(x > 0, x, 0.01 * x)) < 1e-6


def test_another_number_of_channels_gives_the_shortcut_its_own_convolution_and_norm():
    block = ResidualConv(1, 2)
    torch.nn.init.zeros_(block.second.weight)
    block.shortcut.weight.data = torch.tensor([2.0, -1.0]).view(2, 1, 1, 1, 1)
    x = noise(1, 1, 3, 4, 5)
    normed = (x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt()
    expected = F.leaky_relu(torch.cat([normed, -normed], dim=1), 0.01)
    assert deviation(block(x), expected) < 1e-4


def test_raised_cells_become_their_eight_voxels():
    block = RaiseAndMerge(1, 1)
    with torch.no_grad():
        block.enlarge.weight.fill_(1)
        block.merge.second.weight.zero_()
        # The raised map alone passes.
        block.merge.shortcut.weight.copy_(torch.tensor([1.0, 0.0]).view(1, 2, 1, 1, 1))
    coarse = torch.tensor([1.0, 3.0]).view(1, 1, 2, 1, 1)
    result = block(coarse, noise(1, 1, 4, 2, 2))
    expected = torch.tensor([-0.01, -0.01, 1.0, 1.0]).view(1, 1, 4, 1, 1).expand(1, 1, 4, 2, 2)
    assert deviation(result, expected) < 1e-4
