import pytest
import torch
from torch import nn

from clickvol.layers.matrix_work import autocast_dtype, cast_once, without_autocast
from reference.compare import noise


class Both(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(4)
        self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4, bias=False)])

    def forward(self, x):
        for layer in self.layers:
            x = layer(self.norm(x))
        return x


CPU = torch.device("cpu")


def test_without_autocast_it_is_the_module_itself():
    module = Both()
    assert cast_once(module, CPU) is module


@pytest.mark.parametrize("module", [Both(), nn.Linear(4, 3)])
def test_under_autocast_the_result_is_the_same_and_the_weights_are_cast_once(module):
    x = noise(3, 4)
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            expected, cast = module(x), cast_once(module, CPU)
        linear = module if isinstance(module, nn.Linear) else module.layers[1]
        linear.weight.mul_(2)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(cast(x), expected)
            assert not torch.equal(module(x), expected)


def test_gradients_reach_the_parameters():
    module = Both()
    with torch.autocast("cpu", torch.bfloat16):
        cast_once(module, CPU)(noise(3, 4)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in module.layers.parameters())


def test_autocast_is_told_where_it_is_on():
    cpu = torch.device("cpu")
    assert autocast_dtype(cpu) is None
    with torch.autocast("cpu", torch.bfloat16):
        assert autocast_dtype(cpu) == torch.bfloat16
        # Dry runs on a device that autocast does not know.
        assert autocast_dtype(torch.device("meta")) is None


def test_autocast_can_be_switched_off_for_a_while():
    layer, x = nn.Linear(4, 4), noise(2, 4)
    with torch.autocast("cpu", torch.bfloat16):
        with without_autocast(x.device):
            assert layer(x).dtype == torch.float32
        assert layer(x).dtype == torch.bfloat16
    with without_autocast(torch.device("meta")):
        assert layer(x).dtype == torch.float32
