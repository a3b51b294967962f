"""SAM's own files, and LiteMedSAM's, as models of this package: the frozen foundations.

Such a file is one flat dictionary whose names are ours, so nothing is renamed; every name and shape is
compared.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clickvol.errors import DamagedWeightsError
from clickvol.methods.registry import find_method
from clickvol.methods.sam2d import Sam2dConfig, sam2d_preset
from clickvol.version import __version__
from clickvol.weights.cache import sha256_of
from clickvol.weights.card import ModelCard
from clickvol.weights.load import network_content
from clickvol.weights.official.file import read_official_file
from clickvol.weights.registry import PackageSource, RegistryEntry, UrlSource, list_entries
from clickvol.weights.save import save_float32_model

_METHOD = "sam2d"

# The width of SAM's position table names the ViT (Segment Anything, appendix A).
_PRESETS_BY_WIDTH = {768: "vit_b", 1024: "vit_l", 1280: "vit_h"}


def is_foundation(content: Mapping[str, object]) -> bool:
    """Return whether the names in a file are those of a SAM."""
    return any(key.startswith("image_encoder.") for key in content)


def recognise_preset(content: Mapping[str, object]) -> str | None:
    """Return the name of the preset that the shapes in a SAM's file are of, or None."""
    if "image_encoder.patch_embed.seq.0.c.weight" in content:
        return "litemedsam"
    positions = content.get("image_encoder.pos_embed")
    if isinstance(positions, Tensor) and positions.ndim:
        return _PRESETS_BY_WIDTH.get(positions.shape[-1])
    return None


def import_foundation(
    path: Path,
    preset: str,
    folder: Path,
    *,
    content: Mapping[str, Any] | None = None,
    model_id: str | None = None,
) -> Path:
    """Turn a SAM's file into a model of this package; return the path of the card.

    Args:
        path: `sam_vit_b_01ec64.pth` or one of its sisters, or `lite_medsam.pth`.
        preset: "vit_b", "vit_l", "vit_h" or "litemedsam".
        folder: where card and weights go.
        content: of the file, where it has been read.
        model_id: of the new model; that of the registry when not given.

    Raises:
        ConfigError: for another preset.
        DamagedWeightsError: when it is no such file, or a tensor is missing, unknown or of another shape.
    """
    content = read_official_file(path) if content is None else content
    config = sam2d_preset(preset)
    with torch.device("meta"):
        network = find_method(_METHOD).build(config)
    _require_fit(content, network.state_dict(), path, preset)
    with path.open("rb") as stream:
        sha256 = sha256_of(stream)
    draft = _draft_card(preset, config, path, sha256)
    num_parameters = sum(parameter.numel() for parameter in network.parameters())
    changes: dict[str, object] = {"num_parameters": num_parameters}
    if model_id is not None:
        changes["id"] = model_id
    return save_float32_model(content, draft.model_copy(update=changes), folder)


def _require_fit(
    content: Mapping[str, object], expected: Mapping[str, Tensor], path: Path, preset: str
) -> None:
    faults = [f"{key} is missing" for key in expected if key not in content]
    for key, value in content.items():
        if key not in expected:
            faults.append(f"{key} is unknown")
        elif not isinstance(value, Tensor):
            faults.append(f"{key} is no tensor")
        elif value.shape != expected[key].shape:
            wanted = tuple(expected[key].shape)
            faults.append(f"{key} has shape {tuple(value.shape)}, expected {wanted}")
        elif value.is_floating_point() != expected[key].is_floating_point():
            faults.append(f"{key} has values of type {value.dtype}, expected {expected[key].dtype}")
    if faults:
        raise DamagedWeightsError(
            f"{path} is not the file of a SAM of the size {preset}; nothing was written; "
            f"{len(faults)} faults: {'; '.join(faults)}"
        )


def _draft_card(preset: str, config: Sam2dConfig, path: Path, sha256: str) -> ModelCard:
    """Return the card but for what only the written file tells; its facts are the registry's."""
    entry = _entry_of(preset)
    original = entry.source.original if isinstance(entry.source, UrlSource | PackageSource) else None
    is_published = original is not None and sha256 == original.sha256
    notes = [f"imported from {path.name}, sha256 {sha256}", f"input: {entry.expects}"]
    if is_published:
        licence = entry.licence
        sources = [f"see {entry.paper.citation}, {entry.paper.url}"]
    else:
        licence = "not known: the file is not the one that its publisher hands out"
        sources = ["not known: the file is not the one that its publisher hands out"]
        notes.append(f"names and shapes are those of {entry.id}, the values are not")
    return ModelCard(
        id=entry.id,
        title=entry.title if is_published else f"weights in the layout of {entry.id}",
        method=_METHOD,
        network=network_content(_METHOD, config),
        modalities=["2D images"],
        training_data=sources,
        training_command="made by others; imported with clickvol models import",
        licence=licence,
        notes=notes,
        num_parameters=0,
        dtype="float32",
        bytes=0,
        sha256="",
        weights_file="",
        clickvol_version=__version__,
    )


def _entry_of(preset: str) -> RegistryEntry:
    entries = [e for e in list_entries() if e.method == _METHOD and e.network == preset]
    if not entries:
        raise DamagedWeightsError(f"the registry has no foundation {preset!r}; update clickvol")
    return entries[0]
