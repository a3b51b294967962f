"""The pattern embedding of ProMISe-2D: a shift of a frozen decoder's mask tokens, made from the image.

Wang et al., arXiv 2403.04164 (PaE and IPS). T' = T + PaE(E): every mask token of SAM gets its own shift;
the IoU token and the decoder stay as they are.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

LastLayer = Literal["default", "zero"]


@dataclass(frozen=True, kw_only=True)
class PatternEmbeddingConfig:
    """Sizes of the pattern embedding. The defaults are those of the released code.

    Attributes:
        width: channels of the image embedding, and width of a mask token.
        num_mask_tokens: tokens that are shifted; SAM has one for a single mask and three for several.
        last_layer: how the last layer begins. "default" is torch's (released); "zero" makes the shift zero, so
            that training begins at the frozen model.
    """

    width: int = 256
    hidden_width: int = 1024
    num_mask_tokens: int = 4
    last_layer: LastLayer = "default"


class PatternEmbedding(nn.Module):
    """Image embedding -> shift of the mask tokens: mean over places, Linear, GELU, Linear."""

    def __init__(self, config: PatternEmbeddingConfig) -> None:
        super().__init__()
        self.config = config
        self.lin1 = nn.Linear(config.width, config.hidden_width)
        self.activation = nn.GELU()
        self.lin2 = nn.Linear(config.hidden_width, config.num_mask_tokens * config.width)
        if config.last_layer == "zero":
            nn.init.zeros_(self.lin2.weight)
            nn.init.zeros_(self.lin2.bias)

    def forward(self, embedding: Tensor) -> Tensor:
        """(B, E, h, w) after the neck -> (B, num_mask_tokens, E)."""
        hidden = self.activation(self.lin1(embedding.mean((2, 3))))
        shift = self.lin2(hidden).unflatten(-1, (self.config.num_mask_tokens, self.config.width))
        return torch.as_tensor(shift)
