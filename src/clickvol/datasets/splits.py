"""Which cases train, which choose a model and which are only scored; all scans of one group stay together."""

import csv
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from clickvol.errors import ConfigError
from clickvol.files.validation import first_fault

PartName = Literal["train", "val", "test"]

PART_NAMES: tuple[PartName, ...] = ("train", "val", "test")

# Validation and test; the rest trains. The shares of the published split (ProMISe-3D, 3DSAM-adapter:
# fold 0 of all four data sets has .70 to .71, .09 to .10 and .20 to .21).
_VALIDATION_SHARE = 0.1
_TEST_SHARE = 0.2


class Split(BaseModel):
    """One fold: case ids. Never a case in training and in another part; validation may be the test, too."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...] = ()

    def part(self, name: PartName) -> tuple[str, ...]:
        """Return the ids of a part."""
        return {"train": self.train, "val": self.val, "test": self.test}[name]

    def only(self, kept: set[str]) -> "Split":
        """Return the split without the cases that are not in `kept`."""
        return Split(**{n: tuple(i for i in self.part(n) if i in kept) for n in PART_NAMES})


def make_split(group_of_case: Mapping[str, str], seed: int) -> Split:
    """Draw a split of .7 training, .1 validation and .2 test, by groups; the seed alone decides.

    Of n groups, round(n / 10) validate and round(n / 5) test (halves up), and the rest trains. From three
    groups on every part has at least one; of two groups one trains and one tests; a single one trains. Groups
    are ordered by a hash, so one more or less moves hardly any other.
    """
    groups = set(group_of_case.values())
    drawn = draw_split(groups, seed, *_part_sizes(len(groups)))
    cases = sorted(group_of_case)
    return Split(**{n: tuple(c for c in cases if group_of_case[c] in drawn.part(n)) for n in PART_NAMES})


def draw_split(names: Iterable[str], seed: int, num_val: int, num_test: int) -> Split:
    """Draw a split with so many names in each part, whatever their order; the rest trains."""
    order = sorted(names, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    val, test = order[:num_val], order[num_val : num_val + num_test]
    train = order[num_val + num_test :]
    return Split(train=tuple(sorted(train)), val=tuple(sorted(val)), test=tuple(sorted(test)))


def _part_sizes(num_groups: int) -> tuple[int, int]:
    """Return how many groups validate and how many test."""
    if num_groups < 3:
        return 0, num_groups // 2
    return (
        max(1, int(num_groups * _VALIDATION_SHARE + 0.5)),
        max(1, int(num_groups * _TEST_SHARE + 0.5)),
    )


def read_splits(path: Path) -> tuple[Split, ...]:
    """Read nnU-Net's splits_final.json, "test" may be in it; ConfigError for a file of another form."""
    try:
        folds = TypeAdapter(tuple[Split, ...]).validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigError(
            f"cannot read the splits {path}: {error.strerror or error}; give a splits_final.json"
        ) from error
    except ValidationError as error:
        raise ConfigError(
            f'{path} is not a list of folds like [{{"train": ["a"], "val": ["b"]}}]: '
            f"{first_fault(error, 'the file')}"
        ) from error
    if not folds:
        raise ConfigError(f"{path} has no fold; a list with at least one was expected")
    return folds


def read_groups(path: Path, case_ids: Sequence[str]) -> dict[str, str]:
    """Read the group of every case from a CSV of case and group; ConfigError where one is missing."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(
            f"cannot read the groups {path}: {error}; give a CSV file with the columns case and group"
        ) from error
    group_of_case: dict[str, str] = {}
    for row in rows:
        case, group = (row.get("case") or "").strip(), (row.get("group") or "").strip()
        if not case or not group:
            raise ConfigError(
                f"{path} has a line without case or group: {row}; its first line must be case,group"
            )
        if group_of_case.setdefault(case, group) != group:
            raise ConfigError(f"{path} puts the case {case} into two groups, {group_of_case[case]} and {group}")
    missing = [case for case in case_ids if case not in group_of_case]
    if missing:
        raise ConfigError(f"{path} has no group for the case {missing[0]} ({len(missing)} are missing); add it")
    return {case: group_of_case[case] for case in case_ids}


def groups_by_pattern(pattern: str, case_ids: Sequence[str]) -> dict[str, str]:
    """Return what a regular expression finds in the id of every case: its first group, or all that it matches.

    Raises:
        ConfigError: when it is none, or an id has nothing like it.
    """
    try:
        matches = {case: re.search(pattern, case) for case in case_ids}
    except re.error as error:
        raise ConfigError(
            f"--patients {pattern!r} is no regular expression ({error}); one like '(.*)_n[0-9]+' was expected"
        ) from error
    missing = [case for case, match in matches.items() if match is None]
    if missing:
        raise ConfigError(
            f"--patients {pattern!r} is not in the case {missing[0]} ({len(missing)} are without); correct it"
        )
    return {case: (match[1] if match.lastindex else match[0]) for case, match in matches.items() if match}


def check_splits(folds: Sequence[Split], group_of_case: Mapping[str, str], source: Path) -> None:
    """Refuse folds that name unknown cases, or a case or group in training and another part (ConfigError)."""
    for number, fold in enumerate(folds):
        for name in PART_NAMES:
            ids = fold.part(name)
            unknown = sorted(set(ids) - set(group_of_case))
            if unknown:
                raise ConfigError(
                    f"{source}, fold {number}, {name}: the data set has no case {unknown[0]!r}; "
                    f"its cases are called like {min(group_of_case, default='')!r}"
                )
            if len(set(ids)) < len(ids):
                raise ConfigError(f"{source}, fold {number}, {name}: a case is named twice; name each once")
        trained = {group_of_case[case] for case in fold.train}
        for name in PART_NAMES[1:]:
            both = sorted(trained & {group_of_case[case] for case in fold.part(name)})
            if both:
                raise ConfigError(
                    f"{source}, fold {number}: the group {both[0]!r} is in train and in {name}; a "
                    "group (patient) belongs to one of them"
                )


def splits_json(folds: Sequence[Split]) -> str:
    """Return folds in the form of nnU-Net's splits_final.json, with "test" beside."""
    content = [{name: list(fold.part(name)) for name in PART_NAMES} for fold in folds]
    return json.dumps(content, indent=2) + "\n"
