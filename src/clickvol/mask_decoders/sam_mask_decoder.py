"""SAM's mask decoder: image and prompt embeddings to mask logits and their expected quality.

Segment Anything (Kirillov et al. 2023, arXiv 2304.02643), appendix A, "Lightweight mask decoder". Parameters
have the names of SAM's own files.
"""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clickvol.errors import ConfigError
from clickvol.layers.norms import ChannelLayerNorm
from clickvol.layers.two_way import TwoWayTransformer
from clickvol.prompt_encoders.sam_prompts import SamPromptEmbedding

# Layers of the MLPs that turn a mask token into a dynamic classifier.
_HYPERNETWORK_DEPTH = 3


@dataclass(frozen=True, kw_only=True)
class SamMaskDecoderConfig:
    """Sizes of the decoder. The defaults are SAM's.

    Attributes:
        width: width of the embeddings; a multiple of 8, and half of it one of num_heads.
        num_multimask: masks for an ambiguous prompt, beside the one for an unambiguous prompt.
        iou_depth: layers of the MLP that predicts each mask's IoU; at least 1.
    """

    width: int = 256
    depth: int = 2
    num_heads: int = 8
    mlp_width: int = 2048
    num_multimask: int = 3
    iou_depth: int = 3
    iou_width: int = 256

    def __post_init__(self) -> None:
        if self.width % 8 or (self.width // 2) % self.num_heads:
            raise ConfigError(
                f"width is {self.width}, but it must be a multiple of 8 and half of it one of num_heads "
                f"{self.num_heads}"
            )
        if self.iou_depth < 1:
            raise ConfigError(f"iou_depth is {self.iou_depth}, but an MLP has at least one layer")


@dataclass(frozen=True, slots=True)
class SamMasks:
    """All masks that SAM has for a prompt; which one is meant, the caller chooses.

    Attributes:
        logits: (B, M, 4 s, 4 s), above 0 inside; s cells of the image embedding per side. Mask 0 is for
            an unambiguous prompt; 1, 2, 3 are the candidates for an ambiguous one.
        iou: (B, M), each mask's expected intersection over union with the object; not clamped to [0, 1].
    """

    logits: Tensor
    iou: Tensor


class LayeredMlp(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, inputs: int, hidden: int, outputs: int, depth: int) -> None:
        super().__init__()
        widths = [inputs] + [hidden] * (depth - 1) + [outputs]
        self.layers = nn.ModuleList([nn.Linear(a, b) for a, b in itertools.pairwise(widths)])

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        return torch.as_tensor(self.layers[-1](x))


class SamMaskDecoder(nn.Module):
    """Embeddings -> SamMasks."""

    def __init__(self, config: SamMaskDecoderConfig) -> None:
        super().__init__()
        self.config = config
        width, num_masks = config.width, config.num_multimask + 1
        self.transformer = TwoWayTransformer(width, config.depth, config.num_heads, config.mlp_width)
        self.iou_token = nn.Embedding(1, width)
        self.mask_tokens = nn.Embedding(num_masks, width)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(width, width // 4, kernel_size=2, stride=2),
            ChannelLayerNorm(width // 4),
            nn.GELU(),
            nn.ConvTranspose2d(width // 4, width // 8, kernel_size=2, stride=2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(
            [LayeredMlp(width, width, width // 8, _HYPERNETWORK_DEPTH) for _ in range(num_masks)]
        )
        self.iou_prediction_head = LayeredMlp(width, config.iou_width, num_masks, config.iou_depth)

    def forward(
        self,
        embedding: Tensor,
        grid_positions: Tensor,
        prompts: SamPromptEmbedding,
        *,
        mask_token_shift: Tensor | None = None,
    ) -> SamMasks:
        """Decode all M = num_multimask + 1 masks of (B, E, s, s) embeddings; places have (1, E, s, s) codes.

        `mask_token_shift`, (B, M, E), is added to the mask tokens (ProMISe-2D's image pattern shift). None is
        SAM.
        """
        batch, _, h, w = embedding.shape
        mask_tokens = self.mask_tokens.weight.expand(batch, -1, -1)
        if mask_token_shift is not None:
            mask_tokens = mask_tokens + mask_token_shift
        iou_token = self.iou_token.weight.expand(batch, -1, -1)
        tokens = torch.cat([iou_token, mask_tokens, prompts.sparse], dim=1)
        image = (embedding + prompts.dense).flatten(2).transpose(1, 2)
        tokens, image = self.transformer(tokens, image, grid_positions.flatten(2).transpose(1, 2))
        fine = self.output_upscaling(image.transpose(1, 2).unflatten(2, (h, w)))
        classifiers = torch.stack(
            [mlp(tokens[:, 1 + i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1
        )
        logits = torch.einsum("bmc,bchw->bmhw", classifiers, fine)
        return SamMasks(logits=logits, iou=self.iou_prediction_head(tokens[:, 0]))
