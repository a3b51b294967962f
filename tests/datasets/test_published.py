import pytest

from clickvol.datasets.published import (
    published_name_of,
    published_names,
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
    found = (known.clip_low_hu, known.clip_high_hu, known.mean_hu, known.deviation_hu)
    assert (*found, known.tumour_label, parts) == FACTS[name]
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
