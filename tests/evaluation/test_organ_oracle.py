"""An evaluation that shows the organ, from the command's words to its report."""

import json
from dataclasses import replace

import numpy as np
import pytest

from clickvol.datasets.preparation import PreparationPlan, prepare_data_set
from clickvol.errors import ConfigError
from clickvol.evaluation.protocol import read_protocol
from clickvol.evaluation.result_log import read_audit
from clickvol.evaluation.run import EvaluationRequest, run_evaluation
from clickvol.io.formats import write_volume
from clickvol.methods.tags import tags_recipe
from clickvol.report.page import command_of, report_evaluation
from reference.evaluation_sets import block_arrays, oblique_grid, write_raw, write_set
from reference.random_models import write_random_model


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Two cases with a tumour (2) in an organ (1), and one whose label holds the tumour alone."""
    image, tumour = block_arrays()
    both = tumour * 2
    both[1:9, 4:20, 4:20] = np.maximum(both[1:9, 4:20, 4:20], 1)
    arrays = {"a": (image, both), "b": (block_arrays(seed=1)[0], both), "bare": (image, tumour * 2)}
    folder = tmp_path_factory.mktemp("data") / "Organs"
    return write_set(folder, arrays, tumour_label=2)


@pytest.fixture(scope="module")
def tags_model(tmp_path_factory):
    return write_random_model(tags_recipe("clickvol", "tiny"), tmp_path_factory.mktemp("tags"))


@pytest.fixture(scope="module")
def request_for(prepared, tags_model, tmp_path_factory):
    request = EvaluationRequest(
        methods=(f"tags={tags_model}", "ball:8"),
        data=(str(prepared),),
        folder=tmp_path_factory.mktemp("reports") / "gt",
        protocol=read_protocol(num_clicks=(1,), seeds=1),
        organ_mask="gt",
        split="all",
        device="cpu",
    )
    return lambda **changes: replace(request, **changes)


@pytest.fixture(scope="module")
def shown(request_for):
    return run_evaluation(request_for())


def test_the_audit_and_the_settings_say_who_was_shown_an_oracle(shown):
    folder = shown.request.folder
    said = {(audit["model"], audit["oracle"]) for audit in read_audit(folder)}
    assert said == {
        ("tags", "organ and tumour as one mask from the label: an oracle"),
        ("ball 8 mm", None),
    }
    assert json.loads((folder / "settings.json").read_text())["organ_mask"] == "gt"


def test_a_label_with_the_tumour_alone_is_not_shown(shown):
    (skipped,) = shown.skipped
    assert skipped.case_id == "bare"
    assert "would be the answer" in skipped.reason
    assert set(shown.table["case_id"]) == {"a", "b"}


def test_the_organ_changes_the_answers_of_who_looks_at_it_and_no_click(shown, request_for):
    blind = run_evaluation(request_for(folder=shown.request.folder / "none", organ_mask="none"))
    assert not blind.skipped
    masks = {
        (r.model, r.case_id, kind): r.mask_ml
        for kind, result in (("gt", shown), ("none", blind))
        for r in result.table.itertuples()
    }
    assert masks["ball 8 mm", "a", "gt"] == masks["ball 8 mm", "a", "none"]
    assert masks["tags", "a", "gt"] != masks["tags", "a", "none"]
    audits = [read_audit(result.request.folder) for result in (shown, blind)]
    first, second = ({(a["model"], a["case_id"]): a["voxel_ijk"] for a in audit} for audit in audits)
    assert first.items() <= second.items()


def test_an_evaluation_with_the_organ_is_not_gone_on_with_without_it(shown, request_for):
    with pytest.raises(ConfigError, match="another organ_mask"):
        run_evaluation(request_for(organ_mask="none"))


def test_the_page_calls_it_an_oracle(shown):
    assert "--organ-mask gt" in command_of(shown.request)
    report_evaluation(shown)
    page = (shown.request.folder / "report.md").read_text()
    assert "- Organ masks: FROM THE LABELS, AN ORACLE: tags saw organ and tumour as one mask" in page


def test_what_has_no_organ_is_refused_before_anything_is_done(request_for, prepared, tmp_path):
    with pytest.raises(ConfigError, match="ball 8 mm look at no organ mask"):
        run_evaluation(request_for(methods=("ball:8",), folder=tmp_path / "r"))
    whole = tmp_path / "whole"
    write_set(whole, {"a": block_arrays()})
    with pytest.raises(ConfigError, match="the labels of whole tell no organ from the tumour"):
        run_evaluation(request_for(data=(str(whole),), folder=tmp_path / "r"))
    assert not (tmp_path / "r").exists()


def test_masks_that_the_set_was_prepared_with_are_shown_and_no_oracle(request_for, tags_model, tmp_path):
    image, tumour = block_arrays()
    raw = write_raw(tmp_path / "raw" / "Filed", {"a": (image, tumour)})
    organ = np.zeros(image.shape, np.uint8)
    organ[1:9, 4:20, 4:20] = 1
    (raw / "organs").mkdir()
    write_volume(organ, oblique_grid(image.shape), raw / "organs" / "a.nii.gz")
    words = {"kind": "msd", "source": raw, "destination": tmp_path / "Filed"}
    prepare_data_set(PreparationPlan(**words, organs="../organs/{case_id}.nii.gz"))
    request = request_for(data=(str(tmp_path / "Filed"),), organ_mask="file", folder=tmp_path / "file")
    filed = run_evaluation(request)
    blind = run_evaluation(replace(request, organ_mask="none", folder=tmp_path / "none"))
    masks = [one.table.set_index("model")["mask_ml"] for one in (filed, blind)]
    assert masks[0]["tags"] != masks[1]["tags"]
    assert masks[0]["ball 8 mm"] == masks[1]["ball 8 mm"]
    assert {audit["oracle"] for audit in read_audit(tmp_path / "file")} == {None}
    report_evaluation(filed)
    page = (tmp_path / "file" / "report.md").read_text()
    assert "Organ masks: tags saw those that the set was prepared with" in page
    without = write_set(tmp_path / "without", {"a": (image, tumour)})
    with pytest.raises(ConfigError, match="a of without has no organ mask; give a set that was prepared with"):
        run_evaluation(replace(request, data=(str(without),), folder=tmp_path / "r"))
