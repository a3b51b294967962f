"""A training run from its configuration file to a model with a card."""

import os
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from clickvol.datasets.loader import SampleStream, batch_indices, make_phantoms, read_labelled
from clickvol.datasets.msd import list_msd_cases
from clickvol.datasets.organs import OrganPlan
from clickvol.datasets.samples import LabelledVolume, TrainingSample, stack
from clickvol.errors import ConfigError
from clickvol.image_encoders.lifted_tiny_vit import LiftedTinyVitConfig
from clickvol.methods.freezing import freeze_foundation
from clickvol.methods.lift import lift_foundation
from clickvol.methods.lifted_segmenter import LiftedSegmenter, LiftedSegmenterConfig
from clickvol.methods.networks import find_recipe
from clickvol.methods.recipe import Recipe
from clickvol.methods.sam2d import Sam2d
from clickvol.methods.tags import with_text_width
from clickvol.training.config import TrainConfig, read_train_config
from clickvol.training.loop import fit, forget_after
from clickvol.training.state import TrainState, restore_state
from clickvol.training.tags_inputs import load_text_bank, organ_plan, tags_notes
from clickvol.version import __version__
from clickvol.volumes.atomic import atomic_path, remove_abandoned
from clickvol.weights.card import FieldOfViewPlan, ModelCard, read_card
from clickvol.weights.load import load_model, load_network, network_content
from clickvol.weights.safe_file import write_weights

Report = Callable[[dict[str, float]], None]


def train_from_config(
    config_path: Path,
    overrides: list[str],
    *,
    fresh: bool = False,
    max_steps: int | None = None,
    report: Report = lambda _: None,
) -> Path:
    """Train as a configuration file says; goes on from the last checkpoint where there is one.

    Args:
        config_path: TOML, see `TrainConfig`.
        overrides: "section.field=value".
        fresh: begin again although there is a checkpoint.
        max_steps: stop (with a checkpoint) when this many steps of the schedule are done.
        report: called with the figures of every 20 steps.

    Returns:
        The card of the model, in the run's folder.

    Raises:
        ConfigError: for a configuration that cannot be used.
    """
    config = read_train_config(config_path, overrides)
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    torch.manual_seed(config.run.seed)
    recipe = _recipe(config)
    bank = load_text_bank(config, recipe)
    if bank is not None:
        recipe = with_text_width(recipe, bank.width)
    organs = organ_plan(config.tags, recipe.network.encoder.num_channels)
    state = _fresh_state(config, recipe.network)
    fingerprint = _fingerprint(config)
    checkpoint = config.run.folder / "checkpoint.pt"
    if checkpoint.is_file() and not fresh:
        restore_state(state, checkpoint, fingerprint)
    _open_folder(config)
    forget_after(state.step, config.run.folder / "log.jsonl")
    last_step = min(config.optimiser.steps, max_steps or config.optimiser.steps)
    stream = _sample_stream(config, recipe.network, organs)
    fit(
        state,
        _batches(stream, range(state.step, last_step), config.optimiser.batch_size),
        config,
        recipe,
        text=None if bank is None else bank.columns,
        checkpoint=checkpoint,
        fingerprint=fingerprint,
        report=report,
    )
    settings = [f" --set {shlex.quote(override)}" for override in overrides]
    command = f"clickvol train {config_path}" + "".join(settings)
    notes = [*config.model.notes, *tags_notes(config, bank, organs)]
    return _write_model(state, config, recipe.network, command, notes)


def _fingerprint(config: TrainConfig) -> str:
    """Return what makes a run this run: what it is called and where it is kept may change."""
    aside = {"model": {"id", "title", "notes"}, "run": {"folder", "checkpoint_every", "threads"}}
    # A field that a later version adds, and that is not used, does not make it another run.
    return config.model_dump_json(exclude=aside, exclude_none=True)


def _open_folder(config: TrainConfig) -> None:
    """Make the run's folder, clear what killed writers left there, and write the configuration."""
    folder = config.run.folder
    folder.mkdir(parents=True, exist_ok=True)
    remove_abandoned(folder)
    with atomic_path(folder / "config.json", ".json") as temporary:
        temporary.write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")


def _batches(stream: SampleStream, steps: range, batch_size: int) -> "DataLoader[TrainingSample]":
    return DataLoader(
        stream,
        batch_sampler=list(batch_indices(steps.start, steps.stop, batch_size)),
        collate_fn=stack,
        num_workers=1,
        prefetch_factor=4,
        worker_init_fn=_leave_the_cores_to_the_trainer,
    )


def _leave_the_cores_to_the_trainer(_: int) -> None:
    torch.set_num_threads(1)
    os.nice(5)


def _recipe(config: TrainConfig) -> Recipe:
    recipe = find_recipe(config.model.method, config.model.preset, config.model.size)
    encoder = recipe.network.encoder
    if isinstance(encoder, LiftedTinyVitConfig) and not config.run.foundation:
        # Without a foundation there are no statistics of other images to keep.
        network = replace(recipe.network, encoder=replace(encoder, frozen_norms=False))
        return replace(recipe, network=network)
    return recipe


def _fresh_state(config: TrainConfig, network_config: LiftedSegmenterConfig) -> TrainState:
    network = LiftedSegmenter(network_config)
    if config.run.foundation:
        _, foundation = load_network(config.run.foundation, Sam2d)
        lift_foundation(foundation, network)
    if config.run.trained == "adapters":
        freeze_foundation(network)
    if config.run.start_from:
        network.load_state_dict(
            load_model(config.run.start_from, device="cpu").network.state_dict()
        )
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    optimiser = torch.optim.AdamW(
        trained.values(),
        lr=config.optimiser.learning_rate,
        weight_decay=config.optimiser.weight_decay,
        fused=True,
    )
    average = {name: value.detach().clone() for name, value in trained.items()}
    return TrainState(step=0, network=network, optimiser=optimiser, average=average)


def _sample_stream(
    config: TrainConfig, network_config: LiftedSegmenterConfig, organs: OrganPlan | None
) -> SampleStream:
    cases: list[LabelledVolume] = []
    for folder in config.data.folders:
        records = list_msd_cases(config.data.root / folder.path, folder.modality)
        train = [r for r in records if not r.belongs_to(config.data.validation_patients)]
        if not train:
            msg = f"data.folders: {folder.path} has no case left that is not for validation"
            raise ConfigError(msg)
        cases += [
            read_labelled(record, tumour_label=folder.tumour_label, organs=organs)
            for record in train
        ]
    has_organs = organs is not None and organs.source != "none"
    return SampleStream(
        cases,
        make_phantoms(config.data.phantoms, config.run.seed, with_organ=has_organs),
        phantom_share=config.data.phantom_share,
        patch_shape_dhw=network_config.patch_shape_dhw,
        sampling=config.sampling,
        seed=config.run.seed,
        length=config.optimiser.steps * config.optimiser.batch_size,
        num_channels=network_config.encoder.num_channels,
    )


def _write_model(
    state: TrainState,
    config: TrainConfig,
    network_config: LiftedSegmenterConfig,
    command: str,
    notes: list[str],
) -> Path:
    """Write the averaged weights in half precision, and their card."""
    weights = config.run.folder / f"{config.model.id}.safetensors"
    tensors = dict(state.network.state_dict())
    tensors.update(state.average)
    sha256, size = write_weights(tensors, weights, dtype=torch.float16)
    sampling = config.sampling
    card = ModelCard(
        id=config.model.id,
        title=config.model.title,
        method=config.model.method,
        network=network_content(config.model.method, network_config),
        fields_of_view=FieldOfViewPlan(
            first_voxel_mm=sampling.first_voxel_mm,
            finest_voxel_mm=sampling.finest_voxel_mm,
            coarsest_voxel_mm=sampling.coarsest_voxel_mm,
        ),
        modalities=sorted({folder.modality for folder in config.data.folders}),
        training_data=_sources(config),
        training_command=command,
        licence="Apache-2.0",
        notes=notes,
        num_parameters=int(np.sum([p.numel() for p in state.network.parameters()])),
        dtype="float16",
        bytes=size,
        sha256=sha256,
        weights_file=weights.name,
        clickvol_version=__version__,
    )
    path = weights.with_suffix(".json")
    with atomic_path(path, ".json") as temporary:
        temporary.write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return path


def _sources(config: TrainConfig) -> list[str]:
    sources = [f"{f.path} ({f.modality}): {f.source}" for f in config.data.folders]
    if config.run.foundation:
        sources.append(f"2D foundation {read_card(config.run.foundation).title}")
    earlier = read_card(config.run.start_from).training_data if config.run.start_from else []
    if config.data.phantoms:
        sources.append(
            f"{config.data.phantoms} synthetic scans of this package (volumes/phantoms.py)"
        )
    left_out = ", ".join(config.data.validation_patients)
    if left_out:
        sources.append(f"patients left out for validation: {left_out}")
    return sources + [line for line in earlier if line not in sources]
