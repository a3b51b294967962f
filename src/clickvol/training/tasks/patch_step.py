"""A training step on patches made on the device: corrections, candidates, loss. Nothing is read back."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clickvol.datasets.device.patch_sampler import PatchBatch
from clickvol.datasets.device.prompts import MAX_CLICKS, random_error_click
from clickvol.methods.lifted_segmenter import EncodedPatch, LiftedSegmenter
from clickvol.methods.recipe import LossRecipe
from clickvol.prompt_encoders.feature_sampling import PointPrompts
from clickvol.training.tasks.losses import segmentation_loss

# Slots that corrections take; those before are for clicks drawn with the sample.
_FIRST_CORRECTION = 5

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
        self._max_corrections = min(max_corrections, MAX_CLICKS - _FIRST_CORRECTION)

    def forward(self, batch: PatchBatch, step: int) -> StepFigures:
        """Return loss and figures of a batch; `step` seeds how many corrections there are."""
        given = batch.prompts
        prompts = PointPrompts(given.points_dhw, given.labels, given.hints)
        encoded = self.network.encode_image(batch.patch)
        for number in range(self._num_corrections(step)):
            prompts = self._corrected(encoded, prompts, batch, number)
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

    def _num_corrections(self, step: int) -> int:
        rng = np.random.default_rng([self._seed, step, 2])
        if rng.random() >= self._corrected_share:
            return 0
        return int(rng.integers(1, self._max_corrections, endpoint=True))

    @torch.no_grad()
    def _corrected(
        self, encoded: EncodedPatch, prompts: PointPrompts, batch: PatchBatch, number: int
    ) -> PointPrompts:
        """Add one click into the error of each sample's present mask."""
        logits = self.network.decode(encoded, prompts, batch.prompts.prior)
        predicted = logits[:, 1:] > logits[:, :1]
        voxel, sign = random_error_click(predicted, batch.label.bool(), batch.noise_seed, 200 + number)
        points, labels = prompts.points_dhw.clone(), prompts.labels.clone()
        points[:, _FIRST_CORRECTION + number] = voxel
        labels[:, _FIRST_CORRECTION + number] = sign
        return PointPrompts(points, labels, prompts.hints)


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
