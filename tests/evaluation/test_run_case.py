import gc
from dataclasses import replace

import numpy as np
import pytest

from clickvol.errors import ClickError, ConfigError
from clickvol.evaluation.methods import Scan
from clickvol.evaluation.protocol import read_protocol
from clickvol.evaluation.records import RunKey
from clickvol.evaluation.run_case import ORGAN_ORACLE, EvaluationCase, Run, run_case
from clickvol.evaluation.simulated_user import Truth
from clickvol.io.formats import read_volume
from clickvol.io.volume import Mask, Volume
from reference.evaluation_sets import SHAPE, Scripted, block_arrays, oblique_grid

EMPTY = np.zeros(SHAPE, np.uint8)


@pytest.fixture
def label():
    return block_arrays()[1]


@pytest.fixture
def case(label):
    volume = Volume(block_arrays()[0], oblique_grid(), "CT", "/data/labels/case.nii.gz")
    return EvaluationCase(Scan.blind("set", "case", volume), Truth.of(label), "patient", "CT")


def plan_of(numbers=(1, 2, 3), placement="centre", seed=0, mask_file=None):
    key = RunKey("scripted", "set", "case", seed, placement or "none")
    return Run(key=key, placement=placement, num_clicks=numbers, mask_file=mask_file)


def run(case, answer, plan=None, protocol=None, **words):
    method = Scripted(answer, **words)
    outcome = run_case(method, case, plan or plan_of(), protocol or read_protocol())
    return method, outcome


def test_a_perfect_answer_has_perfect_scores_and_ends_the_clicking(case, label):
    method, outcome = run(case, lambda scan, clicks: label)
    assert [row["num_clicks"] for row in outcome.rows] == [1, 2, 3]
    assert [row["dice"] for row in outcome.rows] == [1.0] * 3
    assert [row["seconds"] for row in outcome.rows] == [0.25, 0.0, 0.0]
    assert len(method.asked) == 1
    assert len(outcome.clicks) == 1
    first = outcome.rows[0]
    names = {"model": "scripted", "data": "set", "case_id": "case", "group": "patient", "modality": "CT"}
    assert names.items() <= first.items()
    assert first["truth_ml"] == pytest.approx(400 * 3 * 1.5 * 1.5 / 1000)
    assert [first[f"nsd_{mm}mm"] for mm in (1, 2, 5)] == [1.0, 1.0, 1.0]
    assert first["failure"] is None


def test_clicks_are_given_one_by_one_and_the_scores_are_those_asked_for(case, label):
    half = label.copy()
    half[:, :, :11] = 0

    def answer(scan, clicks):
        return label if len(clicks) >= 3 else half

    method, outcome = run(case, answer, plan_of((2, 3)))
    assert [len(clicks) for clicks in method.asked] == [1, 2, 3]
    assert method.asked[1][:1] == method.asked[0]
    assert method.asked[2][:2] == method.asked[1]
    assert [row["num_clicks"] for row in outcome.rows] == [2, 3]
    assert outcome.rows[0]["dice"] == pytest.approx(2 * 200 / 600)
    assert outcome.rows[1]["dice"] == 1.0


def test_the_audit_says_everything_about_every_click(case, label):
    too_much = label.copy()
    too_much[8:, :, :] = 1
    _, outcome = run(case, lambda scan, clicks: too_much, plan_of((1, 2)))
    first, second = outcome.clicks
    assert (first["click"], first["foreground"], first["region_voxels"]) == (1, True, 400)
    assert first["drawn_from"] == "centre of the largest part of the tumour"
    assert first["label_sha256"] == Truth.of(label).sha256
    assert (second["click"], second["foreground"]) == (2, False)
    assert second["region_voxels"] == 2 * 24 * 24
    assert second["drawn_from"] == "centre of the largest part beside the tumour"
    i, j, k = second["voxel_ijk"]
    assert k in (8, 9)
    world = second["world_ras_mm"]
    assert world == pytest.approx((30 - 1.5 * i, -20 - 1.5 * j, 100 - 3.0 * k))
    assert (second["model"], second["case_id"], second["seed"]) == ("scripted", "case", 0)


def test_an_error_is_a_failure_with_the_scores_of_an_empty_mask(case, label):
    def answer(scan, clicks):
        if len(clicks) == 1:
            raise ClickError("out of\nluck")
        if len(clicks) == 2:
            raise MemoryError
        return label

    method, outcome = run(case, answer)
    assert [r["failure"] for r in outcome.rows] == ["out of luck", "MemoryError", None]
    assert [r["dice"] for r in outcome.rows] == [0.0, 0.0, 1.0]
    assert outcome.rows[0]["nsd_5mm"] == 0.0
    assert outcome.rows[0]["hd95_mm"] is None
    assert outcome.rows[0]["mask_ml"] == 0.0
    assert outcome.clicks[1]["foreground"]  # the user goes on from an empty mask
    assert len(method.asked) == 3


@pytest.mark.parametrize(
    ("mask", "words"),
    [(EMPTY, "the mask is empty"), (EMPTY[:-1], "a mask of shape")],
)
def test_no_mask_is_a_failure(case, mask, words):
    _, outcome = run(case, lambda scan, clicks: mask, plan_of((1,)))
    assert words in outcome.rows[0]["failure"]


def test_an_answer_after_the_time_limit_is_a_failure(case, label):
    protocol = read_protocol("cvpr2025")
    plan = plan_of((1,), "box")
    _, slow = run(case, lambda scan, clicks: label, plan, protocol, seconds=91.0)
    assert slow.rows[0]["failure"] == "took 91.0 s, the protocol allows 90 s"
    assert slow.rows[0]["dice"] == 0.0
    assert slow.rows[0]["seconds"] == 91.0
    _, in_time = run(case, lambda scan, clicks: label, plan, protocol, seconds=90.0)
    assert in_time.rows[0]["dice"] == 1.0


def test_a_method_that_cannot_be_asked_stops_the_evaluation(case):
    def answer(scan, clicks):
        raise ConfigError("on another grid")

    with pytest.raises(ConfigError, match="on another grid"):
        run(case, answer)


def test_published_clicks_are_answered_all_at_once(case, label):
    protocol = read_protocol("tags")
    method, outcome = run(case, lambda s, c: label, plan_of((1, 3, 10), "random"), protocol)
    assert [len(clicks) for clicks in method.asked] == [1, 3, 10]
    assert len(outcome.clicks) == 10
    assert all(click["foreground"] for click in outcome.clicks)
    assert method.asked[2][:3] == method.asked[1]


def test_a_box_is_a_click_and_cuts_the_mask(case, label):
    plan = plan_of((1, 2), "box")
    everything = np.ones(SHAPE, np.uint8)
    method, outcome = run(case, lambda s, c: everything, plan, read_protocol("cvpr2025"))
    # 400 voxels; the box grows by 2 rows and 3 columns on each side.
    assert outcome.rows[0]["dice"] == pytest.approx(2 * 400 / (400 + 5 * 12 * 16))
    assert outcome.clicks[0]["drawn_from"] == "centre of the box"
    assert not outcome.clicks[1]["foreground"]
    assert len(method.asked) == 2


def test_without_clicks_there_is_one_record_and_no_audit(case, label):
    method, outcome = run(case, lambda s, c: label, plan_of((0,), None), takes_clicks=False)
    assert method.asked == [()]
    assert [(r["num_clicks"], r["placement"], r["dice"]) for r in outcome.rows] == [(0, "none", 1.0)]
    assert outcome.clicks == ()


def test_a_first_click_that_has_no_place_is_a_failure(case):
    full = EvaluationCase(case.scan, Truth.of(np.ones(SHAPE)), "patient", "CT")
    method, outcome = run(full, lambda s, c: EMPTY, plan_of((1, 3), "outside"))
    assert method.asked == []
    assert ["choose another placement" in r["failure"] for r in outcome.rows] == [True, True]


def test_the_last_mask_is_kept_on_the_grid_of_the_scan(case, label, tmp_path):
    file = tmp_path / "masks" / "case.nii.gz"
    run(case, lambda s, c: label, plan_of((1,), mask_file=file))
    kept = read_volume(file)
    assert np.array_equal(kept.array, label)
    assert np.allclose(kept.grid.affine_ras_mm, case.scan.volume.grid.affine_ras_mm)


def test_a_method_that_looks_everywhere_finds_no_label(case, label):
    """Walk everything that can be reached from what a method is given."""
    seen = {}

    def answer(scan, clicks):
        queue = [scan, clicks]
        while queue:
            thing = queue.pop()
            if id(thing) in seen or isinstance(thing, type) or callable(thing):
                continue
            seen[id(thing)] = thing
            queue += gc.get_referents(thing)
        return EMPTY

    run(case, answer, plan_of((1,)))
    arrays = [thing for thing in seen.values() if isinstance(thing, np.ndarray)]
    texts = [thing for thing in seen.values() if isinstance(thing, str)]
    assert any(array.shape == SHAPE for array in arrays)  # the walk saw the scan
    assert not any(array.shape == SHAPE and np.array_equal(array, label) for array in arrays)
    assert not any("labels" in text for text in texts)
    assert not any(isinstance(thing, Truth | EvaluationCase) for thing in seen.values())


def test_only_who_takes_an_organ_is_shown_it_and_the_audit_says_so(case, label):
    organ = Mask(np.ones(SHAPE, np.uint8), case.scan.volume.grid)
    case = replace(case, scan_with_organ=replace(case.scan, organ=organ), oracle=ORGAN_ORACLE)
    blind, outcome = run(case, lambda scan, clicks: label)
    assert [scan.organ for scan in blind.scans] == [None]
    assert [audit["oracle"] for audit in outcome.clicks] == [None]
    shown, outcome = run(case, lambda scan, clicks: label, takes_organ_mask=True)
    assert [scan.organ for scan in shown.scans] == [organ]
    assert [audit["oracle"] for audit in outcome.clicks] == [
        "organ and tumour as one mask from the label: an oracle"
    ]
    from_a_file, outcome = run(replace(case, oracle=None), lambda scan, clicks: label, takes_organ_mask=True)
    assert [scan.organ for scan in from_a_file.scans] == [organ]
    assert [audit["oracle"] for audit in outcome.clicks] == [None]


def test_where_no_organ_is_shown_nobody_sees_one(case, label):
    method, outcome = run(case, lambda scan, clicks: label, takes_organ_mask=True)
    assert method.scans == [case.scan]
    assert [audit["oracle"] for audit in outcome.clicks] == [None]
