"""The loss of ProMISe-2D on the logits of one mask."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Sigmoid = Literal["once", "twice"]

# Added to numerator and denominator of the soft Dice; value of the released ProMISe-2D code.
_DICE_SMOOTHING = 1.0


def bce_dice(logits: Tensor, target: Tensor, *, sigmoid: Sigmoid = "once") -> Tensor:
    """Return binary cross-entropy + (1 - soft Dice), equal weights, at the resolution of the logits.

    Cross-entropy is a mean over pixels and batch. Dice is taken per image and averaged over the batch (not
    stated in the sources; chosen so that a large object does not hide a small one).

    The released code applies the sigmoid in the model and again in the loss. That is `sigmoid="twice"`:
    the gradient shrinks, and a perfect mask that covers 15 % of the image still costs 1.32.

    Args:
        logits: (B, 1, h, w).
        target: (B, 1, H, W) in [0, 1], any dtype; resized bilinearly to (h, w) where it differs, as
            published, so that its edges become soft.
        sigmoid: how often the logits are squashed before they are compared.

    Returns:
        A scalar, at least 0.
    """
    wanted = truth_at(target, logits)
    if sigmoid == "twice":
        logits = torch.sigmoid(logits)
    probability = torch.sigmoid(logits)
    return F.binary_cross_entropy_with_logits(logits, wanted) + soft_dice_loss(probability, wanted)


def soft_dice_loss(probability: Tensor, wanted: Tensor) -> Tensor:
    """Return 1 - soft Dice per image, averaged over the batch: a scalar in [0, 1].

    The smoothing is the released one: 1 is added to the overlap before it is doubled, and what exceeds 1 counts
    as 1.

    Args:
        probability: (B, 1, h, w) probabilities.
        wanted: (B, 1, h, w) in [0, 1].
    """
    places = (1, 2, 3)
    overlap = 2 * ((probability * wanted).sum(places) + _DICE_SMOOTHING)
    total = probability.sum(places) + wanted.sum(places) + _DICE_SMOOTHING
    return (1 - overlap / total).clamp(min=0).mean()


def truth_at(target: Tensor, logits: Tensor) -> Tensor:
    """Return a truth at the resolution and of the type of logits: (B, 1, H, W) -> (B, 1, h, w), bilinear."""
    wanted = target.to(logits.dtype)
    if wanted.shape[-2:] == logits.shape[-2:]:
        return wanted
    return F.interpolate(wanted, size=logits.shape[-2:], mode="bilinear", align_corners=False)
