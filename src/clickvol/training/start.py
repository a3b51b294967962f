"""Where a run begins: recipe, network, optimiser, scans."""

from dataclasses import replace
from typing import Any

import torch

from clickvol.datasets.labelled_cases import read_folder_cases
from clickvol.datasets.loader import read_labelled
from clickvol.datasets.msd import list_msd_cases
from clickvol.datasets.organs import OrganPlan
from clickvol.datasets.prepared import is_prepared_set
from clickvol.datasets.samples import LabelledVolume
from clickvol.errors import ConfigError
from clickvol.image_encoders.lifted_tiny_vit import LiftedTinyVitConfig
from clickvol.image_encoders.lifted_vit3d import LiftedVit3d
from clickvol.methods.freezing import freeze_foundation
from clickvol.methods.lift import lift_foundation
from clickvol.methods.lifted_segmenter import LiftedSegmenter, LiftedSegmenterConfig
from clickvol.methods.networks import find_recipe, network_kind
from clickvol.methods.recipe import Recipe
from clickvol.methods.sam2d import Sam2d
from clickvol.methods.volume_segmenter import VolumeSegmenter
from clickvol.training.config import TrainConfig
from clickvol.training.state import TrainState
from clickvol.weights.load import load_network


def recipe_of(config: TrainConfig) -> Recipe:
    """Return network, loss and clicks of a configuration.

    Raises:
        ConfigError: for an unknown preset or size, or values that contradict each other.
    """
    recipe = find_recipe(config.model.method, config.model.preset, config.model.size)
    _check(config, recipe)
    network = recipe.network
    if (
        isinstance(network, LiftedSegmenterConfig)
        and isinstance(network.encoder, LiftedTinyVitConfig)
        and not config.run.foundation
    ):
        # Without a foundation there are no statistics of other images to keep.
        network = replace(network, encoder=replace(network.encoder, frozen_norms=False))
        return replace(recipe, network=network)
    return recipe


def _check(config: TrainConfig, recipe: Recipe) -> None:
    """Refuse what cannot go together.

    Raises:
        ConfigError: with both values and what to change.
    """
    kind = config.sampling.kind
    network = recipe.network
    if network.is_automatic and kind == "clicked":
        msg = (
            f"{config.model.method} with the preset {config.model.preset} takes no clicks, but sampling.kind "
            "is clicked; set it to windows or published"
        )
        raise ConfigError(msg)
    if not network.is_automatic and recipe.training_clicks is None and kind != "clicked":
        msg = (
            f"the preset {config.model.preset} is trained by a simulated user, but sampling.kind is {kind}; "
            "set it to clicked, or take another preset"
        )
        raise ConfigError(msg)
    if not isinstance(network, LiftedSegmenterConfig):
        if config.run.foundation or config.run.trained == "adapters":
            msg = f"{config.model.method} has no 2D foundation; leave out run.foundation and run.trained"
            raise ConfigError(msg)
        return
    doubles = getattr(network.encoder, "second_adapter", "none") == "doubled"
    if doubles and config.run.precision == "float16":
        # A factor of 2 per block leaves the range of float16.
        msg = (
            f"the preset {config.model.preset} doubles its tokens in every block, which float16 cannot hold; "
            "set run.precision to bfloat16 or float32"
        )
        raise ConfigError(msg)


def fresh_state(config: TrainConfig, recipe: Recipe, device: torch.device) -> TrainState:
    """Return the state before the first step.

    Raises:
        ConfigError: when the model to start from is of another method or shape.
    """
    network = network_kind(config.model.method).build(recipe.network)
    if not isinstance(network, VolumeSegmenter):
        msg = f"{config.model.method} is no method for volumes; choose another model.method"
        raise ConfigError(msg)
    if isinstance(network, LiftedSegmenter):
        _prepare_encoder(network, config)
    if config.run.start_from:
        _take_weights(network, config)
    network.to(device)
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    optimiser = torch.optim.AdamW(
        trained.values(),
        lr=config.optimiser.learning_rate,
        weight_decay=config.optimiser.weight_decay,
        fused=True,
    )
    average = {name: value.detach().clone() for name, value in trained.items()}
    scaler = torch.amp.GradScaler(device.type, enabled=config.run.precision == "float16")
    return TrainState(step=0, network=network, optimiser=optimiser, average=average, scaler=scaler)


def _prepare_encoder(network: LiftedSegmenter, config: TrainConfig) -> None:
    if config.run.foundation:
        _, foundation = load_network(config.run.foundation, Sam2d)
        lift_foundation(foundation, network)
    if config.run.trained == "adapters":
        freeze_foundation(network)
    if not config.run.recompute_blocks:
        return
    if not isinstance(network.image_encoder, LiftedVit3d):
        msg = "run.recompute_blocks is for the sizes with SAM's blocks; set it to false"
        raise ConfigError(msg)
    network.image_encoder.checkpoint_blocks = True


def _take_weights(network: VolumeSegmenter[Any], config: TrainConfig) -> None:
    """Copy the weights of another model.

    Raises:
        ConfigError: when they are of another method or shape.
    """
    card, start = load_network(config.run.start_from, VolumeSegmenter)  # type: ignore[type-abstract]
    if card.method != config.model.method:
        msg = (
            f"run.start_from is a model of the method {card.method}, but model.method is "
            f"{config.model.method}; give a model of that method"
        )
        raise ConfigError(msg)
    try:
        network.load_state_dict(start.state_dict())
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        msg = (
            f"the weights of {card.id} are of another shape than {config.model.preset} at size "
            f"{config.model.size}: {first[:120]}; give the preset and size it was trained with"
        )
        raise ConfigError(msg) from error


def training_cases(config: TrainConfig, organs: OrganPlan | None) -> list[LabelledVolume]:
    """Read the scans that are trained on.

    Raises:
        ConfigError: when a folder has none, or contradicts its section.
    """
    return [
        case
        for folder in config.data.folders
        for case in read_folder_cases(
            config.data.root / folder.path,
            folder.modality,
            config.data.validation_patients,
            "train",
            config.data.fold,
            folder.tumour_label,
            organs,
            config.data.intensity,
        )
    ]


def validation_cases(config: TrainConfig, organs: OrganPlan | None) -> list[LabelledVolume]:
    """Read the scans that the run looks at now and then: the validation parts, or the patients left out.

    Raises:
        ConfigError: when there are none.
    """
    cases: list[LabelledVolume] = []
    for folder in config.data.folders:
        path = config.data.root / folder.path
        if is_prepared_set(path):
            cases += read_folder_cases(
                path,
                folder.modality,
                (),
                "val",
                config.data.fold,
                folder.tumour_label,
                organs,
                config.data.intensity,
            )
            continue
        cases += [
            read_labelled(record, tumour_label=folder.tumour_label, organs=organs)
            for record in list_msd_cases(path, folder.modality)
            if record.belongs_to(config.data.validation_patients)
        ]
    if not cases:
        msg = (
            "run.validate_every is above 0, but no scan is for validation; name "
            "data.validation_patients, or set it to 0"
        )
        raise ConfigError(msg)
    return cases
