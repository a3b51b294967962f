import math

import torch

from clickvol.layers.attention import TokenAttention
from reference.compare import deviation, noise, randomise


def plain(attention, query, key, value):
    q, k, v = attention.q_proj(query), attention.k_proj(key), attention.v_proj(value)
    width = q.shape[-1] // attention.num_heads
    heads = []
    for head in range(attention.num_heads):
        part = slice(head * width, (head + 1) * width)
        weights = torch.softmax(q[..., part] @ k[..., part].mT / math.sqrt(width), dim=-1)
        heads.append(weights @ v[..., part])
    return attention.out_proj(torch.cat(heads, dim=-1))


def test_it_is_softmax_attention_head_by_head():
    attention = randomise(TokenAttention(12, 6, 3))
    query, key, value = noise(2, 5, 12), noise(2, 7, 12, seed=1), noise(2, 7, 12, seed=2)
    result = attention(query, key, value)
    assert deviation(result, plain(attention, query, key, value)) < 1e-5


def test_a_key_that_is_not_real_is_as_if_left_out():
    attention = randomise(TokenAttention(12, 6, 3))
    query, key, value = noise(1, 5, 12), noise(1, 3, 12, seed=1), noise(1, 3, 12, seed=2)
    result = attention(query, key, value, torch.tensor([[True, False, True]]))
    kept = [0, 2]
    assert deviation(result, plain(attention, query, key[:, kept], value[:, kept])) < 1e-5
