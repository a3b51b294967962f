"""Attention with stored bias and mask tensors, and a whole block of it over all pairs of tokens."""

import math

import numpy as np
import torch
import torch.nn.functional as F


def plain_table(table, window):
    """Squeeze a table into 2 * window - 1 rows by hand: linear, align_corners false, ends clamped."""
    rows, wanted = table.shape[0], 2 * window - 1
    place = (np.arange(wanted) + 0.5) * rows / wanted - 0.5
    columns = [np.interp(place, np.arange(rows), column) for column in table.detach().numpy().T]
    return torch.tensor(np.array(columns).T, dtype=torch.float32)


def plain_window_attention(attention, windows, mask):
    """Attend in each window, one by one and head by head.

    Args:
        attention: a WindowAttention3d.
        windows: (G, d, h, w, E).
        mask: (G, T, T) that is added to the logits.
    """
    g, d, h, w, e = windows.shape
    place = [(a, b, c) for a in range(d) for b in range(h) for c in range(w)]
    return torch.stack(
        [_attend(attention, windows[i].reshape(-1, e), place, (d, h, w), mask[i]) for i in range(g)]
    ).view(g, d, h, w, e)


def _attend(attention, tokens, place, window, mask):
    """(T, E) tokens at places within a window -> (T, E)."""
    width = attention.head_width
    query, key, value = (
        F.linear(tokens, weight, bias)
        for weight, bias in zip(attention.qkv.weight.chunk(3), attention.qkv.bias.chunk(3), strict=True)
    )
    tables = [
        plain_table(table, n)
        for table, n in zip(
            (attention.rel_pos_d, attention.rel_pos_h, attention.rel_pos_w), window, strict=True
        )
    ]
    where = torch.tensor(place)
    heads = []
    for head in range(attention.num_heads):
        part = slice(head * width, (head + 1) * width)
        q, k, v = query[:, part], key[:, part], value[:, part]
        bias = torch.zeros(len(place), len(place))
        for axis, table in enumerate(tables):
            offset = where[:, None, axis] - where[None, :, axis] + window[axis] - 1
            bias = bias + (q[:, None, :] * table[offset]).sum(-1)
        logits = q @ k.T / math.sqrt(width) + attention.relative_scale * bias + mask
        heads.append(torch.softmax(logits, dim=-1) @ v)
    return attention.proj(torch.cat(heads, dim=1))


def plain_block(block, tokens):
    """(B, d, h, w, E) -> the same, by a LiftedBlock's parameters and over all pairs of tokens.

    No window is ever cut and no token padded: -100 keeps tokens of one rolled window apart whose
    neighbourhood is only due to the rolling, and minus infinity those of different windows.
    """
    tokens = tokens + _plain_adapter(block.adapter, tokens)
    normed = F.layer_norm(tokens, tokens.shape[-1:], block.norm1.weight, block.norm1.bias, 1e-6)
    tokens = tokens + torch.stack([_plain_attend_grid(block, sample) for sample in normed])
    normed = F.layer_norm(tokens, tokens.shape[-1:], block.norm2.weight, block.norm2.bias, 1e-6)
    hidden = F.linear(normed, block.mlp.lin1.weight, block.mlp.lin1.bias)
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    tokens = tokens + F.linear(hidden, block.mlp.lin2.weight, block.mlp.lin2.bias)
    if block.adapter_back is None:
        return tokens
    update = _plain_adapter(block.adapter_back, tokens)
    return tokens + tokens + update if block.stream_factor == 2 else tokens + update


def _plain_adapter(adapter, tokens):
    hidden = F.linear(tokens, adapter.down.weight, adapter.down.bias).clamp(min=0)
    volume = hidden.movedim(-1, 1)
    mixed = F.conv3d(volume, adapter.mix.weight, adapter.mix.bias, padding=1, groups=volume.shape[1])
    update = F.linear(mixed.clamp(min=0).movedim(1, -1), adapter.up.weight, adapter.up.bias)
    return update.clamp(min=0) if adapter.final_relu else update


def _plain_attend_grid(block, grid):
    """(d, h, w, E) -> the same."""
    shape = grid.shape[:3]
    window, within, number, wrapped = [], [], [], []
    for n in shape:
        k = min(block.window, n)
        shift = block.window // 2 if block.shifted and n > block.window else 0
        padded = math.ceil(n / k) * k
        rolled = (np.arange(n) - shift) % padded
        window.append(k)
        within.append(rolled % k)
        number.append(rolled // k)
        wrapped.append(rolled >= padded - shift)
    every = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1).reshape(-1, 3)
    place = [tuple(int(within[a][t[a]]) for a in range(3)) for t in every]
    windows = np.array([[number[a][t[a]] for a in range(3)] for t in every])
    regions = np.array([[wrapped[a][t[a]] for a in range(3)] for t in every])
    mask = np.where((regions[:, None] == regions[None]).all(-1), 0.0, -100.0)
    mask = np.where((windows[:, None] == windows[None]).all(-1), mask, -np.inf)
    mixed = _attend(
        block.attn,
        grid.reshape(-1, grid.shape[-1]),
        place,
        tuple(window),
        torch.tensor(mask, dtype=torch.float32),
    )
    return mixed.view(grid.shape)
