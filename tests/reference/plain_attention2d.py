"""A 2D ViT block with a stored bias tensor, window by window and head by head."""

import math

import torch
import torch.nn.functional as F


def plain_grid_attention(attention, grid):
    """(h, w, E) -> the same: logits q k / sqrt(E_head) + q . R_h[h_i - h_j] + q . R_w[w_i - w_j]."""
    h, w, e = grid.shape
    side = (attention.rel_pos_h.shape[0] + 1) // 2
    assert h == w == side, "the tables are taken as they are"
    width = attention.head_width
    query, key, value = attention.qkv(grid.reshape(-1, e)).chunk(3, dim=1)
    row, column = torch.arange(h * w) // w, torch.arange(h * w) % w
    table_h = attention.rel_pos_h[row[:, None] - row[None] + side - 1]
    table_w = attention.rel_pos_w[column[:, None] - column[None] + side - 1]
    heads = []
    for head in range(attention.num_heads):
        part = slice(head * width, (head + 1) * width)
        q, k, v = query[:, part], key[:, part], value[:, part]
        bias = (q[:, None] * (table_h + table_w)).sum(-1)
        heads.append(torch.softmax(q @ k.T / math.sqrt(width) + bias, dim=1) @ v)
    return attention.proj(torch.cat(heads, dim=1)).view(h, w, e)


def plain_block2d(block, grid):
    """(h, w, E) -> the same, by a VitBlock2d's parameters."""
    h, w, e = grid.shape
    normed = F.layer_norm(grid, (e,), block.norm1.weight, block.norm1.bias, 1e-6)
    side = block.window or h
    mixed = torch.zeros_like(grid)
    for top in range(0, h, side):
        for left in range(0, w, side):
            result = normed[top : top + side, left : left + side]
            window = torch.zeros(side, side, e)
            window[: result.shape[0], : result.shape[1]] = result
            out = plain_grid_attention(block.attn, window)
            mixed[top : top + side, left : left + side] = out[: result.shape[0], : result.shape[1]]
    grid = grid + mixed
    normed = F.layer_norm(grid, (e,), block.norm2.weight, block.norm2.bias, 1e-6)
    hidden = F.linear(normed, block.mlp.lin1.weight, block.mlp.lin1.bias)
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    return grid + F.linear(hidden, block.mlp.lin2.weight, block.mlp.lin2.bias)
