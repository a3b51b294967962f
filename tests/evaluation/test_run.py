import json
from pathlib import Path

import pandas as pd
import pytest

from clickvol.datasets.prepared import LabelledCase
from clickvol.errors import ConfigError
from clickvol.evaluation import run
from clickvol.evaluation.cases import EvaluationData
from clickvol.evaluation.protocol import read_protocol
from clickvol.evaluation.records import RunKey
from clickvol.evaluation.result_log import read_audit
from clickvol.evaluation.run import EvaluationRequest, mask_file, plan_jobs, run_evaluation
from clickvol.files.lock import only_process_in
from clickvol.io.formats import read_volume, write_volume
from reference.evaluation_sets import Scripted, block_arrays, oblique_grid, write_set


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    cases = {f"case_{seed}": block_arrays(seed=seed) for seed in range(3)}
    return write_set(tmp_path_factory.mktemp("data") / "blocks", cases)


def request_of(folder, report, **words):
    return EvaluationRequest(
        **{
            "methods": ("ball:8", "region-growing"),
            "data": (str(folder),),
            "folder": report,
            "protocol": read_protocol(num_clicks=(1, 2), seeds=2),
            "split": "all",
            "device": "cpu",
        }
        | words
    )


def assert_same_but_for_seconds(table, other):
    pd.testing.assert_frame_equal(table.drop(columns="seconds"), other.drop(columns="seconds"))


def test_every_method_case_user_and_number_of_clicks_has_a_record(folder, tmp_path):
    seen = []
    result = run_evaluation(request_of(folder, tmp_path / "r"), on_progress=lambda *now: seen.append(now))
    columns = ["model", "case_id", "seed", "num_clicks"]
    keys = list(result.table[columns].itertuples(index=False, name=None))
    assert set(keys) == {
        (model, f"case_{case}", seed, number)
        for model in ("ball 8 mm", "region growing")
        for case in range(3)
        for seed in range(2)
        for number in (1, 2)
    }
    assert len(set(keys)) == len(keys)
    assert [now[:2] for now in seen] == [(done, 12) for done in range(13)]
    assert seen[-1][2] == "blocks case_2 region growing"
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "r" / "scores.parquet"), result.table)
    assert len(read_audit(tmp_path / "r")) == 24
    masks = sorted(p.relative_to(tmp_path / "r/masks") for p in (tmp_path / "r/masks").rglob("*.gz"))
    assert len(masks) == 6
    last = result.table.iloc[keys.index(("ball 8 mm", "case_0", 0, 2))]
    kept = read_volume(tmp_path / "r/masks/ball 8 mm/blocks/case_0.nii.gz")
    assert kept.array.sum() * 3 * 1.5 * 1.5 / 1000 == pytest.approx(last.mask_ml)


def test_all_methods_get_the_same_first_click(folder, tmp_path):
    run_evaluation(request_of(folder, tmp_path / "r"))
    first = {}
    for audit in read_audit(tmp_path / "r"):
        if audit["click"] == 1:
            first.setdefault((audit["case_id"], audit["seed"]), set()).add(tuple(audit["voxel_ijk"]))
    assert all(len(places) == 1 for places in first.values())
    assert len(set.union(*first.values())) > 1


def test_an_interrupted_evaluation_goes_on_and_ends_the_same(folder, tmp_path, monkeypatch):
    whole = run_evaluation(request_of(folder, tmp_path / "whole"))
    asked = []
    run_case = run.run_case

    def run_until(*words):
        if len(asked) == 5:
            raise KeyboardInterrupt
        asked.append(words)
        return run_case(*words)

    monkeypatch.setattr(run, "run_case", run_until)
    with pytest.raises(KeyboardInterrupt):
        run_evaluation(request_of(folder, tmp_path / "parts"))
    asked.clear()
    monkeypatch.setattr(run, "run_case", lambda *words: asked.append(words) or run_case(*words))
    seen = []
    parts = run_evaluation(request_of(folder, tmp_path / "parts"), on_progress=lambda *now: seen.append(now))
    assert len(asked) == 7
    assert seen[0][:2] == (5, 12)
    assert_same_but_for_seconds(parts.table, whole.table)
    asked.clear()
    again = run_evaluation(request_of(folder, tmp_path / "parts"))
    assert asked == []
    pd.testing.assert_frame_equal(again.table, parts.table)


@pytest.mark.slow
def test_several_processes_find_the_same(folder, tmp_path):
    one = run_evaluation(request_of(folder, tmp_path / "one"))
    two = run_evaluation(request_of(folder, tmp_path / "two", workers=2))
    assert_same_but_for_seconds(two.table, one.table)
    audits = [(tmp_path / name / "audit.jsonl").read_text().splitlines() for name in ("one", "two")]
    assert sorted(audits[0]) == sorted(audits[1])  # in the order in which cases were done


def test_other_settings_and_a_folder_in_use_are_refused(folder, tmp_path):
    report = tmp_path / "r"
    run_evaluation(request_of(folder, report, limit=1))
    with pytest.raises(ConfigError, match="another data"):
        run_evaluation(request_of(folder, report, limit=2))
    with pytest.raises(ConfigError, match="another models"):
        run_evaluation(request_of(folder, report, limit=1, methods=("ball:9",)))
    with only_process_in(report), pytest.raises(ConfigError, match="another process is working"):
        run_evaluation(request_of(folder, report, limit=1))


def test_an_unknown_reference_is_refused_before_anything_is_done(folder, tmp_path):
    with pytest.raises(ConfigError, match="choose one of ball 8 mm, region growing"):
        run_evaluation(request_of(folder, tmp_path / "r", reference="nobody"))
    assert not (tmp_path / "r").exists()


def test_cases_that_cannot_be_read_are_listed(tmp_path):
    names = ("good", "torn", "gone")
    folder = write_set(tmp_path / "blocks", {n: block_arrays(seed=i) for i, n in enumerate(names)})
    torn = folder / "cases" / "torn.native_image.nii.gz"
    content = torn.read_bytes()
    torn.unlink()
    torn.write_bytes(content[:-200])
    (folder / "cases" / "gone.native_label.nii.gz").unlink()
    seen = []
    evaluated = run_evaluation(request_of(folder, tmp_path / "r"), on_progress=lambda *now: seen.append(now))
    assert set(evaluated.table["case_id"]) == {"good"}
    reasons = {case.case_id: case.reason for case in evaluated.skipped}
    assert "is not the file that was prepared" in reasons["torn"]
    assert "is missing" in reasons["gone"]
    assert seen[-1][:2] == (12, 12)
    listed = json.loads((tmp_path / "r" / "not_evaluated.json").read_text())
    assert {entry["case_id"]: entry["reason"] for entry in listed} == reasons


def test_masks_of_another_program_are_scored_with_and_without_a_click(folder, tmp_path):
    predictions = tmp_path / "nnU-Net"
    predictions.mkdir()
    _, label = block_arrays()
    wrong = label.copy()
    wrong[8:, 20:, 20:] = 1
    for case, mask in enumerate((label, wrong)):
        write_volume(mask, oblique_grid(), predictions / f"case_{case}.nii.gz")
    words = (f"predictions:{predictions}",)
    result = run_evaluation(request_of(folder, tmp_path / "r", methods=words))
    rows = result.table[result.table["seed"] == 0].astype({"failure": object}).itertuples()
    dice = {(r.model, r.case_id, r.num_clicks): (r.dice, r.failure if r.dice < 0.5 else None) for r in rows}
    assert dice["nnU-Net", "case_0", 0] == (1.0, None)
    assert dice["nnU-Net", "case_1", 0] == (pytest.approx(2 * 400 / (800 + 32)), None)
    assert dice["nnU-Net + click", "case_1", 1] == (1.0, None)
    assert dice["nnU-Net", "case_2", 0] == (0.0, "there is no mask of case_2 among the predictions")
    assert (result.table["model"] == "nnU-Net").sum() == 3


FOLDER = Path("report")


def data_of(*case_ids):
    cases = tuple(LabelledCase.model_construct(case_id=c, group=c, modality="CT") for c in case_ids)
    return EvaluationData("set", "hash", cases)


def plan_request(protocol="clickvol", **words):
    numbers = {name: words.pop(name) for name in ("num_clicks", "seeds") if name in words}
    return EvaluationRequest(
        methods=("a",), data=("set",), folder=FOLDER,
        protocol=read_protocol(protocol, **numbers), **words,
    )  # fmt: skip


def runs_of(request, **words):
    (case,) = plan_jobs(request, [Scripted(None, **words)], [data_of("c")])
    return [
        (run.key.placement, run.key.seed, run.num_clicks, run.mask_file is not None) for _, run in case.runs
    ]


def test_every_user_has_a_run_and_the_first_one_s_mask_is_kept():
    assert runs_of(plan_request(seeds=2)) == [
        ("random", 0, (1, 3, 5, 10), True),
        ("random", 1, (1, 3, 5, 10), False),
    ]


def test_robustness_adds_one_click_at_each_place():
    assert runs_of(plan_request(seeds=2, robustness=True))[2:] == [
        ("centre", 0, (1,), False),  # nothing is random: one user is enough
        ("inside", 0, (1,), False),
        ("inside", 1, (1,), False),
        ("edge", 0, (1,), False),
        ("edge", 1, (1,), False),
        ("outside", 0, (1,), False),
        ("outside", 1, (1,), False),
    ]


def test_a_box_is_the_same_for_all_users():
    assert runs_of(plan_request("cvpr2025", seeds=3)) == [("box", 0, (1, 2, 3, 4, 5, 6), True)]


def test_without_clicks_there_is_one_run():
    request = plan_request(seeds=3, robustness=True)
    assert runs_of(request, takes_clicks=False) == [("none", 0, (0,), True)]


def test_cases_come_one_after_the_other_with_all_methods():
    methods = [Scripted(None, "a"), Scripted(None, "b")]
    cases = plan_jobs(plan_request(seeds=1), methods, [data_of("c", "d"), data_of("e")])
    order = [(case.data_index, case.case_index, index) for case in cases for index, _ in case.runs]
    assert order == [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1), (1, 0, 0), (1, 0, 1)]


@pytest.mark.parametrize(
    ("model", "name"),
    [("ball 50 mm", "ball 50 mm"), ("a/b", "a%2Fb"), ("..", "%2E%2E"), ("nnU-Net", "nnU-Net")],
)
def test_every_name_makes_a_folder_of_its_own(model, name):
    key = RunKey(model, "set", "case", 0, "random")
    assert mask_file(FOLDER, key) == FOLDER / "masks" / name / "set" / "case.nii.gz"


def test_settings_are_what_decides_the_results():
    methods, data = [Scripted(None)], [data_of("c")]
    first = run._settings(plan_request(), methods, data, "cpu")
    assert first["models"] == {"scripted": "scripted"}
    assert first["data"] == {"set": {"content_hash": "hash", "cases": ["c"]}}
    assert run._settings(plan_request(reference="x", workers=4), methods, data, "cpu") == first
    for changed in (
        run._settings(plan_request(seeds=2), methods, data, "cpu"),
        run._settings(plan_request(robustness=True), methods, data, "cpu"),
        run._settings(plan_request(organ_mask="gt"), methods, data, "cpu"),
        run._settings(plan_request(), methods, data, "cuda"),
        run._settings(plan_request(), methods, [data_of("c", "d")], "cpu"),
    ):
        assert changed != first


def test_an_organ_mask_is_named_in_the_settings_only_where_it_is_shown():
    settings = run._settings(plan_request(), [], [], "cpu")
    assert "organ_mask" not in settings  # as in evaluations of versions without the choice
    assert run._settings(plan_request(organ_mask="gt"), [], [], "cpu")["organ_mask"] == "gt"
    with pytest.raises(ConfigError, match="'guess' to evaluate with; choose one of none, file, gt"):
        plan_request(organ_mask="guess")
