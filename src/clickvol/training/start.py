"""Where a run begins: task, network, optimiser, scans."""

import hashlib
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from clickvol.datasets.device.stored_scan import StoredScan, read_pack
from clickvol.datasets.labelled_volumes import read_labelled_cases, read_labelled_volumes
from clickvol.datasets.prepared import file_sha256
from clickvol.errors import ConfigError
from clickvol.methods.lifted_segmenter import LiftedSegmenter
from clickvol.methods.promise2d import METHOD_ID as PROMISE2D
from clickvol.preprocessing.channels import OrganMaskSource
from clickvol.training.config import TrainConfig
from clickvol.training.state import TrainState
from clickvol.training.tasks.task import Task
from clickvol.training.tasks.volume_task import VolumeTask
from clickvol.weights.load import load_network


def task_of(config: TrainConfig) -> Task[Any]:
    """Return what a configuration trains.

    Raises:
        ConfigError: for an unknown preset or size, or values that contradict each other.
    """
    if config.model.method != PROMISE2D:
        return VolumeTask(config)
    # Pictures need packages that a bare machine does not have.
    from clickvol.training.tasks.slice_task import SliceTask

    return SliceTask(config)


def fresh_state(config: TrainConfig, task: Task[Any], device: torch.device) -> TrainState:
    """Return the state before the first step.

    Raises:
        ConfigError: when the foundation or the model to start from is of another method or shape.
    """
    network = task.build_network()
    if config.run.start_from:
        _take_weights(network, config, task.kind)
    network.to(device)
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    optimiser = torch.optim.AdamW(
        trained.values(),
        lr=config.optimiser.learning_rate,
        betas=config.optimiser.betas,
        weight_decay=config.optimiser.weight_decay,
        fused=True,
    )
    average = {name: value.detach().clone() for name, value in trained.items()}
    scaler = torch.amp.GradScaler(device.type, enabled=config.run.precision == "float16")
    return TrainState(step=0, network=network, optimiser=optimiser, average=average, scaler=scaler)


def _take_weights(network: nn.Module, config: TrainConfig, kind: type[nn.Module]) -> None:
    """Copy the weights of another model; ConfigError when they are of another method or shape."""
    card, start = load_network(config.run.start_from, kind)
    if card.method != config.model.method:
        raise ConfigError(
            f"run.start_from is a model of the method {card.method}, but model.method is "
            f"{config.model.method}; give a model of that method"
        )
    try:
        network.load_state_dict(grown_weights(start, network))
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise ConfigError(
            f"the weights of {card.id} are of another shape than {config.model.preset} at size "
            f"{config.model.size}: {first[:120]}; give the preset and size it was trained with"
        ) from error


def grown_weights(start: nn.Module, network: nn.Module) -> dict[str, Tensor]:
    """Return the weights of a network for another that may know drawn prompts and candidates besides.

    Channels of further prompts begin with zeros, candidates as the first mask.
    """
    given, wanted = start.state_dict(), network.state_dict()
    if not (isinstance(start, LiftedSegmenter) and isinstance(network, LiftedSegmenter)):
        return given
    less, more = start.config, network.config
    decoder = replace(less.decoder, num_prompt_maps=more.decoder.num_prompt_maps)
    like = replace(less, decoder=decoder, num_hints=more.num_hints, num_candidates=more.num_candidates)
    knows_less = less.num_hints <= more.num_hints and less.num_candidates in (0, more.num_candidates)
    if like != more or not knows_less:
        return given
    for name, value in given.items():
        if value.shape != wanted[name].shape:
            # Further prompts are the last channels.
            grown = torch.zeros_like(wanted[name])
            grown[:, : value.shape[1]] = value
            given[name] = grown
    if start.candidates is None and network.candidates is not None:
        given |= {name: value for name, value in wanted.items() if name.startswith("candidates.")}
        background, inside = given["mask_decoder.classify.weight"]
        classify = given["candidates.classify.weight"]
        given["candidates.classify.weight"] = (inside - background).expand_as(classify).clone()
    return given


def training_cases(config: TrainConfig, organs: OrganMaskSource | None) -> list[Any]:
    """Return what is trained on: labelled scans, and pictures where the method is one for images.

    Of a pack these are the scans of the sets in `data.folders`, as they are carried.

    Raises:
        ConfigError: when a folder is not prepared, has none, or contradicts its section; when a pack has no
            such set, or cannot be used for what the run asks.
    """
    if config.data.root.is_file():
        return _packed_scans(config)
    return _cases(config, organs, "train", config.data.validation_patients)


def validation_cases(config: TrainConfig, organs: OrganMaskSource | None) -> list[Any]:
    """Return the scans and pictures that judge the run now and then: the validation parts.

    Raises:
        ConfigError: when there are none.
    """
    if not config.data.folders or config.data.root.is_file():
        raise ConfigError(
            "run.validate_every is above 0, but no scan is for validation; give data.folders, or set it to 0"
        )
    return _cases(config, organs, "val", ())


def _stored_scans(
    config: TrainConfig, organs: OrganMaskSource | None, part: str, excluded: tuple[str, ...]
) -> list[StoredScan]:
    """Read the prepared sets on the wide scale, each as a group of its path."""
    if config.sampling.kind not in ("clicked", "windows") or organs not in (None, "none"):
        raise ConfigError("data.intensity wide is for sampling.kind clicked or windows, without organ masks")
    listed = [
        (case, folder)
        for folder in config.data.folders
        for case in read_labelled_cases(
            config.data.root / folder.path,
            part,
            config.data.fold,
            modality=folder.modality if folder.modality != "picture" else None,
            tumour_label=folder.tumour_label,
            excluded_patients=excluded,
        )[1]
    ]
    num_voxels = sum(math.prod(case.native_shape_dhw) for case, _ in listed)
    if num_voxels > config.data.voxels_in_memory:
        raise ConfigError(
            f"the scans have {num_voxels:,} voxels, and on the wide scale all of them are in memory; "
            f"data.voxels_in_memory allows {config.data.voxels_in_memory:,}: raise it, or leave scans out"
        )
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda one: StoredScan.of_prepared(one[0], one[1].path, one[1].objects), listed))


def _packed_scans(config: TrainConfig) -> list[StoredScan]:
    if config.data.intensity == "set" or config.sampling.kind not in ("clicked", "windows"):
        raise ConfigError(
            f"{config.data.root} carries scans at 8 bit, for data.intensity wide and sampling.kind clicked or "
            "windows; prepare the sets for others"
        )
    scans = read_pack(config.data.root)
    names = {folder.path for folder in config.data.folders}
    unknown = names - {scan.group for scan in scans}
    if unknown or not names:
        there = ", ".join(sorted({scan.group for scan in scans}))
        raise ConfigError(f"{config.data.root} holds the sets {there}; name some of them in data.folders")
    excluded = config.data.validation_patients
    return [scan for scan in scans if scan.group in names and scan.patient.rsplit("_", 1)[-1] not in excluded]


def _cases(
    config: TrainConfig, organs: OrganMaskSource | None, part: str, excluded: tuple[str, ...]
) -> list[Any]:
    if config.data.intensity == "wide":
        return _stored_scans(config, organs, part, excluded)
    cases: list[Any] = []
    for folder in config.data.folders:
        path = config.data.root / folder.path
        if folder.modality == "picture":
            if config.model.method != PROMISE2D:
                raise ConfigError(
                    f"{config.model.method} is trained on scans, but {folder.path} is said to hold pictures; "
                    "set model.method to promise2d, or give other data.folders"
                )
            from clickvol.datasets.pictures import read_pictures

            cases += read_pictures(path, part, config.data.fold, only=folder.only or (), excluded=excluded)
        else:
            cases += read_labelled_volumes(
                path,
                part,
                config.data.fold,
                modality=folder.modality,
                tumour_label=folder.tumour_label,
                excluded_patients=excluded,
                organs=organs,
                scale="set" if config.data.intensity == "set" else "scan",
            )
    return cases


def hash_of_data(config: TrainConfig) -> str:
    """Return a hash of what is trained on: sha256, hex; the same wherever the prepared sets lie."""
    if config.data.root.is_file():
        return file_sha256(config.data.root)
    from clickvol.datasets.pictures import read_data_set

    paths = [config.data.root / folder.path for folder in config.data.folders]
    known = "".join(read_data_set(path).content_hash for path in paths)
    return hashlib.sha256(known.encode()).hexdigest()
