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
from clickvol.layers.state import state_faults
from clickvol.methods.registry import find_method
from clickvol.methods.sam2d import sam2d_preset
from clickvol.weights.cache import sha256_of_file
from clickvol.weights.load import network_content
from clickvol.weights.official.file import read_official_file
from clickvol.weights.registry import PackageSource, RegistryEntry, UrlSource, list_entries
from clickvol.weights.save import save_imported

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

    Its id is that of the registry when not given. Presets are "vit_b", "vit_l", "vit_h" and "litemedsam", else
    ConfigError. Where the file has been read, its content is taken. DamagedWeightsError when it does not fit.
    """
    content = read_official_file(path) if content is None else content
    config = sam2d_preset(preset)
    with torch.device("meta"):
        network = find_method(_METHOD).build(config)
    if faults := state_faults(content, network.state_dict()):
        raise DamagedWeightsError(
            f"{path} is not the file of a SAM of the size {preset}; nothing was written; "
            f"{len(faults)} faults: {'; '.join(faults)}"
        )
    facts = _facts(preset, path, sha256_of_file(path))
    if model_id is not None:
        facts["id"] = model_id
    return save_imported(
        content, network, folder, method=_METHOD, network=network_content(_METHOD, config), **facts
    )


def _facts(preset: str, path: Path, sha256: str) -> dict[str, Any]:
    """Return what a card says of a file: the registry's words where it is the published one."""
    entry = _entry_of(preset)
    original = entry.source.original if isinstance(entry.source, UrlSource | PackageSource) else None
    is_published = original is not None and sha256 == original.sha256
    unknown = "not known: the file is not the one that its publisher hands out"
    notes = [f"imported from {path.name}, sha256 {sha256}", f"input: {entry.expects}"]
    notes += [] if is_published else [f"names and shapes are those of {entry.id}, the values are not"]
    source = f"see {entry.paper.citation}, {entry.paper.url}"
    return {
        "id": entry.id,
        "title": entry.title if is_published else f"weights in the layout of {entry.id}",
        "modalities": ["2D images"],
        "training_data": [source if is_published else unknown],
        "training_command": "made by others; imported with clickvol models import",
        "licence": entry.licence if is_published else unknown,
        "notes": notes,
    }


def _entry_of(preset: str) -> RegistryEntry:
    entries = [e for e in list_entries() if e.method == _METHOD and e.network == preset]
    if not entries:
        raise DamagedWeightsError(f"the registry has no foundation {preset!r}; update clickvol")
    return entries[0]
