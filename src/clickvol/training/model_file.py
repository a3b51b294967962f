"""The model that comes out of a run: weights in half precision, and their card."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from clickvol.datasets.device.stored_scan import StoredScan, unpacked
from clickvol.datasets.samples import LabelledVolume
from clickvol.errors import ConfigError
from clickvol.files.atomic import write_text
from clickvol.training.config import TrainConfig
from clickvol.training.tasks.task import Task
from clickvol.version import __version__
from clickvol.weights.card import IntensityPlan, ModelCard, read_card
from clickvol.weights.load import network_content
from clickvol.weights.safe_file import write_weights


def write_model(
    tensors: dict[str, Tensor],
    num_parameters: int,
    config: TrainConfig,
    task: Task[Any],
    command: str,
    intensity: IntensityPlan | Literal["wide"] | None = None,
) -> Path:
    """Write weights and card into the folder of the run; return the card.

    Args:
        tensors: of the whole network, by name.
        num_parameters: values in the network.
        config: of the run.
        task: what was trained.
        command: that made it.
        intensity: constants that the values of all scans went through; None for the scale of this package.

    Raises:
        OutputError: when they cannot be written.
    """
    weights = config.run.folder / f"{config.model.id}.safetensors"
    sha256, size = write_weights(tensors, weights, dtype=torch.float16)
    card = ModelCard(
        id=config.model.id,
        title=config.model.title,
        method=config.model.method,
        network=network_content(config.model.method, task.network_config),
        fields_of_view=task.fields_of_view,
        intensity=intensity,
        modalities=sorted({folder.modality for folder in config.data.folders}),
        training_data=_sources(config),
        training_scans=_marks(config, "scan_mark"),
        training_patients=_marks(config, "patient_mark"),
        training_command=command,
        licence="Apache-2.0",
        notes=[*config.model.notes, *task.notes],
        num_parameters=num_parameters,
        dtype="float16",
        bytes=size,
        sha256=sha256,
        weights_file=weights.name,
        clickvol_version=__version__,
    )
    path = weights.with_suffix(".json")
    write_text(path, card.model_dump_json(indent=2) + "\n")
    return path


def fixed_intensity(
    config: TrainConfig, cases: Sequence[LabelledVolume | StoredScan]
) -> IntensityPlan | Literal["wide"] | None:
    """Return the constants that a model is trained with, which its card has to tell inference.

    Scans of a pack are on the wide scale, as those of data.intensity wide.

    Args:
        config: of the run.
        cases: what it trains on.

    Raises:
        ConfigError: when the data sets have different ones, since a model has room for one.
    """
    if config.data.intensity == "wide" or any(isinstance(case, StoredScan) for case in cases):
        return "wide"
    if config.data.intensity == "scan":
        return None
    known = [case.scale for case in unpacked(cases)]
    scales = {(scale.low, scale.high, scale.mean, scale.deviation) for scale in known}
    if len(scales) != 1:
        raise ConfigError(
            f"data.intensity is set, but the data sets have {len(scales)} different sets of constants and a "
            "model holds one; train on one of them, or set data.intensity to scan"
        )
    ((low, high, mean, deviation),) = scales
    return IntensityPlan(clip=(low, high), mean=mean, deviation=deviation)


def _marks(config: TrainConfig, name: Literal["scan_mark", "patient_mark"]) -> list[str]:
    """Return by what the scans or patients of the training are known, those of the model it began with too."""
    earlier = read_card(config.run.start_from) if config.run.start_from else None
    marks = set()
    if earlier is not None:
        marks |= {*(earlier.training_scans if name == "scan_mark" else earlier.training_patients)}
    if config.data.root.is_file():
        return sorted(marks)
    # Pictures need packages that a bare machine does not have.
    from clickvol.datasets.pictures import read_data_set

    for folder in config.data.folders:
        marks |= {
            getattr(case, name)
            for case in read_data_set(config.data.root / folder.path).part("train", config.data.fold)
            if not case.belongs_to(config.data.validation_patients)
            and (folder.only is None or getattr(case, "data_set", "") in folder.only)
        }
    return sorted(marks)


def _sources(config: TrainConfig) -> list[str]:
    sources = [f"{f.path} ({f.modality}): {f.source}" for f in config.data.folders]
    if config.run.foundation:
        sources.append(f"2D foundation {read_card(config.run.foundation).title}")
    earlier = read_card(config.run.start_from).training_data if config.run.start_from else []
    if config.data.phantoms:
        sources.append(f"{config.data.phantoms} synthetic scans of this package (phantoms/phantom.py)")
    left_out = ", ".join(config.data.validation_patients)
    if left_out:
        sources.append(f"patients left out for validation: {left_out}")
    return sources + [line for line in earlier if line not in sources]
