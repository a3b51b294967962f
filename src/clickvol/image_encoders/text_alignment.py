"""Tokens brought into the space of text embeddings and blended back (TAGS, arXiv 2505.17096)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clickvol.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class TextAlignmentConfig:
    """Sizes of the alignment adapters.

    Attributes:
        text_width: length of a text embedding; 768 for CLIP ViT-L/14, as wide as SAM ViT-B's tokens.
        blend: part of the aligned tokens in the stream that goes on, 0 to 1; 0.2 as released.
    """

    text_width: int = 768
    blend: float = 0.2

    def __post_init__(self) -> None:
        if self.text_width < 1:
            raise ConfigError(f"text_width is {self.text_width}, but a text embedding has at least one value")
        if not 0 <= self.blend <= 1:
            raise ConfigError(f"blend is {self.blend}, but it is a part, from 0 to 1")


class TextAlignment(nn.Module):
    """One linear layer into text space, LeakyReLU, and a blend with the tokens.

    Where the text space is as wide as the tokens, this is the released form: a = LeakyReLU(W x) and x <- (1 -
    blend) x + blend a. Otherwise a second linear layer without bias brings `a` back to the width of the tokens
    (the form of MVFA-AD, CVPR 2024, that the released one was simplified from).
    """

    def __init__(self, width: int, config: TextAlignmentConfig) -> None:
        super().__init__()
        self.blend = config.blend
        self.to_text = nn.Linear(width, config.text_width, bias=False)
        self.from_text = None if config.text_width == width else nn.Linear(config.text_width, width, bias=False)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(B, d, h, w, E) -> blended tokens (B, d, h, w, E), aligned tokens (B, d, h, w, E_text)."""
        # Slope 0.01: not stated; PyTorch's own.
        aligned = F.leaky_relu(self.to_text(tokens), negative_slope=0.01)
        back = aligned if self.from_text is None else self.from_text(aligned)
        return torch.lerp(tokens, back.to(tokens.dtype), self.blend), aligned
