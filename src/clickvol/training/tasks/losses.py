"""Losses on two-class logits."""

import torch
import torch.nn.functional as F
from torch import Tensor

from clickvol.methods.recipe import BoundaryTerm, LossRecipe

# Added to numerator and denominator of the soft Dice; value of the published code (MONAI's default).
_DICE_SMOOTHING = 1e-5


def segmentation_loss(logits: Tensor, label: Tensor, recipe: LossRecipe) -> Tensor:
    """Return the part of a method's loss that looks at its logits.

    Args:
        logits: (B, 2, D, H, W), background first.
        label: (B, 1, D, H, W), 0 or 1.
        recipe: the weights; its alignment term is not part of this sum.

    Returns:
        A scalar, at least 0.
    """
    total = recipe.dice_weight * dice_loss(logits, label)
    total = total + recipe.cross_entropy_weight * F.cross_entropy(logits, label[:, 0].long())
    if recipe.boundary is not None:
        total = total + recipe.boundary.weight * boundary_loss(logits, label, recipe.boundary)
    return total


def dice_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Return 1 - soft Dice of the foreground, per sample, averaged over the batch.

    (2 sum(p g) + 1e-5) / (sum p + sum g + 1e-5), as in the released ProMISe-3D and 3DSAM-adapter code.

    Args:
        logits: (B, 2, D, H, W), background first.
        label: (B, 1, D, H, W), 0 or 1.
    """
    foreground = torch.softmax(logits, dim=1)[:, 1]
    target = label[:, 0].to(foreground.dtype)
    places = (1, 2, 3)
    overlap = 2 * (foreground * target).sum(places) + _DICE_SMOOTHING
    total = foreground.sum(places) + target.sum(places) + _DICE_SMOOTHING
    return (1 - overlap / total).mean()


def boundary_loss(logits: Tensor, label: Tensor, term: BoundaryTerm) -> Tensor:
    """Return ProMISe-3D's boundary loss without its weight; 0 for samples without an object.

    Mean squared difference of the boundary maps B(m) = |m - average pool of m| of the prediction and of the
    label (ProMISe-3D, section 2.4; the released code for `term`'s options).

    Args:
        logits: (B, 2, D, H, W), background first.
        label: (B, 1, D, H, W), 0 or 1.
        term: kernel, border, channels.

    Returns:
        A scalar, the mean over the batch.
    """
    prediction = logits if term.compared == "logits" else torch.softmax(logits, dim=1)
    if term.channels == "foreground":
        prediction = prediction[:, 1:]
    target = boundary_map(label.to(prediction.dtype), term)
    difference = boundary_map(prediction, term) - target
    per_sample = (difference**2).mean(dim=(1, 2, 3, 4))
    has_object = label.flatten(1).any(dim=1)
    return (per_sample * has_object).mean()


def boundary_map(values: Tensor, term: BoundaryTerm) -> Tensor:
    """Return |m - average pool of m|: (B, C, D, H, W) -> (B, C, D, H, W)."""
    pooled = F.avg_pool3d(
        values,
        term.kernel_dhw,
        stride=1,
        padding=[n // 2 for n in term.kernel_dhw],
        count_include_pad=term.border == "zeros_counted",
    )
    return (values - pooled).abs()


def hard_dice(masks: Tensor, label: Tensor) -> Tensor:
    """Return each mask's Dice, 1 for two empty ones: (B, K, ...), (B, 1, ...) bool -> (B, K)."""
    masks, label = masks.flatten(2), label.flatten(2)
    overlap = 2 * (masks & label).sum(2)
    total = masks.sum(2) + label.sum(2)
    return torch.where(total > 0, overlap / total.clamp(min=1), 1.0)
