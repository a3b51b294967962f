"""What becomes of the Dice that a model predicts: exact numbers, ends, cards of before."""

import json

import pytest

from clickvol.errors import DamagedWeightsError
from clickvol.weights.card import find_card, list_cards, read_card
from clickvol.weights.expected_dice import DiceEstimate, ExpectedDice, MeasuredKind

SMALL = MeasuredKind(modality="CT", below_mm=30, shift=-0.2, spread=(-0.3, 0.1), patients=34)
LARGE = MeasuredKind(modality="CT", from_mm=30, shift=0.3, spread=(-0.1, 0.2), patients=6)
CURVE = ExpectedDice(knots=[(0.2, 0.1), (0.8, 0.7)], spread=(-0.4, 0.4), kinds=[SMALL, LARGE])


@pytest.mark.parametrize(
    ("said", "modality", "longest_mm", "dice", "interval", "patients"),
    [
        (0.5, "CT", 30.0, 0.7, (0.6, 0.9), 6),
        (0.5, "CT", 29.9, 0.2, (0.0, 0.3), 34),  # no Dice is below 0
        (0.0, "CT", 10.0, 0.0, (0.0, 0.1), 34),  # nor expected below it
        (0.9, "CT", 90.0, 1.0, (0.9, 1.0), 6),
        (0.5, "MR", 90.0, 0.4, (0.0, 0.8), 0),  # of all masks
        (0.9, "other", 90.0, 0.7, (0.3, 1.0), 0),
    ],
)
def test_a_kind_shifts_the_curve_and_has_an_interval_of_its_own(
    said, modality, longest_mm, dice, interval, patients
):
    known = CURVE.of(said, modality, longest_mm)
    assert (known.dice, *known.interval) == pytest.approx((dice, *interval))
    assert known.patients == patients


def test_an_estimate_says_in_words_what_it_rests_on():
    assert str(DiceEstimate(0.7, (0.6, 0.9), 6)) == "0.70 (0.60 to 0.90; 6 patients)"
    assert str(DiceEstimate(0.4, (0.0, 0.8), 0)) == "0.40 (0.00 to 0.80; few comparable masks)"
    assert str(DiceEstimate(0.4)) == "0.40"


def test_a_card_with_knots_alone_is_read_as_before(tmp_path):
    path = find_card("promise3d-small")
    stored = json.loads(path.read_text()) | {"expected_dice": [[0.2, 0.1], [0.8, 0.9]]}
    old = tmp_path / path.name
    old.write_text(json.dumps(stored))
    (tmp_path / stored["weights_file"]).write_bytes(b"")
    curve = read_card(old).expected_dice
    assert [curve.of(said, "MR", 50.0) for said in (0.0, 0.2, 0.9)] == [
        DiceEstimate(pytest.approx(dice)) for dice in (0.1, 0.1, 0.9)
    ]
    old.write_text(json.dumps(stored | {"expected_dice": {"knots": [[0.2, 0.1]], "kind": []}}))
    with pytest.raises(DamagedWeightsError, match="is not a model card"):
        read_card(old)


def test_curves_that_ship_rise_and_hold_their_value_in_the_interval():
    curves = [card.expected_dice for card in list_cards() if card.expected_dice is not None]
    assert curves
    for curve in curves:
        said, dices = zip(*curve.knots, strict=True)
        assert list(said) == sorted(said)
        assert list(dices) == sorted(dices)
        for low, high in filter(None, (curve.spread, *(kind.spread for kind in curve.kinds))):
            assert low <= 0 <= high
