"""Two text embeddings, of a healthy and of a diseased organ, from many sentences (TAGS, arXiv 2505.17096).

14 states of an object times 34 sentences about a thing, sorted into two classes; each class is the mean
direction of its sentences. The way and the numbers are the released ones. The wording of the sentences is
ours where the known facts leave room: which words stand before and after the noun, and which belong to the
photo, is known; the rest of a sentence is not.
"""

import hashlib
import logging
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from clickvol.errors import ConfigError

TextEncoder = Callable[[Sequence[str]], Tensor]
"""Sentences -> (number of sentences, E_text), any length of the vectors but 0."""

STUB_ENCODER = "stub (seeded random vectors, no text was read)"
"""What a bank names as its text encoder when there was none."""

_WORDS: dict[str, list[str]] = tomllib.loads(
    Path(__file__).with_name("text_bank.toml").read_text(encoding="utf-8")
)
_PHOTO_TEMPLATES = (
    *(f"a 3D photo of {article} {{}}." for article in ("one", "a", "the")),
    *(f"a 3D photo of {article} {word} {{}}." for word in _WORDS["of_the_object"] for article in ("a", "the")),
    *(f"a {word} 3D photo of {article} {{}}." for word in _WORDS["of_the_photo"] for article in ("a", "the")),
)

TEMPLATES = (*_WORDS["scene_templates"], *_PHOTO_TEMPLATES)
"""The 34 sentences about a thing, `{}` standing for it."""

# How far a column's length may be from 1: rounding of float32 over some thousand values stays below.
_UNIT_TOLERANCE = 1e-4

# Cosine of a stub's two columns. Chosen: texts about one object are near each other, and the factor of 100
# before softmax reckons with that; at right angles every score is 0 or 1 and no gradient is left.
_STUB_COSINE = 0.9

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class TextBank:
    """What tokens are compared with.

    Attributes:
        columns: (E_text, 2) float32, each column of length 1: healthy, then tumour.
        object_word: what the sentences call the object.
        text_encoder: which encoder made it; `STUB_ENCODER` for none.
        sentences_sha256: see `sentences_sha256`.
    """

    columns: Tensor
    object_word: str
    text_encoder: str
    sentences_sha256: str

    def __post_init__(self) -> None:
        if self.columns.ndim != 2 or self.columns.shape[1] != 2 or not len(self.columns):
            raise ConfigError(
                f"a text bank has shape (E_text, 2), healthy and tumour, not {tuple(self.columns.shape)}"
            )
        lengths = self.columns.double().norm(dim=0)
        if not torch.allclose(lengths, torch.ones_like(lengths), rtol=0, atol=_UNIT_TOLERANCE):
            raise ConfigError(
                f"the columns of a text bank have length 1, not {lengths.tolist()}; make it again"
            )

    @property
    def width(self) -> int:
        """Values per text embedding, E_text."""
        return int(self.columns.shape[0])

    @property
    def is_stub(self) -> bool:
        """Whether it means nothing: seeded random vectors."""
        return self.text_encoder == STUB_ENCODER


def bank_sentences(object_word: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return 8 x 34 = 272 sentences about a healthy object, and 6 x 34 = 204 about one with a tumour."""
    word = object_word.strip()
    if not word:
        raise ConfigError(
            "the texts need a word for the object; give the name of the organ, or of the data set"
        )
    return _sentences(_WORDS["healthy_states"], word), _sentences(_WORDS["tumour_states"], word)


def _sentences(states: Sequence[str], word: str) -> tuple[str, ...]:
    return tuple(template.format(state.format(word)) for state in states for template in TEMPLATES)


def sentences_sha256(object_word: str) -> str:
    """Return what tells banks of other sentences apart: sha256 over all of them, one per line."""
    healthy, tumour = bank_sentences(object_word)
    text = "\n".join((*healthy, "", *tumour))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def make_text_bank(encode: TextEncoder, object_word: str, text_encoder: str) -> TextBank:
    """Ask a text encoder for every sentence and average each class; ConfigError for other than finite vectors.

    Each embedding is brought to length 1, the class is averaged, and the mean is brought to length 1.
    """
    columns = [_mean_direction(encode, sentences) for sentences in bank_sentences(object_word)]
    return TextBank(
        columns=torch.stack(columns, dim=1),
        object_word=object_word.strip(),
        text_encoder=text_encoder,
        sentences_sha256=sentences_sha256(object_word),
    )


@torch.no_grad()
def _mean_direction(encode: TextEncoder, sentences: tuple[str, ...]) -> Tensor:
    """Return the mean direction of some sentences: (E_text,), length 1."""
    embeddings = encode(sentences).detach().double().cpu()
    if embeddings.ndim != 2 or len(embeddings) != len(sentences):
        raise ConfigError(
            f"the text encoder gave {tuple(embeddings.shape)} for {len(sentences)} sentences, expected "
            "one vector each"
        )
    if not embeddings.isfinite().all() or not embeddings.any(dim=1).all():
        raise ConfigError("the text encoder gave a vector that is not finite or all zeros; use another encoder")
    mean = F.normalize(embeddings, dim=1).mean(dim=0)
    return F.normalize(mean, dim=0).float()


def stub_text_bank(width: int, seed: int, object_word: str = "object") -> TextBank:
    """Return two random directions near each other, for tests and dry runs; the log gets a warning.

    A network trained with it learns two directions that stand for healthy and tumour, but no text has any part
    in it. ConfigError when the width is below 2.
    """
    if width < 2:
        raise ConfigError(f"a stub of {width} values has no two directions; give at least 2")
    _logger.warning(
        "the text bank is a stub: seeded random vectors stand where text embeddings should; no result of it "
        "says anything about text prompts"
    )
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(width, 2, generator=generator, dtype=torch.float64)
    at_right_angles = torch.linalg.qr(drawn).Q
    mixing = torch.tensor([[1.0, _STUB_COSINE], [0.0, (1 - _STUB_COSINE**2) ** 0.5]]).double()
    columns = at_right_angles @ mixing
    return TextBank(
        columns=columns.float(),
        object_word=object_word,
        text_encoder=STUB_ENCODER,
        sentences_sha256=sentences_sha256(object_word),
    )
