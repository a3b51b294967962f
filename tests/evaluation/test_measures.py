import pytest

from clickvol.errors import ConfigError
from clickvol.evaluation.measures import measures_of, tolerances_of
from reference.click_scores import click_score

FINER = {"nsd": (0.25, 0.75), "nsd_tolerances_mm": (0.5, 3.0)}


def test_the_columns_follow_the_tolerances():
    names = [measure.name for measure in measures_of((0.5, 3.0))]
    assert names == [
        *("dice", "iou", "nsd_0.5mm", "nsd_3mm", "hd95_mm", "assd_mm"),
        *("volume_error_ml", "lesion_recall", "seconds"),
    ]


def test_each_measure_reads_its_own_number():
    score = click_score(dice=0.5, truth_ml=10.0, mask_ml=7.0, lesion_recall=0.25, seconds=0.5, **FINER)
    numbers = {measure.name: measure.read(score) for measure in measures_of((0.5, 3.0))}
    assert numbers == {
        "dice": 0.5,
        "iou": pytest.approx(1 / 3),
        "nsd_0.5mm": 0.25,
        "nsd_3mm": 0.75,
        "hd95_mm": 10.0,
        "assd_mm": 2.5,
        "volume_error_ml": 3.0,
        "lesion_recall": 0.25,
        "seconds": 0.5,
    }


def test_records_with_different_tolerances_are_not_put_together():
    assert tolerances_of([click_score(**FINER), click_score(case_id="b", **FINER)]) == (0.5, 3.0)
    with pytest.raises(ConfigError, match=r"at 1, 2, 5 mm and at 0\.5, 3 mm; report those of one"):
        tolerances_of([click_score(), click_score(case_id="b", **FINER)])
