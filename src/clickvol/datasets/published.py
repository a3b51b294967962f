"""The constants that the methods' authors published for four data sets.

The numbers lie in `published/*.toml`, each with its source.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from clickvol.datasets.splits import Split, check_splits, draw_split, read_splits
from clickvol.errors import ConfigError

_FOLDER = Path(__file__).with_name("published")


class PublishedConstants(BaseModel):
    """What is known about a published data set.

    Attributes:
        clip_low_hu, clip_high_hu: bounds that values are clipped to, Hounsfield units.
        mean_hu, deviation_hu: what clipped values are normalised with.
        slice_wise_augmentation: whether training turns and zooms scans slice by slice.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    organ: str
    modality: Literal["CT"]
    msd_folder: str
    tumour_label: int = Field(gt=0)
    spacing_dhw_mm: tuple[float, float, float]
    clip_low_hu: float
    clip_high_hu: float
    mean_hu: float
    deviation_hu: float = Field(gt=0)
    train_cases: int
    validation_cases: int
    test_cases: int
    slice_wise_augmentation: bool


def published_names() -> tuple[str, ...]:
    """Return the names of all data sets with constants, sorted."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.toml")))


def read_published(name: str) -> PublishedConstants:
    """Return the constants of "colon", "kits", "lits" or "pancreas"; ConfigError for another name."""
    if name not in published_names():
        raise ConfigError(
            f"there are no published constants {name!r}; known are {', '.join(published_names())}"
        )
    text = (_FOLDER / f"{name}.toml").read_text(encoding="utf-8")
    return PublishedConstants.model_validate(tomllib.loads(text))


def official_split(name: str) -> Split | None:
    """Return the cases of the published split, fold 0 of five; None where only their numbers are known."""
    path = _FOLDER / f"{name}-splits.json"
    return read_splits(path)[0] if path.is_file() else None


def published_split(name: str, group_of_case: Mapping[str, str], seed: int) -> Split | None:
    """Return the published split of a data set; of numbers of cases alone, one drawn with the seed.

    None where the data set is not whole, or groups go across the parts.
    """
    official = official_split(name)
    if official is not None and {*official.train, *official.val, *official.test} <= set(group_of_case):
        try:
            check_splits([official], group_of_case, _FOLDER / f"{name}-splits.json")
        except ConfigError:
            return None
        return official
    known = read_published(name)
    total = known.train_cases + known.validation_cases + known.test_cases
    if not len(group_of_case) == len(set(group_of_case.values())) == total:
        return None
    return draw_split(list(group_of_case), seed, known.validation_cases, known.test_cases)


def published_name_of(msd_folder: str) -> str | None:
    """Return the name of the constants of a task of the Decathlon, by its folder; None if there are none."""
    folder = msd_folder.lower()
    return next((n for n in published_names() if read_published(n).msd_folder.lower() == folder != ""), None)
