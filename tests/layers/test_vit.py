from functools import partial

import pytest
import torch

from clickvol.layers.vit import LiftedBlock, Mlp, WindowAttention3d
from clickvol.layers.windows import region_codes, to_windows
from reference.compare import deviation, noise, randomise
from reference.plain_attention import plain_block, plain_window_attention

# Grids that the window of 4 divides, does not divide, and is larger than, with three different sides.
GRIDS = {
    "divides": (4, 8, 12),
    "pads": (5, 6, 7),
    "pads one axis": (4, 8, 6),
    "smaller": (2, 3, 5),
    "one slice": (1, 6, 9),
}


def make_block(**changes):
    options = {
        "mlp_ratio": 2.0,
        "window": 4,
        "shifted": True,
        "table_rows": 9,
        "second_adapter": "doubled",
        "adapter_initialisation": "default",
        "adapter_final_relu": True,
    }
    return randomise(LiftedBlock(12, 3, **(options | changes)))


@pytest.mark.parametrize("shape", [(2, 3, 4), (4, 4, 4), (1, 5, 2)])
def test_extra_columns_are_a_bias_tensor(shape):
    attention = randomise(WindowAttention3d(12, 3, table_rows=9))
    windows = noise(2, *shape, 12)
    places = shape[0] * shape[1] * shape[2]
    expected = plain_window_attention(attention, windows, torch.zeros(2, places, places))
    assert deviation(attention(windows, None), expected) < 1e-5


def test_region_columns_are_a_mask_of_minus_100():
    attention = randomise(WindowAttention3d(12, 3, table_rows=9))
    grid, window, shift = (4, 8, 8), (4, 4, 4), (2, 2, 2)
    windows = to_windows(noise(2, *grid, 12), window, shift)
    codes = region_codes(grid, window, shift, like=windows)
    mask = -100.0 * (1 - codes @ codes.mT).repeat(2, 1, 1)
    expected = plain_window_attention(attention, windows, mask)
    assert deviation(attention(windows, codes), expected) < 1e-5
    unmasked = plain_window_attention(attention, windows, torch.zeros_like(mask))
    assert deviation(unmasked, expected) > 1e-2


@pytest.mark.parametrize("shifted", [True, False])
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_a_block_is_that_over_all_pairs_of_tokens(grid, shifted):
    block = make_block(shifted=shifted)
    tokens = noise(2, *grid, 12)
    assert deviation(block(tokens), plain_block(block, tokens)) < 1e-5


@pytest.mark.parametrize("second_adapter", ["none", "plain", "doubled"])
@pytest.mark.parametrize("final_relu", [True, False])
def test_every_kind_of_adapter(second_adapter, final_relu):
    block = make_block(second_adapter=second_adapter, adapter_final_relu=final_relu)
    tokens = noise(2, 3, 4, 5, 12)
    assert deviation(block(tokens), plain_block(block, tokens)) < 1e-5


@pytest.mark.parametrize("table_rows", [7, 27, 127, 5])
def test_every_length_of_table(table_rows):
    block = make_block(table_rows=table_rows)
    tokens = noise(2, 4, 6, 8, 12)
    assert deviation(block(tokens), plain_block(block, tokens)) < 1e-5


@pytest.mark.parametrize("grid", [(5, 6, 7), (4, 8, 12)])
@pytest.mark.parametrize("chunk", [1, 70, 200])
def test_inference_in_chunks_is_the_path_with_gradient(monkeypatch, grid, chunk):
    monkeypatch.setattr("clickvol.layers.vit._CHUNK_TOKENS", chunk)
    block = make_block()
    tokens = noise(2, *grid, 12)
    with torch.no_grad():
        result = block(tokens)
    assert deviation(result, block(tokens)) < 1e-5


def test_without_gradients_the_input_is_kept_and_an_update_overwrites_it():
    block = make_block()
    tokens = noise(2, 5, 6, 7, 12)
    before = tokens.clone()
    with torch.no_grad():
        result = block(tokens)
        assert torch.equal(tokens, before)
        assert block.update_(tokens) is tokens
    assert torch.equal(tokens, result)


@pytest.mark.parametrize("grid", [(5, 6, 7), (4, 8, 12)])
def test_gradients_are_those_over_all_pairs_of_tokens(grid):
    block = make_block()

    def gradients(form):
        tokens = noise(2, *grid, 12).requires_grad_()
        form(tokens).square().sum().backward()
        result = {name: p.grad for name, p in block.named_parameters()} | {"tokens": tokens.grad}
        block.zero_grad()
        # The plain form reads the tables in numpy.
        return {name: grad for name, grad in result.items() if "rel_pos" not in name}

    expected = gradients(partial(plain_block, block))
    for name, result in gradients(block).items():
        assert deviation(result, expected[name]) < 1e-4 * float(expected[name].abs().max()), name


@pytest.mark.parametrize("grid", [(5, 6, 7), (4, 8, 12)])
def test_a_coarse_number_format_gives_nearly_the_same(grid):
    block = make_block().requires_grad_(False)
    tokens = noise(2, *grid, 12)
    expected = plain_block(block, tokens)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        result = block(tokens)
    # The stream itself stays in float32: what is added is off by a few parts in 256.
    assert result.dtype == torch.float32
    assert deviation(result, expected) < 0.03 * float(expected.std())


def test_the_shift_matters():
    tokens = noise(1, 8, 8, 8, 12)
    assert deviation(make_block()(tokens), make_block(shifted=False)(tokens)) > 1e-2


def test_the_relative_terms_are_not_scaled_with_the_query():
    attention = WindowAttention3d(8, 2, table_rows=3)
    with torch.no_grad():
        attention.qkv.weight.copy_(torch.eye(8).repeat(3, 1))
        attention.qkv.bias.zero_()
        attention.proj.weight.copy_(torch.eye(8))
        attention.proj.bias.zero_()
        attention.rel_pos_w.copy_(torch.tensor([0.0, 0.0, 2.0])[:, None].expand(3, 4))
    x = torch.zeros(1, 1, 1, 2, 8)
    x[..., 0, 0], x[..., 1, 4] = 1.0, 1.0
    # Head 2 of the second token: q = k = e0, offset 1 to the first token, whose key is 0 there.
    # Logits: 2 against the first (relative term, not halved), 0.5 against itself.
    share = torch.softmax(torch.tensor([2.0, 0.5]), 0)[1].item()
    assert attention(x, None)[0, 0, 0, 1, 4].item() == pytest.approx(share, abs=1e-6)


def test_nothing_derived_is_stored():
    names = {name.split(".", 1)[0] for name in make_block().state_dict()}
    assert names == {"norm1", "attn", "norm2", "mlp", "adapter", "adapter_back"}
    stored = {name for name in make_block().state_dict() if name.startswith("attn.")}
    assert stored == {
        "attn.qkv.weight",
        "attn.qkv.bias",
        "attn.proj.weight",
        "attn.proj.bias",
        "attn.rel_pos_d",
        "attn.rel_pos_h",
        "attn.rel_pos_w",
        "attn.relative_scale",
    }


def test_a_zero_adapter_starts_as_no_change():
    block = LiftedBlock(
        12,
        3,
        mlp_ratio=2.0,
        window=4,
        shifted=True,
        table_rows=9,
        second_adapter="plain",
        adapter_initialisation="zero",
        adapter_final_relu=False,
    )
    assert block.adapter(noise(1, 2, 3, 4, 12)).abs().max() == 0


def test_gelu_is_the_exact_one():
    mlp = Mlp(1, 1)
    with torch.no_grad():
        for linear in (mlp.lin1, mlp.lin2):
            linear.weight.fill_(1.0)
            linear.bias.zero_()
    # x * Phi(x) at 1; the tanh form gives 0.841192.
    assert mlp(torch.ones(1, 1)).item() == pytest.approx(0.8413447, abs=1e-6)
