"""Several masks for one prompt, each with a prediction of how good it is.

One click does not say how large the object is. As SAM does it (Kirillov et al., 2023, arXiv 2304.02643, section
3): the candidate that fits best gets the loss, and a small head learns the Dice of every mask.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clickvol.layers.conv3d import conv3

_HIDDEN = 64


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Masks beside the first.

    Attributes:
        logits: (B, K, D, H, W) foreground against background; a sigmoid makes them probabilities.
        predicted_dice: (B, 1 + K) in (0, 1): of the first mask, then of the candidates.
    """

    logits: Tensor
    predicted_dice: Tensor


class CandidateHead(nn.Module):
    """From the decoder's map to candidates and the predicted Dice of all masks."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.classify = conv3(width, count)
        self.spread = nn.Parameter(torch.linspace(-1, 1, count) if count > 1 else torch.zeros(count))
        self.judge = nn.Sequential(nn.Linear(2 * width + 2, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, 1))

    def forward(self, joined: Tensor, logits: Tensor, decoder_stride: int) -> Candidates:
        """Return the candidates from (B, width, d, h, w) and the (B, 2, D, H, W) logits of the first mask."""
        small = self.classify(joined) + self.spread.view(1, -1, 1, 1, 1)
        large = F.interpolate(
            small.contiguous(), scale_factor=decoder_stride, mode="trilinear", align_corners=True
        )
        # The masks are judged as they are: what is learned there does not change them.
        first = F.avg_pool3d((logits[:, 1:] - logits[:, :1]).detach(), decoder_stride)
        masks = torch.sigmoid(torch.cat([first, small.detach().to(first.dtype)], dim=1).float())
        features = joined.float().flatten(2)
        flat = masks.flatten(2)
        total = flat.sum(2, keepdim=True)
        inside = torch.einsum("bkn,bcn->bkc", flat, features) / (total + 1e-3)
        over = features.mean(2)[:, None].expand_as(inside)
        sure = (flat * flat).sum(2, keepdim=True) / (total + 1e-3)
        described = torch.cat([inside, over, torch.log1p(total) / 10, sure], dim=2)
        return Candidates(large, torch.sigmoid(self.judge(described)[..., 0]))
