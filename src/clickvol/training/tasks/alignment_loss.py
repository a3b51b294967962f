"""TAGS' alignment loss: tokens near a tumour should point to the text of a diseased organ.

arXiv 2505.17096 and its released code; the parts are those of MVFA-AD (CVPR 2024).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from clickvol.methods.recipe import AlignmentTerm

# Factor of the cosine before softmax, as released; CLIP's own logit scale is at most 100 too.
_LOGIT_SCALE = 100.0

# Exponent of the focal loss, as released.
_FOCAL_GAMMA = 2.0

# As released; where it enters is not stated. Chosen: the target is 1e-5 and 1 - 1e-5 in place of 0 and 1, and
# the score of the target is raised by as much, so that its logarithm stays finite and a perfect score costs 0.
_FOCAL_SMOOTHING = 1e-5

# Not stated; chosen as in the Dice of the logits (`training/tasks/losses.py`).
_DICE_SMOOTHING = 1e-5


def alignment_loss(aligned: tuple[Tensor, ...], text: Tensor, label: Tensor, term: AlignmentTerm) -> Tensor:
    """Return the sum over the stages of 1/2 (focal loss + Dice loss of the tumour), without its weight.

    Per stage: cosine of each token with the two texts, times 100, enlarged to the patch (trilinear, corners
    aligned), softmax. Both texts enter as the difference of their logits: softmax of two is the sigmoid of
    it, and enlarging is linear, so one map per stage is enlarged in place of two.

    Args:
        aligned: one per stage, (B, E_text, d, h, w), any length.
        text: (E_text, 2), columns of length 1: healthy, tumour.
        label: (B, 1, D, H, W), 0 or 1.
        term: form of the focal loss.

    Returns:
        A scalar, at least 0.
    """
    target = label.float()
    towards_tumour = _LOGIT_SCALE * (text[:, 1] - text[:, 0]).float()
    total = target.new_zeros(())
    for tokens in aligned:
        cosines = F.normalize(tokens.float(), dim=1)
        logit = torch.einsum("bedhw,e->bdhw", cosines, towards_tumour)[:, None]
        score = torch.sigmoid(F.interpolate(logit, size=target.shape[2:], mode="trilinear", align_corners=True))
        total = total + 0.5 * (_focal_loss(score, target, term) + _dice_loss(score, target))
    return total


def _focal_loss(score: Tensor, target: Tensor, term: AlignmentTerm) -> Tensor:
    """Return the mean of -(1 - p)^2 log p, p being the score of the voxel's own class.

    Args:
        score: (B, 1, D, H, W) of the tumour, 0 to 1; the healthy class has the rest.
        target: (B, 1, D, H, W), 0 or 1.
        term: "softmax_again" takes softmax of the two scores as if they were logits.
    """
    if term.focal_input == "softmax_again":
        score = torch.sigmoid(2 * score - 1)
    right = target * score + (1 - target) * (1 - score)
    # (1 - 1e-5) right + 1e-5 (1 - right) + 1e-5, written so that it is never above 1.
    own = right + 2 * _FOCAL_SMOOTHING * (1 - right)
    return -((1 - own) ** _FOCAL_GAMMA * own.log()).mean()


def _dice_loss(score: Tensor, target: Tensor) -> Tensor:
    """Return 1 - soft Dice of (B, 1, D, H, W) and (B, 1, D, H, W), averaged over the batch."""
    places = (1, 2, 3, 4)
    overlap = 2 * (score * target).sum(places) + _DICE_SMOOTHING
    total = score.sum(places) + target.sum(places) + _DICE_SMOOTHING
    return (1 - overlap / total).mean()
