"""The loss of the masks that a network offers besides its first, and of the Dice that it expects of each."""

import torch
import torch.nn.functional as F
from torch import Tensor

from clickvol.mask_decoders.candidates import Candidates
from clickvol.training.tasks.losses import hard_dice

# The best candidate gets most of the loss; a small part for all keeps each of them alive.
_SHARE_FOR_ALL = 0.1
_CANDIDATE_WEIGHT = 0.5
_JUDGE_WEIGHT = 0.3


def candidate_loss(candidates: Candidates, logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Return the loss, a scalar, and means over the batch without gradient, (3,).

    These are the Dice of the first mask, that of the best of all, and how far the predicted Dice are off.

    Args:
        candidates: what the network offers.
        logits: (B, 2, D, H, W) of the first mask, background first, without gradient.
        label: (B, 1, D, H, W), 0 or 1.
    """
    further = candidates.logits.float()
    each = _mask_losses(further, label.to(torch.float32))
    chosen = (1 - _SHARE_FOR_ALL) * each.amin(dim=1) + _SHARE_FOR_ALL * each.mean(dim=1)
    with torch.no_grad():
        masks = torch.cat([logits[:, 1:] - logits[:, :1], further], dim=1) > 0
        dice = hard_dice(masks, label.bool())
        error = (candidates.predicted_dice - dice).abs()
    judged = F.smooth_l1_loss(candidates.predicted_dice, dice, beta=0.1, reduction="none")
    figures = torch.stack([dice[:, 0].mean(), dice.amax(dim=1).mean(), error.mean()])
    return _CANDIDATE_WEIGHT * chosen.mean() + _JUDGE_WEIGHT * judged.mean(), figures


def _mask_losses(logits: Tensor, target: Tensor) -> Tensor:
    """Return soft Dice loss plus cross-entropy of each mask: (B, K, D, H, W), (B, 1, D, H, W) -> (B, K)."""
    probability = torch.sigmoid(logits)
    places = (2, 3, 4)
    overlap = 2 * (probability * target).sum(places) + 1e-5
    dice = 1 - overlap / (probability.sum(places) + target.sum(places) + 1e-5)
    entropy = F.binary_cross_entropy_with_logits(logits, target.expand_as(logits), reduction="none")
    return dice + entropy.mean(places)
