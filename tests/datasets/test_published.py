import pytest

from clickvol.datasets.published import (
    official_split,
    published_name_of,
    published_names,
    published_split,
    read_published,
)
from clickvol.errors import ConfigError

# name: clip low, clip high, mean, deviation, tumour label, cases of the three parts
FACTS = {
    "colon": (-57, 175, 65.175035, 32.651197, 1, (89, 11, 26)),
    "kits": (-54, 247, 59.53867, 55.457336, 2, (209, 30, 61)),
    "lits": (-48, 163, 60.057533, 40.198017, 2, (83, 11, 24)),
    "pancreas": (-39, 204, 68.45214, 63.422806, 2, (196, 28, 57)),
}


def test_the_four_data_sets_are_known():
    assert published_names() == tuple(FACTS)


@pytest.mark.parametrize("name", FACTS)
def test_the_numbers_are_those_of_the_released_code(name):
    known = read_published(name)
    parts = (known.train_cases, known.validation_cases, known.test_cases)
    result = (known.clip_low_hu, known.clip_high_hu, known.mean_hu, known.deviation_hu)
    assert (*result, known.tumour_label, parts) == FACTS[name]
    assert known.spacing_dhw_mm == (1, 1, 1)
    assert known.slice_wise_augmentation == (name in ("colon", "pancreas"))


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("Task07_Pancreas", "pancreas"),
        ("task03_liver", "lits"),
        ("Task10_Colon", "colon"),
        ("Task06_Lung", None),
        ("", None),
    ],
)
def test_tasks_of_the_decathlon_know_their_constants(folder, name):
    assert published_name_of(folder) == name


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ConfigError, match="'liver'; known are colon, kits, lits, pancreas"):
        read_published("liver")


@pytest.mark.parametrize(("name", "first_test"), [("colon", "colon_008"), ("pancreas", "pancreas_006")])
def test_the_official_splits_have_the_published_numbers_and_share_no_case(name, first_test):
    split = official_split(name)
    assert tuple(len(split.part(part)) for part in ("train", "val", "test")) == FACTS[name][-1]
    every = [*split.train, *split.val, *split.test]
    assert len(set(every)) == len(every)
    assert split.test[0] == first_test


def test_of_lits_and_kits_the_numbers_alone_are_known():
    assert official_split("lits") is official_split("kits") is None
    cases = {f"volume-{n}": f"volume-{n}" for n in range(118)}
    split = published_split("lits", cases, 0)
    assert [len(split.part(part)) for part in ("train", "val", "test")] == [83, 11, 24]
    assert published_split("lits", cases, 1) != split
    assert published_split("lits", cases | {"volume-118": "volume-118"}, 0) is None
    assert published_split("lits", cases | {"volume-117": "volume-116"}, 0) is None


def test_the_official_split_is_taken_where_all_its_cases_are_there():
    official = official_split("colon")
    cases = {case: case for case in (*official.train, *official.val, *official.test)}
    assert published_split("colon", cases, 5) == official
    assert published_split("colon", cases | {"further": "further"}, 0) == official
    del cases[official.test[0]]
    assert published_split("colon", cases, 0) is None
    one_patient = dict.fromkeys([official.train[0], official.test[0]], "x")
    assert published_split("colon", cases | one_patient, 0) is None
