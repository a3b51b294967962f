from pathlib import Path

import pytest

from clickvol.datasets.prepared import LabelledCase
from clickvol.errors import ConfigError
from clickvol.evaluation.cases import EvaluationData
from clickvol.evaluation.plan import EvaluationRequest, mask_file, plan_runs, settings_of
from clickvol.evaluation.protocol import read_protocol
from clickvol.evaluation.result_log import RunKey
from reference.evaluation_sets import Scripted

FOLDER = Path("report")


def data_of(*case_ids):
    cases = tuple(LabelledCase.model_construct(case_id=c, group=c, modality="CT") for c in case_ids)
    return EvaluationData("set", "hash", cases)


def request_of(protocol="clickvol", **words):
    numbers = {name: words.pop(name) for name in ("num_clicks", "seeds") if name in words}
    return EvaluationRequest(
        contestants=("a",), data=("set",), folder=FOLDER,
        protocol=read_protocol(protocol, **numbers), **words,
    )  # fmt: skip


def runs_of(request, **words):
    (case,) = plan_runs(request, [Scripted(None, **words)], [data_of("c")])
    return [
        (run.key.placement, run.key.seed, run.num_clicks, run.mask_file is not None) for _, run in case.runs
    ]


def test_every_user_has_a_run_and_the_first_one_s_mask_is_kept():
    assert runs_of(request_of(seeds=2)) == [
        ("random", 0, (1, 3, 5, 10), True),
        ("random", 1, (1, 3, 5, 10), False),
    ]


def test_robustness_adds_one_click_at_each_place():
    assert runs_of(request_of(seeds=2, robustness=True))[2:] == [
        ("centre", 0, (1,), False),  # nothing is random: one user is enough
        ("inside", 0, (1,), False),
        ("inside", 1, (1,), False),
        ("edge", 0, (1,), False),
        ("edge", 1, (1,), False),
        ("outside", 0, (1,), False),
        ("outside", 1, (1,), False),
    ]


def test_a_box_is_the_same_for_all_users():
    assert runs_of(request_of("cvpr2025", seeds=3)) == [("box", 0, (1, 2, 3, 4, 5, 6), True)]


def test_without_clicks_there_is_one_run():
    request = request_of(seeds=3, robustness=True)
    assert runs_of(request, takes_clicks=False) == [("none", 0, (0,), True)]


def test_cases_come_one_after_the_other_with_all_contestants():
    contestants = [Scripted(None, "a"), Scripted(None, "b")]
    cases = plan_runs(request_of(seeds=1), contestants, [data_of("c", "d"), data_of("e")])
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
    contestants, data = [Scripted(None)], [data_of("c")]
    first = settings_of(request_of(), contestants, data, "cpu")
    assert first["models"] == {"scripted": "scripted"}
    assert first["data"] == {"set": {"content_hash": "hash", "cases": ["c"]}}
    assert settings_of(request_of(reference="x", workers=4), contestants, data, "cpu") == first
    for changed in (
        settings_of(request_of(seeds=2), contestants, data, "cpu"),
        settings_of(request_of(robustness=True), contestants, data, "cpu"),
        settings_of(request_of(organ_mask="gt"), contestants, data, "cpu"),
        settings_of(request_of(), contestants, data, "cuda"),
        settings_of(request_of(), contestants, [data_of("c", "d")], "cpu"),
    ):
        assert changed != first


def test_an_organ_mask_is_named_in_the_settings_only_where_it_is_shown():
    settings = settings_of(request_of(), [], [], "cpu")
    assert "organ_mask" not in settings  # as in evaluations of versions without the choice
    assert settings_of(request_of(organ_mask="gt"), [], [], "cpu")["organ_mask"] == "gt"
    with pytest.raises(ConfigError, match="'file' to evaluate with; choose one of none, gt"):
        request_of(organ_mask="file")
