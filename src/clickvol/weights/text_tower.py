"""Text encoders whose files a user has brought, through the package `transformers`; nothing is downloaded."""

import importlib
import json
from collections.abc import Callable, Sequence
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


def local_text_encoder(folder: Path | None = None) -> tuple[TextEncoder, str]:
    """Return a text encoder, and what it is: CLIP's text tower, or a stand-in for it.

    A stand-in is a sentence encoder: the mean over the tokens of its last layer, as all-MiniLM-L6-v2 is used.
    Its folder is as `transformers` keeps a model, else WeightsUnavailableError; None looks for CLIP's in the
    cache. ConfigError when `transformers` is not installed.
    """
    if folder is None:
        folder = cached_model_folder(CLIP_TEXT_ID)
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsUnavailableError(
            f"there is no text encoder in {folder} (a config.json with a model_type is missing); for CLIP, "
            "put the files of openai/clip-vit-large-patch14 there"
        ) from error
    if kind in ("clip", "clip_text_model"):
        tokenizer, tower = _load(folder, "CLIPTextModelWithProjection")
        encode = _in_batches(tokenizer, lambda tokens: torch.as_tensor(tower(**tokens).text_embeds))
        return encode, f"CLIP text tower {folder.name}"
    tokenizer, network = _load(folder, "AutoModel")

    def mean_of_tokens(tokens: Any) -> Tensor:  # noqa: ANN401  # transformers' own mapping
        is_token = tokens["attention_mask"][..., None].float()
        states = torch.as_tensor(network(**tokens).last_hidden_state)
        return torch.as_tensor((states * is_token).sum(dim=1) / is_token.sum(dim=1))

    name = f"{folder.name} ({kind} sentence encoder, a stand-in for CLIP's text tower)"
    return _in_batches(tokenizer, mean_of_tokens), name


def _load(folder: Path, kind: str) -> tuple[Any, Any]:
    try:
        transformers: Any = importlib.import_module("transformers")
    except ImportError as error:
        raise ConfigError(
            'a text encoder needs transformers; run: pip install "transformers>=5", or use a finished text bank'
        ) from error
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        network = getattr(transformers, kind).from_pretrained(
            folder, local_files_only=True, use_safetensors=True
        )
    except (OSError, ValueError, KeyError) as error:
        first = str(error).splitlines()[0]
        raise WeightsUnavailableError(
            f"the text encoder in {folder} cannot be loaded ({first}); take its files again"
        ) from error
    return tokenizer, network.eval()


def _in_batches(tokenizer: Any, embed: Callable[[Any], Tensor]) -> TextEncoder:  # noqa: ANN401
    def encode(sentences: Sequence[str]) -> Tensor:
        """Return one embedding per sentence: (number of sentences, E_text)."""
        parts = []
        for start in range(0, len(sentences), _BATCH):
            chunk = list(sentences[start : start + _BATCH])
            with torch.inference_mode():
                parts.append(embed(tokenizer(chunk, padding=True, return_tensors="pt")).float())
        return torch.cat(parts)

    return encode
