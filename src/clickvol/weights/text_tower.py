"""CLIP's text tower, where a user has brought its files and the package `transformers` is installed."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clickvol.errors import ConfigError, WeightsUnavailableError
from clickvol.image_encoders.text_bank import TextEncoder
from clickvol.weights.cache import cached_model_folder

CLIP_TEXT_ID = "clip-vit-l-14-text"
"""Folder in the cache that the files are looked for in: CLIP ViT-L/14, 768 values per text (TAGS)."""

# Sentences at a time: the tower's temporaries then stay below 100 MB.
_BATCH = 34


def clip_text_encoder(folder: Path | None = None) -> TextEncoder:
    """Return CLIP's text tower; nothing is ever downloaded.

    Args:
        folder: with the tower and its tokenizer as `transformers` keeps them (config.json,
            model.safetensors, tokenizer files); None looks in the cache.

    Raises:
        WeightsUnavailableError: when the files are not there or not complete.
        ConfigError: when `transformers` is not installed.
    """
    place = folder if folder is not None else cached_model_folder(CLIP_TEXT_ID)
    if not (place / "config.json").is_file():
        msg = (
            f"there is no CLIP text tower in {place}; put config.json, model.safetensors and the tokenizer's "
            "files of openai/clip-vit-large-patch14 there, or use a text bank file"
        )
        raise WeightsUnavailableError(msg)
    try:
        transformers: Any = importlib.import_module("transformers")
    except ImportError as error:
        msg = (
            "CLIP's text tower needs the package transformers; install it, or use a text bank file"
        )
        raise ConfigError(msg) from error
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(place, local_files_only=True)
        tower = transformers.CLIPTextModelWithProjection.from_pretrained(
            place, local_files_only=True, use_safetensors=True
        )
    except (OSError, ValueError, KeyError) as error:
        first = str(error).splitlines()[0]
        msg = f"the CLIP text tower in {place} cannot be loaded ({first}); take its files again"
        raise WeightsUnavailableError(msg) from error
    tower.eval()

    def encode(sentences: Sequence[str]) -> Tensor:
        """Return one embedding per sentence: (number of sentences, E_text)."""
        parts = []
        for start in range(0, len(sentences), _BATCH):
            tokens = tokenizer(
                list(sentences[start : start + _BATCH]), padding=True, return_tensors="pt"
            )
            with torch.inference_mode():
                parts.append(tower(**tokens).text_embeds.float())
        return torch.cat(parts)

    return encode
