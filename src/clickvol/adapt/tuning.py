"""Training some of a model's weights further on the user's cases: few steps, small rate, averaged weights."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clickvol.adapt.cases import GROUP
from clickvol.datasets.device.patch_sampler import PatchSampler
from clickvol.datasets.device.prompts import random_error_click
from clickvol.datasets.device.scan_store import ScanStore
from clickvol.datasets.samples import PatchBatch
from clickvol.datasets.sampling import PatchSampling
from clickvol.errors import ConfigError, TrainingError
from clickvol.methods.lifted_segmenter import EncodedPatch, LiftedSegmenter
from clickvol.methods.recipe import BoundaryTerm, LossRecipe
from clickvol.prompt_encoders.feature_sampling import PointPrompts
from clickvol.training.tasks.losses import segmentation_loss
from clickvol.weights.card import FieldOfViewPlan
from clickvol.weights.load import LoadedModel

BATCH = 4
"""Patches in a step. Chosen: more steps were worth more than larger batches in ten minutes."""

_PATCH_SHARE = 0.75
"""Side of a training patch over that of the network. At 48 of 64 voxels a step takes half the time, and the
same minutes brought more: one-click Dice of .59 against .49 on lung nodules after 130 s of one core."""

_WARMUP_STEPS = 10
_CLIP_NORM = 1.0
_LOSS = LossRecipe(boundary=BoundaryTerm())

# Of the steps that have them: clicks into the error, after those that are drawn with the sample.
_CORRECTED_SHARE = 0.2
_MAX_CORRECTIONS = 2
_FIRST_CORRECTION = 5

# The average forgets as fast as this at most; at the beginning faster.
_DECAY = 0.98

# Parts of the network that no click answer comes from.
_UNUSED = ("candidates.",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """How weights are trained further.

    Attributes:
        num_steps: of `BATCH` samples each.
        rate: highest learning rate; it rises over ten steps and falls to nothing.
        seed: of the samples.
    """

    num_steps: int
    rate: float
    seed: int


def sampling_for(plan: FieldOfViewPlan) -> PatchSampling:
    """Return how patches are drawn: as they will be seen by the user's clicks, nothing made up."""
    return PatchSampling(
        group_shares={GROUP: 1.0},
        small_object_exponent=0.5,
        first_voxel_mm=plan.first_voxel_mm,
        first_zoom=(0.9, 1.3),
        first_view_share=0.45,
        finest_voxel_mm=plan.finest_voxel_mm,
        coarsest_voxel_mm=plan.coarsest_voxel_mm,
        fitted_extents=(0.9, 2.6),
        max_cut_mm=50.0,
        rotation_degrees=20.0,
        elastic_share=0.5,
        elastic_voxels=2.0,
        remap_share=0.05,
        extra_click_share=0.15,
        prior_share=0.15,
        click_kept_share=1.0,
    )


def tune(
    model: LoadedModel,
    store: ScanStore,
    tuning: Tuning,
    *,
    deadline: float = math.inf,
    on_step: Callable[[int], None] = lambda _: None,
) -> dict[str, Tensor]:
    """Train the weights of a loaded model further, in place; the model ends with their average.

    The same arguments give the same weights on one machine with the same number of threads.

    Args:
        model: its network is changed.
        store: the scans to learn from.
        tuning: how long and how fast.
        deadline: of `time.monotonic`; training ends there though steps are left, so that a busy machine gives
            other weights than an idle one.
        on_step: called with the number of steps that are done.

    Returns:
        The averaged weights by name, float32.

    Raises:
        ConfigError: when the network cannot be adapted.
        TrainingError: when the loss is no number.
    """
    network, sampler = _sampler(model, store, tuning.seed)
    trained = {n: p for n, p in network.named_parameters() if not n.startswith(_UNUSED)}
    parameters = list(trained.values())
    average = [p.detach().clone() for p in parameters]
    for parameter in parameters:
        parameter.requires_grad_(True)  # noqa: FBT003 # torch's has no name
    optimiser = torch.optim.AdamW(parameters, lr=tuning.rate, betas=(0.9, 0.99), weight_decay=0.0)
    try:
        for number in range(tuning.num_steps):
            rate = tuning.rate * min(1.0, (number + 1) / _WARMUP_STEPS) * (1 - number / tuning.num_steps)
            for group in optimiser.param_groups:
                group["lr"] = rate
            with torch.no_grad():
                batch = sampler.batch(range(number * BATCH, (number + 1) * BATCH))
            loss = _loss(network, batch, np.random.default_rng([tuning.seed, number, 2]))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(parameters, _CLIP_NORM, foreach=True)
            optimiser.step()
            decay = min(_DECAY, (number + 1) / (number + 10))
            torch._foreach_lerp_(average, [p.detach() for p in parameters], 1 - decay)
            if not np.isfinite(loss.item()):
                raise TrainingError("the loss is no number; look whether the scans hold broken values")
            on_step(number + 1)
            if time.monotonic() > deadline:
                break
    finally:
        for parameter in parameters:
            parameter.requires_grad_(False)  # noqa: FBT003
            parameter.grad = None
    set_weights(model, dict(zip(trained, average, strict=True)))
    return dict(zip(trained, average, strict=True))


def _sampler(model: LoadedModel, store: ScanStore, seed: int) -> tuple[LiftedSegmenter, PatchSampler]:
    """Return the network as what it is, and what makes its batches."""
    network = model.network
    plan = model.card.fields_of_view
    if not isinstance(network, LiftedSegmenter) or network.config.is_automatic or plan is None:
        raise ConfigError(
            f"{model.card.id} takes no clicks in scans and cannot be adapted; choose another base"
        )
    stride = network.config.patch_step_dhw[0]
    side = max(1, round(_PATCH_SHARE * network.config.patch_shape_dhw[0] / stride)) * stride
    has_hints = network.config.num_hints > 0
    sampler = PatchSampler(store, sampling_for(plan), side, seed, with_hints=has_hints)
    return network, sampler


def set_weights(model: LoadedModel, weights: dict[str, Tensor]) -> None:
    """Put weights into a loaded network, by name; those that are not named stay."""
    with torch.no_grad():
        for name, parameter in model.network.named_parameters():
            if name in weights:
                parameter.copy_(weights[name])


def seconds_per_step(model: LoadedModel, store: ScanStore, seed: int) -> float:
    """Measure what a step takes on an idle machine: the faster of two after one to warm up.

    Processor time over threads, so that other programs do not count. The model stays as it is.
    """
    before = {name: p.detach().clone() for name, p in model.network.named_parameters()}
    times: list[float] = []

    def note(_: int) -> None:
        times.append(time.process_time())

    tune(model, store, Tuning(num_steps=3, rate=1e-9, seed=seed), on_step=note)
    set_weights(model, before)
    return min(times[1] - times[0], times[2] - times[1]) / torch.get_num_threads()


def _loss(network: LiftedSegmenter, batch: PatchBatch, rng: np.random.Generator) -> Tensor:
    """Return the loss of a batch, some of them after further clicks into the error."""
    given = batch.prompts
    prompts = PointPrompts(given.points_dhw, given.labels, given.hints)
    encoded = network.encode_image(batch.patch)
    if rng.random() < _CORRECTED_SHARE:
        for number in range(int(rng.integers(1, _MAX_CORRECTIONS, endpoint=True))):
            prompts = _corrected(network, encoded, prompts, batch, number)
    logits = network.decode(encoded, prompts, given.prior).float()
    return segmentation_loss(logits, batch.label, _LOSS)


@torch.no_grad()
def _corrected(
    network: LiftedSegmenter, encoded: EncodedPatch, prompts: PointPrompts, batch: PatchBatch, number: int
) -> PointPrompts:
    """Add one click into the error of each sample's present mask."""
    logits = network.decode(encoded, prompts, batch.prompts.prior)
    predicted = logits[:, 1:] > logits[:, :1]
    voxel, sign = random_error_click(predicted, batch.label.bool(), batch.noise_seed, 200 + number)
    points, labels = prompts.points_dhw.clone(), prompts.labels.clone()
    points[:, _FIRST_CORRECTION + number] = voxel
    labels[:, _FIRST_CORRECTION + number] = sign
    return PointPrompts(points, labels, prompts.hints)
