"""One forward pass of training: clicks, network, loss."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clickvol.datasets.device.prompts import published_clicks, validation_clicks, with_error_click
from clickvol.datasets.samples import PatchBatch
from clickvol.datasets.sampling import PatchSampling, VolumeSampling
from clickvol.errors import ConfigError
from clickvol.mask_decoders.candidates import Candidates
from clickvol.methods.lifted_segmenter import LiftedSegmenter
from clickvol.methods.recipe import LossRecipe, Recipe
from clickvol.methods.volume_segmenter import VolumeSegmenter
from clickvol.prompt_encoders.feature_sampling import PointPrompts
from clickvol.training.tasks.alignment_loss import alignment_loss
from clickvol.training.tasks.candidate_loss import candidate_loss
from clickvol.training.tasks.losses import dice_loss, hard_dice, segmentation_loss
from clickvol.training.tasks.task import Step


@dataclass(frozen=True, slots=True)
class _Calls:
    """What a step calls on the device."""

    encode_image: Callable[[Tensor], Any]
    decode: Callable[..., Tensor]
    answer: Callable[..., tuple[Tensor, Candidates | None]]
    losses: Callable[..., tuple[Tensor, Tensor, Tensor]]

    def compiled(self) -> "_Calls":
        """Return them as torch.compile makes them, when they are first called."""
        parts = torch.compile(self.encode_image), torch.compile(self.decode)
        return _Calls(*parts, torch.compile(self.answer), torch.compile(self.losses))


class TrainingStep(Step):
    """From a batch to its loss. A module, so that it can be run by several processes at once.

    What is drawn depends on the numbers of the samples alone, never on which process holds them.

    Args:
        network: the network being trained.
        recipe: loss and clicks of the method.
        sampling: how samples are drawn.
        seed: of the run.
        text: (E_text, 2), see `TextBank`; a recipe with texts cannot do without.
        compiled: let torch.compile make the kernels of network and loss, at the first steps.

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
        *,
        compiled: bool = False,
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
        self._compiled = self._calls().compiled() if compiled else None

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
        calls = self._compiled or self._calls()
        encoded = calls.encode_image(batch.patch)
        if clicks is None:
            for number in range(self.kind(step)):
                with torch.no_grad():
                    logits = calls.decode(encoded, prompts, given.prior)
                predicted, truth = logits[:, 1:] > logits[:, :1], batch.label.bool()
                prompts = with_error_click(prompts, predicted, truth, batch.noise_seed, 200 + number)
        logits, candidates = calls.answer(encoded, prompts, given.prior)
        aligned = encoded.aligned if self._recipe.loss.alignment is not None else ()
        return calls.losses(logits, candidates, aligned, batch.label)

    def _calls(self) -> _Calls:
        return _Calls(self.network.encode_image, self.network.decode, self._answer, self._losses)

    def _answer(
        self,
        encoded: Any,  # noqa: ANN401  # each network has its own
        prompts: PointPrompts,
        prior: Tensor | None,
    ) -> tuple[Tensor, Candidates | None]:
        network = self.network
        if isinstance(network, LiftedSegmenter) and network.candidates is not None:
            return network.decode_candidates(encoded, prompts, prior)
        return network.decode(encoded, prompts, prior), None

    def _losses(
        self, logits: Tensor, candidates: Candidates | None, aligned: tuple[Tensor, ...], label: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return what `forward` does, of the network's answer."""
        aligning = _alignment(aligned, label, self._recipe.loss, self.text)
        loss = segmentation_loss(logits.float(), label, self._recipe.loss) + aligning
        detached = logits.detach().float()
        if candidates is None:
            figures = hard_dice(detached[:, 1:] > detached[:, :1], label.bool()).mean()
        else:
            further, figures = candidate_loss(candidates, detached, label)
            loss = loss + further
        return loss, figures, dice_loss(detached, label) + aligning.detach()

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


def _alignment(aligned: tuple[Tensor, ...], label: Tensor, recipe: LossRecipe, text: Tensor | None) -> Tensor:
    """Return the weighted alignment loss; 0 for a recipe without."""
    if recipe.alignment is None or text is None:
        return torch.zeros((), device=label.device)
    return recipe.alignment.weight * alignment_loss(aligned, text, label, recipe.alignment)
