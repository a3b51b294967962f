"""One forward pass of training: clicks, network, loss."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from clickvol.datasets.device.prompts import published_clicks, validation_clicks, with_error_click
from clickvol.datasets.samples import PatchBatch
from clickvol.datasets.sampling import PatchSampling, VolumeSampling
from clickvol.errors import ConfigError
from clickvol.methods.lifted_segmenter import EncodedPatch, LiftedSegmenter
from clickvol.methods.recipe import LossRecipe, Recipe
from clickvol.methods.volume_segmenter import VolumeSegmenter
from clickvol.prompt_encoders.feature_sampling import PointPrompts
from clickvol.training.tasks.alignment_loss import alignment_loss
from clickvol.training.tasks.candidate_loss import candidate_loss
from clickvol.training.tasks.losses import dice_loss, hard_dice, segmentation_loss
from clickvol.training.tasks.task import Step


class TrainingStep(Step):
    """From a batch to its loss. A module, so that it can be run by several processes at once.

    What is drawn depends on the numbers of the samples alone, never on which process holds them.

    Args:
        network: the network being trained.
        recipe: loss and clicks of the method.
        sampling: how samples are drawn.
        seed: of the run.
        text: (E_text, 2), see `TextBank`; a recipe with texts cannot do without.

    Raises:
        ConfigError: when the recipe compares tokens with texts and none are given.
    """

    text: Tensor | None

    def __init__(
        self,
        network: VolumeSegmenter[Any],
        recipe: Recipe,
        sampling: VolumeSampling,
        seed: int,
        text: Tensor | None = None,
    ) -> None:
        super().__init__()
        if recipe.loss.alignment is not None and text is None:
            raise ConfigError("this method compares tokens with texts, but no text bank was given; load one")
        self.network = network
        if isinstance(network, LiftedSegmenter) and network.candidates is not None:
            self.figures = ("dice", "best_dice", "judge_error")
        self.register_buffer("text", text, persistent=False)
        self._recipe = recipe
        self._sampling = sampling
        self._seed = seed

    def forward(self, batch: PatchBatch, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the loss, and without gradient the figures and what weights are chosen by.

        That is the soft Dice loss, and with it the alignment loss where the recipe has one (TAGS, as released).
        In evaluation mode a recipe with clicks of its own gets those of its validation.

        Args:
            batch: samples.
            step: optimiser step, the same in every process; seeds how many corrections there are.
        """
        given, clicks = batch.prompts, self._recipe.training_clicks
        if clicks is None:
            prompts = PointPrompts(given.points_dhw, given.labels, given.hints)
        elif self.training:
            prompts = published_clicks(batch.label, clicks, batch.noise_seed)
        else:
            prompts = validation_clicks(batch.label, self._recipe.num_validation_clicks, batch.noise_seed)
        encoded = self.network.encode_image(batch.patch)
        if clicks is None:
            for number in range(self.kind(step)):
                with torch.no_grad():
                    logits = self.network.decode(encoded, prompts, given.prior)
                predicted, truth = logits[:, 1:] > logits[:, :1], batch.label.bool()
                prompts = with_error_click(prompts, predicted, truth, batch.noise_seed, 200 + number)
        candidates = None
        if isinstance(self.network, LiftedSegmenter) and self.network.candidates is not None:
            logits, candidates = self.network.decode_candidates(encoded, prompts, given.prior)
        else:
            logits = self.network.decode(encoded, prompts, given.prior)
        aligning = _alignment(encoded, batch.label, self._recipe.loss, self.text)
        loss = segmentation_loss(logits.float(), batch.label, self._recipe.loss) + aligning
        detached = logits.detach().float()
        if candidates is None:
            figures = hard_dice(detached[:, 1:] > detached[:, :1], batch.label.bool()).mean()
        else:
            further, figures = candidate_loss(candidates, detached, batch.label)
            loss = loss + further
        return loss, figures, dice_loss(detached, batch.label) + aligning.detach()

    def kind(self, number: int) -> int:
        """Return how many corrections a step gets, drawn once: the passes are spent on all samples at once."""
        sampling = self._sampling
        if not isinstance(sampling, PatchSampling):
            return 0
        share, most = sampling.corrected_click_share, sampling.max_corrected_clicks
        return num_corrections(self._seed, number, share, most)


def num_corrections(seed: int, step: int, share: float, most: int) -> int:
    """Return how many clicks into the error a step gets: in a part of the steps, uniform from 1 to `most`."""
    rng = np.random.default_rng([seed, step, 2])
    return int(rng.integers(1, most, endpoint=True)) if rng.random() < share else 0


def _alignment(encoded: EncodedPatch, label: Tensor, recipe: LossRecipe, text: Tensor | None) -> Tensor:
    """Return the weighted alignment loss; 0 for a recipe without."""
    if recipe.alignment is None or text is None:
        return torch.zeros((), device=label.device)
    return recipe.alignment.weight * alignment_loss(encoded.aligned, text, label, recipe.alignment)
