"""`benchmarks/calibration.py`: the fit of a table with known answers, and the card that it writes."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from clickvol.weights.card import find_card, read_card

FOLDER = Path(__file__).parents[1] / "benchmarks"
COLUMNS = [
    "model",
    "group",
    "patient",
    "case",
    "object",
    "seed",
    "clicks",
    "head",
    "soft",
    "longest_mm",
    "dice",
]


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(FOLDER))
    yield runpy.run_path(str(FOLDER / "calibration.py"))
    sys.path.remove(str(FOLDER))


def table(*sets, patients=8, masks=5):
    """Masks of which a model says .3 to .9; their Dice is that and so much more, with a seeded rest."""
    rng, rows = np.random.default_rng(0), []
    for group, _, longest_mm, more in sets:
        for patient in range(patients):
            for said in rng.uniform(0.3, 0.9, masks):
                dice = np.clip(said + more + rng.normal(0, 0.02), 0, 1)
                name = f"{patient:03d}"
                rows.append(("model", group, name, "case", 1, 0, 1, np.nan, said, longest_mm, dice))
    rows = pd.DataFrame(rows, columns=COLUMNS)
    return rows.assign(said=rows["soft"], modality=rows["group"].map({g: m for g, m, *_ in sets}))


SETS = (
    ("Sarcoma_CT", "CT", 80.0, 0.05),
    ("LungNodule_CT", "CT", 12.0, -0.25),
    ("Sarcoma_MR", "MR", 60.0, 0.1),
)


def test_every_kind_gets_back_what_its_dice_is_more(script):
    curve = script["fitted"](table(*SETS))
    kinds = {(kind.modality, kind.from_mm): kind for kind in curve.kinds}
    assert set(kinds) == {("CT", 0.0), ("CT", 30.0), ("MR", 30.0)}
    for group, modality, longest_mm, more in SETS:
        known = curve.of(0.6, modality, longest_mm)
        assert known.dice == pytest.approx(0.6 + more, abs=0.04), group
        assert known.patients == 8
        assert known.interval[1] - known.interval[0] < 0.2
    assert curve.of(0.6, "MR", 10.0).patients == 0


def test_a_set_with_many_masks_counts_no_more_than_one_with_few(script):
    few, many = (table(SETS[0]), table(*SETS[1:], masks=5))
    more = pd.concat([few, *[many] * 6], ignore_index=True)
    one, other = script["fitted"](pd.concat([few, many], ignore_index=True)), script["fitted"](more)
    for kind, same in zip(one.kinds, other.kinds, strict=True):
        assert kind.shift == pytest.approx(same.shift, abs=0.01)


def test_two_patients_make_no_kind(script):
    assert script["fitted"](table(*SETS, patients=2)).kinds == []


def test_a_mask_is_judged_by_other_patients_alone(script):
    rows = table(*SETS)
    judged = script["judged"](rows)
    assert (judged["expected"] - judged["dice"]).abs().mean() < 0.06
    changed = rows.assign(dice=np.where(rows["patient"] == "003", 0.0, rows["dice"]))
    again = script["judged"](changed)
    same = judged["patient"].isin({"001", "003", "005", "007"})
    pd.testing.assert_series_equal(judged["expected"][same], again["expected"][same])
    assert (judged["expected"][~same] != again["expected"][~same]).any()


def test_a_table_becomes_a_report_a_picture_and_a_card(script, tmp_path, capsys):
    text = find_card("promise3d-small").read_text()
    card = tmp_path / "promise3d-small.json"
    card.write_text(text)
    (tmp_path / "promise3d-small.safetensors").write_bytes(b"")
    rows = table(*SETS).assign(model=str(card)).drop(columns=["said", "modality"])
    rows.to_csv(tmp_path / "said.csv", index=False)
    script["report"](tmp_path / "said.csv", tmp_path / "picture.png", writes_cards=True)
    assert f"{card}, Sarcoma_MR | 40 (8)" in capsys.readouterr().out
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    stored, before = json.loads(card.read_text()), json.loads(text)
    assert [kind.modality for kind in read_card(card).expected_dice.kinds] == ["CT", "CT", "MR"]
    assert stored | {"expected_dice": None} == before | {"expected_dice": None}


def test_a_card_without_the_field_gets_it(script, tmp_path):
    path = tmp_path / "card.json"
    path.write_text('{\n  "id": "x"\n}\n')
    script["write_card"](path, {"knots": []})
    assert json.loads(path.read_text()) == {"expected_dice": {"knots": []}, "id": "x"}


def test_few_scans_of_a_set_are_of_different_patients_and_sets_take_turns(script, tmp_path):
    folder = tmp_path / "LungNodule_CT" / "imagesTr"
    folder.mkdir(parents=True)
    names = [f"lidc_idri_{number:04d}_n0{n}" for number in range(7, 107, 10) for n in range(2)]
    names += ["lidc_idri_0012_n00"]  # trained on
    for name in names:
        (folder / f"{name}.nii.gz").touch()
    for n in ("008", "019", "020"):
        path = tmp_path / "Sarcoma_CT" / "imagesTr" / f"sts_{n}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    jobs = [(group, path.name.removesuffix(".nii.gz")) for group, path in script["jobs"](tmp_path, 3)]
    lung = [("LungNodule_CT", f"lidc_idri_{number:04d}_n00") for number in (7, 37, 67)]
    assert jobs == [("Sarcoma_CT", "sts_008"), lung[0], ("Sarcoma_CT", "sts_019"), lung[1], lung[2]]
    every = [path.name for _, path in script["jobs"](tmp_path, None)]
    assert len(every) == len(set(every)) == 2 + 20
    assert len(script["jobs"](tmp_path, 12)) == 2 + 12  # both scans of two patients
