"""Published checkpoints as models of this package.

Strict: every tensor of the file is used, or is one of the known ones that nothing uses; every tensor of ours
is filled.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from clickvol.errors import ConfigError, DamagedWeightsError
from clickvol.methods.lifted_segmenter import LiftedSegmenter, LiftedSegmenterConfig
from clickvol.weights.cache import sha256_of_file
from clickvol.weights.card import FieldOfViewPlan, IntensityPlan, ModelCard, read_card
from clickvol.weights.load import network_content
from clickvol.weights.official.file import read_official_file
from clickvol.weights.official.layout import (
    NUM_PROMPT_ENCODERS,
    misfits,
    official_layout,
    our_state,
    with_current_names,
)
from clickvol.weights.official.promise2d import import_promise2d, take_apart
from clickvol.weights.official.sam import import_foundation, is_foundation, recognise_preset
from clickvol.weights.official.sizes import OfficialMethod, Shape, official_config, sizes_from_shapes
from clickvol.weights.registry import PLAIN_NAME
from clickvol.weights.save import save_imported

_OPTIMISERS = ("encoder_opt", "feature_opt", "decoder_opt")
_PARTS = ("encoder_dict", "decoder_dict", "feature_dict")
_KNOWN_ENTRIES = {*_PARTS, *_OPTIMISERS, "epoch", "best_val_loss"}

_TITLES: dict[OfficialMethod, str] = {"promise3d": "ProMISe-3D", "sam3d_adapter": "3DSAM-adapter"}


# What the authors of both trained on, with the constants (HU) of their released loaders, the same in both.
DATASETS: dict[str, tuple[str, IntensityPlan]] = {
    name: (f"{organ} tumours on CT", IntensityPlan(clip=clip, mean=mean, deviation=deviation))
    for name, organ, clip, mean, deviation in (
        ("colon", "colon", (-57.0, 175.0), 65.175035, 32.651197),
        ("pancreas", "pancreas", (-39.0, 204.0), 68.45214, 63.422806),
        ("lits", "liver", (-48.0, 163.0), 60.057533, 40.198017),
        ("kits", "kidney", (-54.0, 247.0), 59.53867, 55.457336),
    )
}


def reads_reversed_axes(intensity: object) -> bool:
    """Tell whether the released loader with a card's constants gives a network (k, j, i) of any file.

    Those of colon, pancreas and LiTS do. That of KiTS gives (i, j, k), since its files have the slices first.
    """
    return any(intensity == plan for name, (_, plan) in DATASETS.items() if name != "kits")


@dataclass(frozen=True, slots=True)
class ImportedModel:
    """What an import made: the card, and what of the file was left out, one clause each."""

    card_path: Path
    card: ModelCard
    dropped: tuple[str, ...] = ()


def import_checkpoint(
    path: Path,
    folder: Path,
    *,
    method: str | None = None,
    dataset: str | None = None,
    model_id: str | None = None,
) -> ImportedModel:
    """Turn a published checkpoint into a card and safetensors.

    Args:
        path: a `.pth.tar` of ProMISe-3D or 3DSAM-adapter (also its automatic variant), a ProMISe-2D's, a SAM's
            or LiteMedSAM's `.pth`.
        folder: where card and weights go; made when missing.
        method: "promise3d", "sam3d_adapter", "promise2d" or "sam2d"; told by the file when not given.
        dataset: "colon", "pancreas", "lits" or "kits", which the file does not say: it decides how scans are
            normalised. None keeps this package's own scale.
        model_id: of the new model.

    Raises:
        ConfigError: for an unknown method or data set, one that does not fit, or an id that is no plain name.
        ModelNotFoundError: when there is no such file.
        DamagedWeightsError: when the file is damaged, could run code, is of another method, or a tensor is
            missing, unknown or of another shape; the message lists them all.
        OutputError: when the folder cannot be written. After any error nothing is left behind.
    """
    _check_words(method, dataset, model_id)
    content = read_official_file(path)
    parts = take_apart(content)
    recognised = _recognise(content, path) if parts is None else "promise2d"
    if method is not None and method != recognised:
        raise DamagedWeightsError(
            f"{path} is a checkpoint of the method {recognised}, not of {method}; give --method {recognised}"
        )
    if recognised in ("sam2d", "promise2d") and dataset is not None:
        raise ConfigError(
            "a data set belongs to ProMISe-3D and 3DSAM-adapter; a 2D model's file is imported without"
        )
    if parts is not None:
        card_path = import_promise2d(parts, path, folder, model_id)
        card = read_card(card_path)
        return ImportedModel(card_path, card, tuple(n.removeprefix("left out: ") for n in card.notes[2:]))
    if recognised == "sam2d":
        preset = _preset(content, path)
        card_path = import_foundation(path, preset, folder, content=content, model_id=model_id)
        return ImportedModel(card_path, read_card(card_path))
    official: OfficialMethod = "promise3d" if recognised == "promise3d" else "sam3d_adapter"
    state, network = _our_network(content, path, official)
    dropped = _dropped(content, network.config)
    facts = _facts(official, network.config, content, path, dropped, dataset=dataset)
    if model_id is not None:
        facts["id"] = model_id
    card_path = save_imported(state, network, folder, **facts)
    return ImportedModel(card_path, read_card(card_path), dropped)


def _check_words(method: str | None, dataset: str | None, model_id: str | None) -> None:
    methods = (*get_args(OfficialMethod), "promise2d", "sam2d")
    if method is not None and method not in methods:
        raise ConfigError(f"there is no import for the method {method!r}; choose one of {', '.join(methods)}")
    if dataset is not None and dataset not in DATASETS:
        raise ConfigError(f"there is no data set {dataset!r}; choose one of {', '.join(DATASETS)}")
    if model_id is not None and re.fullmatch(PLAIN_NAME, model_id) is None:
        raise ConfigError(f"{model_id!r} cannot be an id: letters, digits, dots, dashes and underscores can")


def _recognise(content: Mapping[str, object], path: Path) -> str:
    if is_foundation(content):
        return "sam2d"
    encoder, decoder = content.get("encoder_dict"), content.get("decoder_dict")
    if isinstance(encoder, Mapping) and isinstance(decoder, Mapping):
        # What only ProMISe-3D has: a second adapter, and transposed convolutions.
        telling = (".adapter_back.", "mlahead.up", "image_feature_extractor.")
        names = [*map(str, encoder), *map(str, decoder)]
        is_promise = any(part in name for name in names for part in telling)
        return "promise3d" if is_promise else "sam3d_adapter"
    entries = ", ".join(list(content)[:3]) or "nothing"
    raise DamagedWeightsError(
        f"{path} is no checkpoint that can be imported: it has the entries {entries} ..., but encoder_dict "
        "and decoder_dict (ProMISe-3D, 3DSAM-adapter) or image_encoder.* (SAM) are expected"
    )


def _preset(content: Mapping[str, object], path: Path) -> str:
    preset = recognise_preset(content)
    if preset is None:
        raise DamagedWeightsError(
            f"{path} is a SAM of no known size; ViT-B, ViT-L, ViT-H and LiteMedSAM can be imported"
        )
    return preset


def _our_network(
    content: Mapping[str, Any], path: Path, method: OfficialMethod
) -> tuple[dict[str, Tensor], LiftedSegmenter]:
    """Return the state, as views of the file's tensors, and the network on no device that it fits."""
    encoder = content["encoder_dict"]
    decoder = with_current_names(method, content["decoder_dict"])
    prompts = content.get("feature_dict")
    faults = [f"{key} is unknown" for key in content if key not in _KNOWN_ENTRIES]
    automatic = method == "sam3d_adapter" and not prompts
    if not automatic and not _are_prompt_encoders(prompts):
        faults.append(f"feature_dict is no list of {NUM_PROMPT_ENCODERS} dictionaries")
        prompts = []
    last_prompt = {} if automatic or not prompts else prompts[-1]
    sizes = sizes_from_shapes(_shapes(encoder), _shapes(last_prompt), _shapes(decoder))
    try:
        config = official_config(method, sizes, automatic=automatic)
        layout = official_layout(method, config)
    except (ConfigError, ValueError, RuntimeError, ZeroDivisionError) as error:
        # Sizes that make no network: torch's layers refuse them each in their own way.
        raise DamagedWeightsError(
            f"{path} has sizes that make no {_TITLES[method]} ({error}); get the file again"
        ) from error
    faults += misfits("encoder_dict", encoder, layout.encoder)
    for index, prompt in enumerate(prompts or []):
        faults += misfits(f"feature_dict.{index}", prompt, layout.prompt)
    faults += misfits("decoder_dict", decoder, layout.decoder)
    if faults:
        raise DamagedWeightsError(
            f"{path} is not a checkpoint of {_TITLES[method]}; nothing was written; {len(faults)} faults: "
            f"{'; '.join(faults)}"
        )
    with torch.device("meta"):
        network = LiftedSegmenter(config)
    return our_state(layout, (encoder, last_prompt, _tensors(decoder))), network


def _are_prompt_encoders(prompts: object) -> bool:
    return (
        isinstance(prompts, list)
        and len(prompts) == NUM_PROMPT_ENCODERS
        and all(isinstance(prompt, Mapping) for prompt in prompts)
    )


def _tensors(part: Mapping[str, object]) -> dict[str, Tensor]:
    return {key: value for key, value in part.items() if isinstance(value, Tensor)}


def _shapes(part: Mapping[str, object]) -> dict[str, Shape]:
    return {key: tuple(value.shape) for key, value in _tensors(part).items()}


def _dropped(content: Mapping[str, object], config: LiftedSegmenterConfig) -> tuple[str, ...]:
    lines = ["the shift masks, which follow from the sizes"]
    if config.prompt is not None:
        lines.append(
            "what the published network stores but never uses: prompt encoders 0 to 2, Fourier matrices, "
            "token-to-image attention"
        )
    states = [name for name in _OPTIMISERS if name in content]
    if states:
        lines.append(f"the states of the optimisers ({', '.join(states)})")
    return tuple(lines)


def _facts(
    method: OfficialMethod,
    config: LiftedSegmenterConfig,
    content: Mapping[str, object],
    path: Path,
    dropped: tuple[str, ...],
    *,
    dataset: str | None,
) -> dict[str, Any]:
    """Return what the card says, but for the number of parameters and the written file."""
    tumours, intensity = ("", None) if dataset is None else DATASETS[dataset]
    data = "not said in the file: CT of colon, pancreas, liver or kidney tumours"
    if dataset is not None:
        data = f"{tumours}, the data set that its authors call {dataset}, as whoever imported it says"
    automatic = ["automatic"] if config.prompt is None else []
    words = [method.replace("_", "-"), "official", *automatic, *filter(None, [dataset])]
    title = "".join(f", {word}" for word in automatic) + ", weights of its authors"
    return {
        "id": "-".join(words),
        "title": f"{_TITLES[method]}{title}{f': {tumours}' if tumours else ''}",
        "method": method,
        "network": network_content(method, config),
        # Published: everything is resampled to voxels of 1 mm. The automatic variant is slid over the scan.
        "fields_of_view": FieldOfViewPlan(first_voxel_mm=1.0, finest_voxel_mm=1.0, coarsest_voxel_mm=1.0),
        "intensity": intensity,
        "modalities": ["CT"],
        "training_data": [data],
        "training_command": f"by its authors; imported with clickvol models import --method {method}",
        "licence": "weights of the authors; they give no licence; ask them before use",
        "notes": _notes(content, path, dropped, is_scaled=intensity is not None),
    }


def _notes(
    content: Mapping[str, object], path: Path, dropped: tuple[str, ...], *, is_scaled: bool
) -> list[str]:
    notes = [f"imported from {path.name}, sha256 {sha256_of_file(path)}"]
    told = [
        f"{name} {float(value):.6g}"
        for name in ("epoch", "best_val_loss")
        if isinstance(value := content.get(name), (int, float, np.number))
    ]
    if told:
        notes.append(f"the file says: {', '.join(told)}")
    notes += [f"left out: {line}" for line in dropped]
    notes.append("clicks inside and outside the object are treated alike, as published")
    if not is_scaled:
        notes.append(
            "the scale of its training is not known here, and scans get this package's own; import it again "
            "with --dataset for the published one"
        )
    return notes
