"""A training step on patches made on the device: corrections, candidates, loss. Nothing is read back."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clickvol.datasets.device.prompts import with_error_click
from clickvol.datasets.samples import PatchBatch
from clickvol.methods.lifted_segmenter import LiftedSegmenter
from clickvol.methods.recipe import LossRecipe
from clickvol.prompt_encoders.feature_sampling import PointPrompts
from clickvol.training.tasks.losses import segmentation_loss
from clickvol.training.tasks.step import num_corrections

# The best candidate gets most of the loss; a small part for all keeps each of them alive.
_SHARE_FOR_ALL = 0.1
_CANDIDATE_WEIGHT = 0.5
_JUDGE_WEIGHT = 0.3


@dataclass(frozen=True, slots=True, eq=False)
class StepFigures:
    """What a step tells, all on the device.

    Attributes:
        loss: scalar with gradient.
        dice: (B,) of the first mask.
        best_dice: (B,) of the best of all masks.
        judged: (B,) mean distance of the predicted from the true Dice.
    """

    loss: Tensor
    dice: Tensor
    best_dice: Tensor
    judged: Tensor


class PatchStep(nn.Module):
    """From a batch to its loss.

    Args:
        network: with candidates.
        loss: of the first mask.
        seed: of the run.
        corrected_share: part of the steps that get clicks into the error, one after the other.
        max_corrections: most of those.
    """

    def __init__(
        self,
        network: LiftedSegmenter,
        loss: LossRecipe,
        seed: int,
        *,
        corrected_share: float = 0.35,
        max_corrections: int = 4,
    ) -> None:
        super().__init__()
        self.network = network
        self._loss = loss
        self._seed = seed
        self._corrected_share = corrected_share
        self._max_corrections = max_corrections

    def num_corrections(self, step: int) -> int:
        """Return how many clicks into the error a step gets; all else of it is the same in every step."""
        return num_corrections(self._seed, step, self._corrected_share, self._max_corrections)

    def forward(self, batch: PatchBatch, step: int) -> StepFigures:
        """Return loss and figures of a batch; `step` seeds how many corrections there are."""
        given = batch.prompts
        prompts = PointPrompts(given.points_dhw, given.labels, given.hints)
        encoded = self.network.encode_image(batch.patch)
        for number in range(self.num_corrections(step)):
            with torch.no_grad():
                logits = self.network.decode(encoded, prompts, given.prior)
            predicted, truth = logits[:, 1:] > logits[:, :1], batch.label.bool()
            prompts = with_error_click(prompts, predicted, truth, batch.noise_seed, 200 + number)
        logits, candidates = self.network.decode_candidates(encoded, prompts, given.prior)
        logits, further = logits.float(), candidates.logits.float()
        loss = segmentation_loss(logits, batch.label, self._loss)
        target = batch.label.to(torch.float32)
        each = _mask_losses(further, target)
        chosen = (1 - _SHARE_FOR_ALL) * each.amin(dim=1) + _SHARE_FOR_ALL * each.mean(dim=1)
        with torch.no_grad():
            masks = torch.cat([logits[:, 1:] - logits[:, :1], further], dim=1) > 0
            dice = hard_dice(masks, batch.label.bool())
        judged = F.smooth_l1_loss(candidates.predicted_dice, dice, beta=0.1, reduction="none")
        loss = loss + _CANDIDATE_WEIGHT * chosen.mean() + _JUDGE_WEIGHT * judged.mean()
        error = (candidates.predicted_dice.detach() - dice).abs().mean(dim=1)
        return StepFigures(loss, dice[:, 0], dice.amax(dim=1), error)


def _mask_losses(logits: Tensor, target: Tensor) -> Tensor:
    """Return soft Dice loss plus cross-entropy of each mask: (B, K, D, H, W), (B, 1, D, H, W) -> (B, K)."""
    probability = torch.sigmoid(logits)
    places = (2, 3, 4)
    overlap = 2 * (probability * target).sum(places) + 1e-5
    dice = 1 - overlap / (probability.sum(places) + target.sum(places) + 1e-5)
    entropy = F.binary_cross_entropy_with_logits(logits, target.expand_as(logits), reduction="none")
    return dice + entropy.mean(places)


def hard_dice(masks: Tensor, label: Tensor) -> Tensor:
    """Return each mask's Dice, 1 for two empty ones: (B, K, D, H, W), (B, 1, D, H, W) bool -> (B, K)."""
    places = (2, 3, 4)
    overlap = 2 * (masks & label).sum(places)
    total = masks.sum(places) + label.sum(places)
    return torch.where(total > 0, overlap / total.clamp(min=1), 1.0)
