"""Losses on two-class logits."""

import torch
import torch.nn.functional as F
from torch import Tensor

# Added to numerator and denominator of the soft Dice; value of the published code (MONAI's default).
_DICE_SMOOTHING = 1e-5


def dice_cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Return 0.5 * soft Dice loss of the object + 0.5 * cross-entropy over both classes.

    The structural loss of the released ProMISe-3D and 3DSAM-adapter code. Dice is taken per sample over
    the foreground probability, then averaged over the batch.

    Args:
        logits: (B, 2, D, H, W), background first.
        label: (B, 1, D, H, W), 0 or 1.

    Returns:
        A scalar, at least 0.
    """
    foreground = torch.softmax(logits, dim=1)[:, 1]
    target = label[:, 0].to(foreground.dtype)
    places = (1, 2, 3)
    overlap = 2 * (foreground * target).sum(places) + _DICE_SMOOTHING
    total = foreground.sum(places) + target.sum(places) + _DICE_SMOOTHING
    dice_loss = (1 - overlap / total).mean()
    return 0.5 * dice_loss + 0.5 * F.cross_entropy(logits, label[:, 0].long())
