"""Writing a model that another module of this package will load: weights and card, both or none."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from clickvol.errors import OutputError
from clickvol.files.atomic import make_folder, write_text
from clickvol.version import __version__
from clickvol.weights.card import ModelCard
from clickvol.weights.safe_file import write_weights


def save_float32_model(state: Mapping[str, Tensor], draft: ModelCard, folder: Path) -> Path:
    """Write `ID.safetensors` and `ID.json`, or on OutputError nothing; return the path of the card.

    What the draft says of the weights file is filled in here. Tensors may be mapped from another file.
    """
    weights = folder / f"{draft.id}.safetensors"
    card_path = weights.with_suffix(".json")
    is_new = not weights.exists()
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    make_folder(folder)
    try:
        sha256, size = write_weights(state, weights, dtype=torch.float32)
        facts = {"dtype": "float32", "bytes": size, "sha256": sha256, "weights_file": weights.name}
        card = draft.model_copy(update=facts)
        write_text(card_path, card.model_dump_json(indent=2) + "\n")
    except BaseException as error:
        if is_new:
            weights.unlink(missing_ok=True)
        for path in missing:  # deepest first
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
        if isinstance(error, SafetensorError):  # what its writer makes of a full disk
            raise OutputError(
                f"cannot write {weights}: {error}; make room or choose another place for the output"
            ) from error
        raise
    return card_path


def save_imported(
    state: Mapping[str, Tensor],
    network: nn.Module,
    folder: Path,
    /,
    **facts: Any,  # noqa: ANN401
) -> Path:
    """Write what was made by others as a model; `facts` are those of its card."""
    draft: dict[str, Any] = {"dtype": "float32", "bytes": 0, "sha256": "", "weights_file": ""}
    draft["num_parameters"] = sum(parameter.numel() for parameter in network.parameters())
    return save_float32_model(state, ModelCard(**draft, **facts, clickvol_version=__version__), folder)
