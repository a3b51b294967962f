import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clickvol.datasets.splits import (
    PART_NAMES,
    Split,
    check_splits,
    groups_by_pattern,
    make_split,
    read_splits,
    splits_json,
)
from clickvol.errors import ConfigError

GROUPED = st.dictionaries(
    st.text("abcdef0123", min_size=1, max_size=6), st.sampled_from("ABCDEFGHIJKLMN"), min_size=1
)


def _alone(count):
    return {f"c{n}": f"c{n}" for n in range(count)}


@pytest.mark.parametrize(
    ("num_groups", "sizes"),
    [
        (1, (1, 0, 0)),
        (2, (1, 0, 1)),
        (3, (1, 1, 1)),
        (4, (2, 1, 1)),
        (7, (5, 1, 1)),
        (8, (5, 1, 2)),
        (10, (7, 1, 2)),
        (15, (10, 2, 3)),
        (34, (24, 3, 7)),
        (100, (70, 10, 20)),
    ],
)
def test_the_parts_have_their_documented_sizes(num_groups, sizes):
    split = make_split(_alone(num_groups), seed=0)
    assert tuple(len(split.part(name)) for name in PART_NAMES) == sizes


@given(GROUPED, st.integers(0, 5))
def test_every_case_is_in_one_part_and_no_group_in_two(group_of_case, seed):
    split = make_split(group_of_case, seed)
    parts = [split.part(name) for name in PART_NAMES]
    assert sorted(case for part in parts for case in part) == sorted(group_of_case)
    groups = [{group_of_case[case] for case in part} for part in parts]
    assert sum(map(len, groups)) == len(set(group_of_case.values()))
    assert split.train


@given(GROUPED, st.integers(0, 5))
def test_the_order_of_the_cases_does_not_matter(group_of_case, seed):
    turned = dict(reversed(group_of_case.items()))
    assert make_split(turned, seed) == make_split(group_of_case, seed)


def test_another_seed_gives_another_split():
    assert len({make_split(_alone(30), seed).test for seed in range(10)}) == 10


def test_one_case_less_moves_at_most_two_others():
    before = make_split(_alone(40), seed=3)
    cases = _alone(40)
    del cases["c7"]
    after = make_split(cases, seed=3)
    moved = {c for n in PART_NAMES for c in set(after.part(n)) - set(before.part(n))}
    assert len(moved) <= 2


def test_a_group_of_many_scans_counts_once():
    group_of_case = {f"a{n}": "A" for n in range(50)} | _alone(9)
    split = make_split(group_of_case, seed=1)
    inside = [name for name in PART_NAMES if "a0" in split.part(name)]
    assert len(inside) == 1
    assert {f"a{n}" for n in range(50)} <= set(split.part(inside[0]))


def test_a_patient_is_what_a_pattern_finds_in_the_id():
    ids = ["lidc_0001_n00", "lidc_0001_n01", "lidc_0002_n00"]
    known = dict(zip(ids, ["lidc_0001", "lidc_0001", "lidc_0002"], strict=True))
    assert groups_by_pattern("(.*)_n[0-9]+", ids) == groups_by_pattern("lidc_[0-9]+", ids) == known
    with pytest.raises(ConfigError, match=r"is not in the case lidc_0001_n00 \(2 are without\); correct it"):
        groups_by_pattern("0002", ids)
    with pytest.raises(ConfigError, match=r"is no regular expression .*; one like"):
        groups_by_pattern("(", ids)


# -- files --------------------------------------------------------------------------------------


def _write(tmp_path, content):
    path = tmp_path / "splits_final.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_nnunets_form_is_read_and_written(tmp_path):
    folds = read_splits(_write(tmp_path, [{"train": ["a", "b"], "val": ["c"]}]))
    assert folds == (Split(train=("a", "b"), val=("c",)),)
    text = splits_json([Split(train=("a",), val=("b",), test=("c",))])
    assert json.loads(text) == [{"train": ["a"], "val": ["b"], "test": ["c"]}]
    assert read_splits(_write(tmp_path, text)) == (Split(train=("a",), val=("b",), test=("c",)),)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{not json", "is not a list of folds"),
        ({"train": ["a"]}, "is not a list of folds"),
        ([{"train": ["a"]}], r"0\.val"),
        ([{"train": "a", "val": []}], r"0\.train"),
        ([], "has no fold"),
    ],
)
def test_a_file_of_another_form_is_refused_in_one_line(tmp_path, content, message):
    with pytest.raises(ConfigError, match=message) as caught:
        read_splits(_write(tmp_path, content))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read the splits .*gone\.json"):
        read_splits(tmp_path / "gone.json")


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (Split(train=("a", "x"), val=("b",)), "fold 0, train: the data set has no case 'x'"),
        (Split(train=("a",), val=("b", "b")), "val: a case is named twice"),
        (Split(train=("a", "b"), val=("b",)), "group 'B' is in train and in val"),
        (Split(train=("a",), val=("b",), test=("a2",)), "group 'A' is in train and in test"),
    ],
)
def test_a_split_that_leaks_or_names_nothing_is_refused(split, message):
    groups = {"a": "A", "a2": "A", "b": "B"}
    with pytest.raises(ConfigError, match=message):
        check_splits([split], groups, Path("s.json"))


def test_validation_may_be_the_test_too():
    split = Split(train=("a",), val=("b",), test=("b",))
    check_splits([split], {"a": "a", "b": "b"}, Path("s.json"))


def test_the_split_of_the_sarcoma_patients_is_the_projects_own():
    (split,) = read_splits(Path(__file__).parents[2] / "configs" / "splits" / "sarcoma.json")
    assert split.val == split.test
    assert [case.removeprefix("sts_") for case in split.val] == [
        "008",
        "019",
        "024",
        "029",
        "042",
        "047",
    ]
    assert len(split.train) == 28
    assert not set(split.train) & set(split.val)
