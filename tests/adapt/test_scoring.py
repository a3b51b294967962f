import numpy as np
import pytest

from clickvol.adapt.cases import CaseObjects
from clickvol.adapt.scoring import Comparison, Score, as_content, chosen_objects, from_content
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.volume import Volume


def scores(*dice, patients="abc"):
    return tuple(
        Score(f"c{n}", p, 1, (one, three))
        for n, (p, (one, three)) in enumerate(zip(patients, dice, strict=False))
    )


def test_patients_count_alike_however_many_objects_they_have():
    known = Comparison(
        scores((0.2, 0.5), (0.4, 0.5), (0.9, 0.9), patients="aab"),
        scores((1, 1), (1, 1), (1, 1), patients="aab"),
    )
    assert known.mean(known.before, 0) == pytest.approx((0.3 + 0.9) / 2)
    assert known.gain(1) == pytest.approx(1 - 0.7)


@pytest.mark.parametrize(
    ("before", "after", "better"),
    [
        ((0.4, 0.6), (0.5, 0.6), True),
        ((0.4, 0.6), (0.405, 0.7), False),
        ((0.4, 0.6), (0.5, 0.58), False),
        ((0.4, 0.6), (0.5, 0.595), True),
    ],
)
def test_better_is_more_with_one_click_and_no_less_with_three(before, after, better):
    assert Comparison(scores(*[before] * 3), scores(*[after] * 3)).is_better is better


def test_the_table_has_a_row_per_number_of_clicks_and_per_object():
    rows = Comparison(scores((0.2, 0.5), (0.4, 0.5)), scores((0.3, 0.6), (0.3, 0.6))).rows()
    assert (rows[0]["clicks"], rows[0]["objects_better"], rows[0]["objects"], rows[0]["patients"]) == (
        1,
        1,
        2,
        2,
    )
    assert (rows[1]["clicks"], rows[1]["mean_dice_after"]) == (3, 0.6)
    assert rows[2] == {
        "case": "c0", "object": 1,
        "dice_1_before": 0.2, "dice_1_after": 0.3, "dice_3_before": 0.5, "dice_3_after": 0.6,
    }  # fmt: skip


def test_what_was_lost_elsewhere_is_a_row_and_a_sentence():
    before, after = scores((0.8,) * 2, (0.6,) * 2), scores((0.2,) * 2, (0.3,) * 2)
    known = Comparison.of(before, after[::-1])
    assert known.after == after
    assert known.row_elsewhere() == {
        "elsewhere": "2 synthetic tumours of 20 to 150 mm, one random click",
        "mean_dice_before": 0.7,
        "mean_dice_after": 0.25,
    }
    assert "mean Dice went from 0.700 to 0.250" in known.loss_elsewhere()


def test_scores_survive_as_plain_values():
    known = scores((0.2, 0.5), (0.4, 0.5))
    assert from_content(as_content(known)) == known


def test_objects_are_chosen_patient_by_patient():
    volume = Volume(np.zeros((2, 2, 2), np.float32), VolumeGrid.axial((2, 2, 2), (1, 1, 1)), "CT")
    cases = [
        CaseObjects(name, patient, volume, np.zeros((2, 2, 2), np.uint8), lengths)
        for name, patient, lengths in (("a1", "a", (9.0, 5.0)), ("a2", "a", (7.0,)), ("b", "b", (3.0,)))
    ]
    names = [[(o.case.case_id, o.number) for o in chosen_objects(cases, count)] for count in (2, 3, 9)]
    assert names[0] == [("a1", 1), ("b", 1)]
    assert names[1] == [("a1", 1), ("a2", 1), ("b", 1)]
    assert len(names[2]) == 4
