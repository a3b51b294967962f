import pytest
import torch
from torch import nn

from clickvol.layers.residual import Places, Residual
from reference.compare import deviation, noise, randomise

SHAPE = (2, 1, 2, 3, 4)


class Halves(Residual):
    """tokens + layer(tokens), the even and the odd tokens by themselves, or all in parts of a size."""

    def __init__(self, layer, factor=1.0, padding=False):
        super().__init__(layer, factor=factor)
        self.layer = layer
        self.padding = padding

    def parts(self, tokens, part_tokens):
        count = tokens.shape[:-1].numel()
        for start in range(2):
            index = torch.arange(start, count, 2)
            if self.padding:
                index = torch.cat([index, torch.tensor([-1])])
            yield Places(index, self.padding), self.layer


class Ranges(Residual):
    def __init__(self, layer, factor=1.0):
        super().__init__(layer, factor=factor)
        self.layer = layer

    def parts(self, tokens, part_tokens):
        for start in range(0, tokens.shape[:-1].numel(), part_tokens):
            yield Places(slice(start, start + part_tokens)), self.layer


def make_layer():
    return randomise(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 4)))


KINDS = {
    "index": Halves,
    "padded index": lambda layer, factor=1.0: Halves(layer, factor, padding=True),
    "ranges": Ranges,
}


def test_places_that_are_padding_are_zero_and_stay_away():
    rows = torch.tensor([[1.0], [2.0], [3.0]])
    places = Places(torch.tensor([2, -1, 0]), is_padded=True)
    assert places.take(rows).tolist() == [[3.0], [0.0], [1.0]]
    assert places.blank(torch.ones(3, 1)).tolist() == [[1.0], [0.0], [1.0]]
    places.add_(rows, torch.tensor([[10.0], [100.0], [20.0]]))
    assert rows.tolist() == [[21.0], [2.0], [13.0]]


def test_a_range_of_places():
    rows = torch.tensor([[1.0], [2.0], [3.0]])
    places = Places(slice(1, 3))
    assert places.take(rows).tolist() == [[2.0], [3.0]]
    places.add_(rows, torch.tensor([[10.0], [20.0]]))
    assert rows.tolist() == [[1.0], [12.0], [23.0]]


@pytest.mark.parametrize("factor", [1.0, 2.0])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_all_three_ways_are_the_sum(kind, factor):
    layer = make_layer()
    residual = kind(layer, factor=factor)
    tokens = noise(*SHAPE)
    expected = factor * tokens + layer(tokens)
    assert deviation(residual.add(tokens), expected) < 1e-6
    assert deviation(residual.add_again(tokens, 5), expected) < 1e-6
    with torch.no_grad():
        residual.add_(tokens, 5)
    assert deviation(tokens, expected) < 1e-6


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_doing_it_again_gives_the_gradients_of_the_sum(kind, autocast):
    layer = make_layer()
    residual = kind(layer, factor=2.0)

    def gradients(form):
        tokens = noise(*SHAPE).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            result = form(tokens)
        return torch.autograd.grad((result**2).sum() + result.sum(), [tokens, *layer.parameters()])

    expected = gradients(lambda tokens: 2 * tokens + layer(tokens))
    for outcome, wanted in zip(gradients(lambda tokens: residual.add_again(tokens, 5)), expected, strict=True):
        assert outcome.dtype == torch.float32
        tolerance = 0.03 if autocast else 1e-5
        assert deviation(outcome, wanted) < tolerance * float(wanted.abs().max())


def test_parameters_are_trained_behind_tokens_that_are_not():
    layer = make_layer()
    Ranges(layer).add_again(noise(*SHAPE), 5).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in layer.parameters())


def test_frozen_parameters_get_no_gradient():
    layer = make_layer()
    layer[0].requires_grad_(False)
    tokens = noise(*SHAPE).requires_grad_()
    Ranges(layer).add_again(tokens, 5).sum().backward()
    assert layer[0].weight.grad is None
    assert layer[2].weight.grad is not None
    assert tokens.grad is not None
