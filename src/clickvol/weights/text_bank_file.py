"""A text bank as a file: one tensor as safetensors, and in its metadata what it was made from."""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from clickvol.errors import ConfigError, DamagedWeightsError, ModelNotFoundError
from clickvol.files.atomic import atomic_path
from clickvol.image_encoders.text_bank import TextBank, sentences_sha256

_FORMAT = "clickvol text bank 1"
_TENSOR = "columns"


def write_text_bank(bank: TextBank, path: Path) -> None:
    """Write a bank; the file has the suffix .safetensors by custom."""
    facts = {
        "format": _FORMAT,
        "object_word": bank.object_word,
        "text_encoder": bank.text_encoder,
        "sentences_sha256": bank.sentences_sha256,
    }
    with atomic_path(path, path.suffix) as temporary:
        save_file({_TENSOR: bank.columns.contiguous()}, temporary, metadata=facts)


def read_text_bank(path: Path, object_word: str) -> TextBank:
    """Read a bank; ConfigError when it is of another object, DamagedWeightsError when of other sentences."""
    if not path.is_file():
        raise ModelNotFoundError(
            f"the text bank {path} does not exist; make it with `clickvol models text-bank`"
        )
    try:
        with safe_open(path, framework="pt") as file:
            facts = file.metadata() or {}
            columns = file.get_tensor(_TENSOR).to(torch.float32)
    except (SafetensorError, ValueError, KeyError) as error:
        raise DamagedWeightsError(
            f"{path} is not a text bank ({error}); make it with `clickvol models text-bank`"
        ) from error
    if facts.get("format") != _FORMAT:
        raise DamagedWeightsError(
            f"{path} is not a text bank of this version; make it with `clickvol models text-bank`"
        )
    bank_word = facts.get("object_word", "")
    if bank_word != object_word.strip():
        raise ConfigError(
            f"the text bank {path} is about {bank_word!r}, not {object_word!r}; make one for that word"
        )
    if facts.get("sentences_sha256") != sentences_sha256(object_word):
        raise DamagedWeightsError(
            f"the text bank {path} was made from other sentences than this version's; make it again"
        )
    try:
        return TextBank(columns, bank_word, facts.get("text_encoder", ""), facts["sentences_sha256"])
    except ConfigError as error:
        raise DamagedWeightsError(f"the text bank {path} is damaged: {error}") from error
