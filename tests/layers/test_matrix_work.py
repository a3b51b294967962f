import torch
from torch import nn
from torch.func import functional_call

from clickvol.layers.matrix_work import autocast_dtype, cast_linears, without_autocast
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


def test_only_linear_layers_are_named():
    assert list(cast_linears(Both())) == ["layers.0.weight", "layers.0.bias", "layers.1.weight"]


def test_a_linear_layer_itself_is_named_as_functional_call_wants_it():
    assert list(cast_linears(nn.Linear(2, 3))) == ["weight", "bias"]


def test_without_autocast_they_are_the_parameters():
    module = Both()
    assert cast_linears(module)["layers.0.weight"] is module.layers[0].weight


def test_under_autocast_the_result_is_the_same():
    module, x = Both(), noise(3, 4)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        cast = cast_linears(module)
        assert {tensor.dtype for tensor in cast.values()} == {torch.bfloat16}
        assert torch.equal(functional_call(module, cast, (x,)), module(x))


def test_gradients_reach_the_parameters():
    module = Both()
    with torch.autocast("cpu", torch.bfloat16):
        functional_call(module, cast_linears(module), (noise(3, 4),)).sum().backward()
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
