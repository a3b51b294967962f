"""Attention in windows of a volume, against one token after the other."""

import itertools

import numpy as np
import pytest
import torch

from clickvol.baselines.volume_attention import (
    TransformerLayer,
    VolumeAttention,
    WindowPlace,
)
from clickvol.errors import ConfigError
from reference.compare import deviation, noise

SHAPE, WINDOW, SHIFT = (4, 2, 8), (2, 2, 4), (1, 1, 2)
WIDTH, HEADS = 6, 2


def attention(place, *, skip=False):
    torch.manual_seed(0)
    made = VolumeAttention(WIDTH, HEADS, place, skip=skip)
    torch.nn.init.normal_(made.offset_bias)
    return made


def seen_from(token, place):
    """Return the tokens of the same window, without those that the ring alone makes neighbours."""

    def number(n, axis):
        length, size, shift = place.shape_dhw[axis], place.window_dhw[axis], place.shift_dhw[axis]
        # Shifted windows begin at the shift; what lies before is the last one's other end.
        return (n - shift) // size if n >= shift else -length

    def windows(t):
        return tuple(number(n, axis) for axis, n in enumerate(t))

    every = itertools.product(*[range(n) for n in place.shape_dhw])
    return [t for t in every if windows(t) == windows(token)]


def one_by_one(made, place, tokens, skip=None):
    source = tokens if skip is None else skip
    queries = tokens if made.query is None else made.query(tokens)
    keys, values = made.key_value(source).split(WIDTH, dim=-1)
    table = made.offset_bias.view(*[2 * n - 1 for n in place.window_dhw], HEADS)
    result = torch.zeros_like(tokens)
    size = WIDTH // HEADS
    for b, *token in itertools.product(range(len(tokens)), *[range(n) for n in place.shape_dhw]):
        others = seen_from(tuple(token), place)
        for head in range(HEADS):
            part = slice(head * size, (head + 1) * size)
            scores = torch.stack(
                [
                    queries[b][tuple(token)][part] @ keys[b][other][part] / size**0.5
                    + table[tuple(np.array(token) - other + np.array(place.window_dhw) - 1)][head]
                    for other in others
                ]
            )
            stacked = torch.stack([values[b][other][part] for other in others])
            result[b][tuple(token)][part] = torch.softmax(scores, 0) @ stacked
    return made.project(result)


@pytest.mark.parametrize(
    "place",
    [
        WindowPlace(SHAPE, WINDOW, (0, 0, 0)),
        WindowPlace(SHAPE, WINDOW, SHIFT),
        WindowPlace((2, 2, 4), (2, 2, 4), (0, 0, 0)),
    ],
    ids=["windows", "shifted", "whole map"],
)
@pytest.mark.parametrize("skip", [False, True])
def test_every_token_sees_its_window_and_no_more(place, skip):
    made = attention(place, skip=skip)
    tokens = noise(2, *place.shape_dhw, WIDTH)
    second = noise(2, *place.shape_dhw, WIDTH, seed=1) if skip else None
    with torch.no_grad():
        assert deviation(made(tokens, second), one_by_one(made, place, tokens, second)) < 1e-5


def test_queries_of_a_skip_are_not_projected():
    place = WindowPlace(SHAPE, WINDOW, (0, 0, 0))
    assert attention(place, skip=True).query is None
    assert attention(place).query.weight.shape == (WIDTH, WIDTH)


def test_the_offset_table_has_a_row_for_every_offset():
    made = attention(WindowPlace(SHAPE, WINDOW, SHIFT))
    assert made.offset_bias.shape == (3 * 3 * 7, HEADS)
    # First and last token of a window are the farthest apart, each the other way round.
    index = made._offset_index
    assert (int(index[0, -1]), int(index[-1, 0]), int(index[0, 0])) == (0, 62, 31)


def test_layers_without_their_parts_change_nothing():
    place = WindowPlace(SHAPE, WINDOW, SHIFT)
    tokens, second = noise(1, *SHAPE, WIDTH), noise(1, *SHAPE, WIDTH, seed=1)
    plain, skipping = TransformerLayer(WIDTH, HEADS, place), TransformerLayer(WIDTH, HEADS, place, skip=True)
    for layer in (plain, skipping):
        for last in (layer.attention.project, layer.mlp[-1]):
            torch.nn.init.zeros_(last.weight)
            torch.nn.init.zeros_(last.bias)
    assert torch.equal(plain(tokens), tokens)
    assert torch.equal(skipping(tokens, second), tokens)


def test_windows_that_do_not_fill_the_map_are_refused():
    with pytest.raises(ConfigError, match="does not suit attention in windows"):
        WindowPlace((4, 2, 6), WINDOW, SHIFT)
