"""Multi-head attention between tokens, with an inner width of its own (SAM's two-way transformer)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TokenAttention(nn.Module):
    """softmax(q k^T / sqrt(head width)) v with four projections to `inner_width` and back, all with bias."""

    def __init__(self, width: int, inner_width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_proj = nn.Linear(width, inner_width)
        self.k_proj = nn.Linear(width, inner_width)
        self.v_proj = nn.Linear(width, inner_width)
        self.out_proj = nn.Linear(inner_width, width)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, key_is_real: Tensor | None = None) -> Tensor:
        """Attend: query (B, T, E), key and value (B, S, E) -> (B, T, E).

        `key_is_real` is (B, S) bool; False keeps a key from being seen.
        """
        q, k, v = (
            projection(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for projection, x in ((self.q_proj, query), (self.k_proj, key), (self.v_proj, value))
        )
        mask = None if key_is_real is None else key_is_real[:, None, None, :]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return torch.as_tensor(self.out_proj(mixed.transpose(1, 2).flatten(2)))
