"""SAM's two-way transformer: tokens read the image, and the image reads the tokens.

Segment Anything (Kirillov et al. 2023, arXiv 2304.02643), appendix A, "Lightweight mask decoder" and figure 14.
"""

import torch
from torch import Tensor, nn

from clickvol.layers.attention import TokenAttention
from clickvol.layers.vit import Mlp

# Inner width of an attention between tokens and image, as a part of the token width: half.
_CROSS_REDUCTION = 2


class TwoWayTransformer(nn.Module):
    """Some layers, and a last look of the tokens at the image."""

    def __init__(self, width: int, depth: int, num_heads: int, mlp_width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [TwoWayLayer(width, num_heads, mlp_width, first=index == 0) for index in range(depth)]
        )
        self.final_attn_token_to_image = TokenAttention(width, width // _CROSS_REDUCTION, num_heads)
        self.norm_final_attn = nn.LayerNorm(width)

    def forward(self, tokens: Tensor, image: Tensor, image_positions: Tensor) -> tuple[Tensor, Tensor]:
        """Update tokens (B, T, E) and image cells (B, S, E), whose places have codes (1 or B, S, E).

        The tokens at the entrance serve as their own positions.
        """
        positions = tokens
        for layer in self.layers:
            tokens, image = layer(tokens, positions, image, image_positions)
        read = self.final_attn_token_to_image(tokens + positions, image + image_positions, image)
        return self.norm_final_attn(tokens + read), image


class TwoWayLayer(nn.Module):
    """Self-attention of the tokens, tokens to image, MLP of the tokens, image to tokens.

    Each is added to what it updates and followed by a LayerNorm (eps 1e-5). Positions are added to the queries
    and keys of every attention, never to its values. The first layer's tokens are still their own positions, so
    its self-attention adds none, and its result replaces the tokens.
    """

    def __init__(self, width: int, num_heads: int, mlp_width: int, *, first: bool) -> None:
        super().__init__()
        self.first = first
        inner = width // _CROSS_REDUCTION
        self.self_attn = TokenAttention(width, width, num_heads)
        self.norm1 = nn.LayerNorm(width)
        self.cross_attn_token_to_image = TokenAttention(width, inner, num_heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, mlp_width, activation="relu")
        self.norm3 = nn.LayerNorm(width)
        self.norm4 = nn.LayerNorm(width)
        self.cross_attn_image_to_token = TokenAttention(width, inner, num_heads)

    def forward(
        self, tokens: Tensor, positions: Tensor, image: Tensor, image_positions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(B, T, E) tokens and positions, (B, S, E) image -> tokens and image."""
        if self.first:
            tokens = self.self_attn(tokens, tokens, tokens)
        else:
            placed = tokens + positions
            tokens = tokens + self.self_attn(placed, placed, tokens)
        tokens = self.norm1(tokens)
        placed_image = image + image_positions
        read = self.cross_attn_token_to_image(tokens + positions, placed_image, image)
        tokens = self.norm2(tokens + read)
        tokens = self.norm3(tokens + self.mlp(tokens))
        answer = self.cross_attn_image_to_token(placed_image, tokens + positions, tokens)
        return tokens, torch.as_tensor(self.norm4(image + answer))
