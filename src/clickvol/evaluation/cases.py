"""Labelled scans to evaluate on, from the folders of a command line."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from clickvol.datasets.pictures import PictureCase, PictureSet, read_data_set
from clickvol.datasets.prepared import LabelledCase
from clickvol.errors import ConfigError

OrganMaskChoice = Literal["none", "file", "gt"]
"""What is shown to methods that see an organ mask.

none: nothing; the scan stands in its place, as the released test code of TAGS can. file: the mask that the set
was prepared with (`data prepare --organs`), as there by default. gt: every labelled voxel, organ and tumour
together. That is an oracle: no user has it, and where the tumour's outline is the organ's it gives it away.
"""


EvaluatedCase = LabelledCase | PictureCase


@dataclass(frozen=True, slots=True)
class EvaluationData:
    """A data set, or a part of one.

    Attributes:
        content_hash: another one means other data.
    """

    name: str
    content_hash: str
    cases: tuple[EvaluatedCase, ...]


def open_data(
    words: Sequence[str], *, split: str, fold: int = 0, limit: int | None = None
) -> list[EvaluationData]:
    """Return the data sets that words name: folders of `clickvol data prepare`, maybe with NAME= before.

    `split` is "train", "val", "test" or "all"; only the first cases up to `limit`. ConfigError for a folder
    that is not prepared, without the split, without a case, or with a name that another one has.
    """
    sets = [one for word in words for one in _open(word, split, fold, limit)]
    names = [data.name for data in sets]
    if not names:
        raise ConfigError("there is no data to evaluate on; give --data FOLDER")
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two data sets are called {name!r}; put another name before one: NAME=FOLDER")
    if len({isinstance(case, PictureCase) for one in sets for case in one.cases}) > 1:
        raise ConfigError("scans and pictures have other measures; evaluate them by themselves")
    return sets


def split_name(word: str) -> tuple[str, str]:
    """Return the name before a word of a command line, NAME=WORD, and the word; "" without a name."""
    name, separator, rest = word.partition("=")
    return ("", word) if not separator or "/" in name else (name, rest)  # the = of a path


def _open(word: str, split: str, fold: int, limit: int | None) -> Iterator[EvaluationData]:
    """Open a folder: one data set, or the pictures of each that is in it."""
    given_name, path = split_name(word)
    folder = Path(path)
    prepared = read_data_set(folder)
    cases: Sequence[EvaluatedCase] = prepared.part(split, fold)
    if not cases:
        raise ConfigError(f"{folder} has no cases in the part {split!r} of fold {fold}; choose another")
    by_name = {given_name or prepared.name: tuple(cases)}
    if isinstance(prepared, PictureSet) and len(prepared.data_sets()) > 1:
        prefix = f"{given_name} " if given_name else ""
        pictures = prepared.part(split, fold)
        by_name = {
            f"{prefix}{name}": tuple(case for case in pictures if case.data_set == name)
            for name in dict.fromkeys(case.data_set for case in pictures)
        }
    for name, own in by_name.items():
        yield EvaluationData(name, prepared.content_hash, own[:limit])
