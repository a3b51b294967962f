"""The training loop, readable from top to bottom."""

import json
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clickvol.datasets.samples import TrainingSample
from clickvol.errors import ConfigError
from clickvol.methods.lifted_segmenter import EncodedPatch, LiftedSegmenter
from clickvol.methods.recipe import LossRecipe, Recipe, TrainingClicks
from clickvol.prompt_encoders.feature_sampling import PointPrompts
from clickvol.prompts.simulate import click_into_error, published_clicks
from clickvol.shapes import PADDING_LABEL
from clickvol.training.alignment_loss import alignment_loss
from clickvol.training.config import OptimiserSection, TrainConfig
from clickvol.training.losses import segmentation_loss
from clickvol.training.state import TrainState, save_state
from clickvol.volumes.atomic import atomic_path

_LOG_EVERY = 20


def learning_rate(step: int, config: OptimiserSection) -> float:
    """Return the rate of a step: linear rise, then cosine to 1 % of the peak."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))


def fit(
    state: TrainState,
    batches: Iterable[TrainingSample],
    config: TrainConfig,
    recipe: Recipe,
    *,
    text: Tensor | None = None,
    checkpoint: Path,
    fingerprint: str,
    report: Callable[[dict[str, float]], None],
) -> None:
    """Train until the schedule ends or the batches do; checkpoints on the way and at the end.

    Args:
        state: where the run stands; changed in place.
        batches: from step `state.step` on.
        config: of the run.
        recipe: loss and clicks of the method.
        text: (E_text, 2), see `TextBank`; a recipe with texts cannot do without.
        checkpoint: file for the checkpoints; the log goes beside it.
        fingerprint: text of the configuration, kept in the checkpoints.
        report: called with the figures of the last 20 steps.
    """
    network = state.network
    log = checkpoint.with_name("log.jsonl")
    losses: list[float] = []
    overlaps: list[float] = []
    started_at = time.perf_counter()
    network.train()
    for batch in batches:
        rng = np.random.default_rng([config.run.seed, state.step, 1])
        rate = learning_rate(state.step, config.optimiser)
        for group in state.optimiser.param_groups:
            group["lr"] = rate
        encoded, logits = _forward(network, batch, config, recipe, rng)
        loss = _loss(encoded, logits, batch.label, recipe.loss, text)
        state.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), config.optimiser.max_gradient_norm)
        state.optimiser.step()
        state.step += 1
        _update_average(state, config.optimiser.average_decay)
        losses.append(loss.item())
        overlaps.append(_hard_dice(logits.detach(), batch.label))
        if state.step % _LOG_EVERY == 0:
            figures = {
                "step": state.step,
                "loss": float(np.mean(losses)),
                "dice": float(np.mean(overlaps)),
                "learning_rate": rate,
                "seconds_per_step": (time.perf_counter() - started_at) / len(losses),
            }
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(figures) + "\n")
            report(figures)
            losses, overlaps, started_at = [], [], time.perf_counter()
        if state.step % config.run.checkpoint_every == 0:
            save_state(state, checkpoint, fingerprint)
    save_state(state, checkpoint, fingerprint)


def forget_after(step: int, log: Path) -> None:
    """Drop the log's lines of steps that will be done again, and a line that a crash cut short."""
    if not log.is_file():
        return
    kept: list[str] = []
    for line in log.read_text(encoding="utf-8").splitlines(keepends=True):
        if not line.endswith("\n") or json.loads(line)["step"] > step:
            break
        kept.append(line)
    with atomic_path(log, log.suffix) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")


def _forward(
    network: LiftedSegmenter,
    batch: TrainingSample,
    config: TrainConfig,
    recipe: Recipe,
    rng: np.random.Generator,
) -> tuple[EncodedPatch, Tensor]:
    """Return the encoded patches and the logits (B, 2, D, H, W).

    Without published clicks: in some steps after one more click into the present error.
    """
    prompts = PointPrompts(batch.points_dhw, batch.labels)
    if recipe.training_clicks is not None:
        prompts = _published_clicks(batch.label, recipe.training_clicks, rng)
    use_bfloat16 = config.run.precision == "bfloat16"
    with torch.autocast(batch.patch.device.type, torch.bfloat16, enabled=use_bfloat16):
        encoded = network.encode_image(batch.patch)
        interactive = recipe.training_clicks is None and network.prompt_encoder is not None
        if interactive and rng.random() < config.sampling.corrected_click_share:
            prompts = _corrected(network, encoded, prompts, batch, rng)
        return encoded, network.decode(encoded, prompts, batch.prior)


def _loss(
    encoded: EncodedPatch, logits: Tensor, label: Tensor, recipe: LossRecipe, text: Tensor | None
) -> Tensor:
    loss = segmentation_loss(logits.float(), label, recipe)
    if recipe.alignment is None:
        return loss
    if text is None:
        msg = "this method compares tokens with texts, but no text bank was given; load one"
        raise ConfigError(msg)
    aligning = alignment_loss(encoded.aligned, text.to(logits.device), label, recipe.alignment)
    return loss + recipe.alignment.weight * aligning


def _published_clicks(
    label: Tensor, clicks: TrainingClicks, rng: np.random.Generator
) -> PointPrompts:
    """Draw clicks from the labels (B, 1, D, H, W) as the published methods do; padded where none exist."""
    number = clicks.foreground + clicks.others
    points = torch.zeros(label.shape[0], number, 3)
    labels = torch.full((label.shape[0], number), PADDING_LABEL)
    for sample, truth in enumerate(label[:, 0].bool().cpu().numpy()):
        places, signs = published_clicks(
            truth, clicks.foreground, clicks.others, clicks.others_from, rng
        )
        points[sample, : len(signs)] = torch.from_numpy(places.astype(np.float32))
        labels[sample, : len(signs)] = torch.from_numpy(signs)
    return PointPrompts(points.to(label.device), labels.to(label.device))


@torch.no_grad()
def _corrected(
    network: LiftedSegmenter,
    encoded: EncodedPatch,
    prompts: PointPrompts,
    batch: TrainingSample,
    rng: np.random.Generator,
) -> PointPrompts:
    """Put a click into the error of the present prediction of each sample, in a free slot."""
    logits = network.decode(encoded, prompts, batch.prior)
    predicted = (logits[:, 1] > logits[:, 0]).cpu().numpy()
    truth = batch.label[:, 0].bool().cpu().numpy()
    points, labels = prompts.points_dhw.clone(), prompts.labels.clone()
    for sample in range(labels.shape[0]):
        free = (labels[sample] == PADDING_LABEL).nonzero()
        found = click_into_error(predicted[sample], truth[sample], rng)
        if found is None or len(free) == 0:
            continue
        slot = int(free[0])
        points[sample, slot] = torch.from_numpy(found[0].as_array()).to(points)
        labels[sample, slot] = found[1]
    return PointPrompts(points, labels)


@torch.no_grad()
def _update_average(state: TrainState, decay: float) -> None:
    # A young average forgets faster, so that it does not remember the random start.
    decay = min(decay, (1 + state.step) / (10 + state.step))
    current = dict(state.network.named_parameters())
    for name in state.average:
        state.average[name].lerp_(current[name], 1 - decay)


def _hard_dice(logits: Tensor, label: Tensor) -> float:
    """Return the mean Dice of the masks of a batch; 1 where both are empty."""
    predicted = logits[:, 1] > logits[:, 0]
    truth = label[:, 0].bool()
    overlap = (predicted & truth).sum((1, 2, 3))
    total = predicted.sum((1, 2, 3)) + truth.sum((1, 2, 3))
    return float(torch.where(total > 0, 2 * overlap / total.clamp(min=1), 1.0).mean())
