"""One forward pass of training: clicks, network, loss."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clickvol.datasets.samples import TrainingSample
from clickvol.datasets.sampling import SamplingSection, VolumeSampling
from clickvol.errors import ConfigError
from clickvol.methods.lifted_segmenter import EncodedPatch
from clickvol.methods.recipe import LossRecipe, Recipe, TrainingClicks
from clickvol.methods.volume_segmenter import VolumeSegmenter
from clickvol.prompt_encoders.feature_sampling import PointPrompts
from clickvol.prompts.simulate import published_clicks, random_error_click
from clickvol.shapes import PADDING_LABEL
from clickvol.training.tasks.alignment_loss import alignment_loss
from clickvol.training.tasks.losses import dice_loss, mean_dice, segmentation_loss


@dataclass(frozen=True, slots=True)
class SampleNumbers:
    """Which samples of the run a batch holds; they seed what is drawn for them.

    Attributes:
        step: optimiser step, the same in every process.
        first: number of the first sample; the others follow.
    """

    step: int
    first: int


class TrainingStep(nn.Module):
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
        self.register_buffer("text", text, persistent=False)
        self._recipe = recipe
        self._sampling = sampling
        self._seed = seed

    def forward(self, batch: TrainingSample, numbers: SampleNumbers) -> tuple[Tensor, Tensor, Tensor]:
        """Return the loss, and without gradient the Dice of the masks and the soft Dice loss: scalars."""
        clicks = self._recipe.training_clicks
        prompts = PointPrompts(batch.points_dhw, batch.labels)
        if clicks is not None:
            prompts = self._published_clicks(batch.label, clicks, numbers)
        encoded = self.network.encode_image(batch.patch)
        if clicks is None and isinstance(self._sampling, SamplingSection):
            prompts = self._corrected(encoded, prompts, batch, numbers)
        logits = self.network.decode(encoded, prompts, batch.prior)
        loss = _loss(encoded, logits, batch.label, self._recipe.loss, self.text)
        detached = logits.detach().float()
        overlap = mean_dice(detached[:, 1] > detached[:, 0], batch.label[:, 0].bool())
        return loss, overlap, dice_loss(detached, batch.label)

    def _generator(self, number: int) -> np.random.Generator:
        """Return the randomness of one sample."""
        return np.random.default_rng([self._seed, number, 1])

    def _published_clicks(self, label: Tensor, clicks: TrainingClicks, numbers: SampleNumbers) -> PointPrompts:
        """Draw clicks from the labels (B, 1, D, H, W) as the published methods do; padded where none exist."""
        count = clicks.foreground + clicks.others
        points = torch.zeros(label.shape[0], count, 3)
        labels = torch.full((label.shape[0], count), PADDING_LABEL)
        for sample, truth in enumerate(label[:, 0].bool().cpu().numpy()):
            rng = self._generator(numbers.first + sample)
            places, signs = published_clicks(truth, clicks.foreground, clicks.others, clicks.others_from, rng)
            points[sample, : len(signs)] = torch.from_numpy(places.astype(np.float32))
            labels[sample, : len(signs)] = torch.from_numpy(signs)
        return PointPrompts(points.to(label.device), labels.to(label.device))

    @torch.no_grad()
    def _corrected(
        self,
        encoded: EncodedPatch,
        prompts: PointPrompts,
        batch: TrainingSample,
        numbers: SampleNumbers,
    ) -> PointPrompts:
        """In some steps put clicks into the error of the present prediction, one after the other."""
        sampling = self._sampling
        if not isinstance(sampling, SamplingSection):
            return prompts
        # One draw for the whole step: the passes are spent on all samples at once.
        of_step = np.random.default_rng([self._seed, numbers.step, 2])
        if of_step.random() >= sampling.corrected_click_share:
            return prompts
        generators = [self._generator(numbers.first + i) for i in range(len(batch.label))]
        truth = batch.label[:, 0].bool().cpu().numpy()
        for _ in range(int(of_step.integers(1, sampling.max_corrected_clicks, endpoint=True))):
            logits = self.network.decode(encoded, prompts, batch.prior)
            predicted = (logits[:, 1] > logits[:, 0]).cpu().numpy()
            prompts = _with_corrections(prompts, predicted, truth, generators)
        return prompts


def _with_corrections(
    prompts: PointPrompts,
    predicted: np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
    truth: np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
    generators: list[np.random.Generator],
) -> PointPrompts:
    """Put one click into the error of each sample's prediction, in a free slot."""
    points, labels = prompts.points_dhw.clone(), prompts.labels.clone()
    for sample, rng in enumerate(generators):
        free = (labels[sample] == PADDING_LABEL).nonzero()
        correction = random_error_click(predicted[sample], truth[sample], rng)
        if correction is None or len(free) == 0:
            continue
        slot = int(free[0])
        points[sample, slot] = torch.from_numpy(correction[0].as_array()).to(points)
        labels[sample, slot] = correction[1]
    return PointPrompts(points, labels)


def _loss(
    encoded: EncodedPatch, logits: Tensor, label: Tensor, recipe: LossRecipe, text: Tensor | None
) -> Tensor:
    loss = segmentation_loss(logits.float(), label, recipe)
    if recipe.alignment is None or text is None:
        return loss
    aligning = alignment_loss(encoded.aligned, text, label, recipe.alignment)
    return loss + recipe.alignment.weight * aligning
