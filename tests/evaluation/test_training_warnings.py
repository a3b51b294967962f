"""Who scores a model on what it was trained on is told so."""

import hashlib
import json
from pathlib import Path

import pytest

from clickvol.cli.app import main
from clickvol.evaluation.protocol import read_protocol
from clickvol.evaluation.run import EvaluationRequest, run_evaluation
from clickvol.report.page import report_evaluation
from clickvol.training.run import train_from_config
from clickvol.weights.card import read_card
from reference.evaluation_sets import block_arrays, write_phantoms, write_set
from reference.studies import write_study

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A network trained on case_000 of four phantoms, and the prepared set."""
    folder = tmp_path_factory.mktemp("trained")
    study = write_study(folder / "study")
    cases = [f"case_{n:03d}" for n in range(4)]
    (folder / "splits.json").write_text(
        json.dumps([{"train": cases[:1], "val": cases[1:2], "test": cases[2:]}])
    )
    write_phantoms(folder / "data" / "Lumps", count=4, write=_with_splits(folder / "splits.json"))
    overrides = [
        f"data.root={json.dumps(str(folder / 'data'))}",
        'data.folders=[{path="Lumps", modality="CT", source="me"}]',
        f"run.folder={json.dumps(str(folder / 'run'))}",
    ]
    card = train_from_config(study.path.parent / "lump-clicked.toml", overrides, max_steps=1)
    return card, folder / "data" / "Lumps"


def _with_splits(path):
    return lambda folder, cases, grid: write_set(folder, cases, grid=grid, splits=path)


def evaluated(card, prepared, folder, **changes):
    words = {"protocol": read_protocol(num_clicks=(1,), seeds=1), "device": "cpu"}
    return run_evaluation(
        EvaluationRequest(
            methods=(f"net={card}", "ball:20"), data=(str(prepared),), folder=folder, **words | changes
        )
    )


def test_the_card_knows_the_training_scans_without_their_names(trained):
    card = read_card(trained[0])
    assert len(card.training_scans) == len(card.training_patients) == 1
    assert "case_000" not in card.model_dump_json()


def test_scores_on_training_scans_come_with_a_warning_and_others_without(trained, tmp_path):
    card, prepared = trained
    report = evaluated(card, prepared, tmp_path / "all", split="all")
    assert report.warnings == (
        "net was trained on 1 of the 4 scans of Lumps: its scores there say little about new patients",
    )
    report_evaluation(report)
    assert f"- WARNING: {report.warnings[0]}." in (tmp_path / "all" / "report.md").read_text()
    assert evaluated(card, prepared, tmp_path / "test").warnings == ()


def test_other_scans_of_patients_of_the_same_id_are_told_as_such(trained, tmp_path):
    card, _ = trained
    other = write_set(tmp_path / "Other", {"case_000": block_arrays(), "case_009": block_arrays(seed=1)})
    (warning,) = evaluated(card, other, tmp_path / "report", split="all").warnings
    assert warning.startswith(
        "net was trained on patients with the ids of 1 of the 2 scans of Other; if they are"
    )


def test_the_command_prints_it(trained, tmp_path, capsys):
    card, prepared = trained
    words = ["evaluate", f"net={card}", "--data", str(prepared), "--split", "train", "-o", str(tmp_path / "r")]
    assert main([*words, "--clicks", "1", "--seeds", "1", "--device", "cpu"]) == 0
    assert "warning: net was trained on 1 of the 1 scans of Lumps" in capsys.readouterr().err


@pytest.mark.parametrize("model", ["promise3d-small", "promise3d-lesions"])
def test_the_shipped_models_know_the_patients_they_were_trained_on(model):
    marks = {*read_card(model).training_patients}
    folds = json.loads((ROOT / "configs" / "splits" / "sarcoma.json").read_text())
    known = {name: {hashlib.sha256(c.encode()).hexdigest()[:16] for c in folds[0][name]} for name in folds[0]}
    assert known["train"] <= marks
    assert not marks & known["test"]
    if model == "promise3d-small":
        assert marks == known["train"]
        assert len(read_card(model).training_scans) == 2 * len(marks)


@pytest.mark.parametrize(
    ("data", "trained", "left_out"),
    [
        ("LungNodule_CT", "lidc_idri_0001_n00", "lidc_idri_0127_n00"),
        ("HeadNeckOrgans_CT", "kbp_004", "kbp_027"),
        ("Sarcoma_PET", "sts_001", "sts_008"),
    ],
)
def test_the_model_for_lesions_knows_its_other_scans_too(data, trained, left_out):
    folder = ROOT.parent / "shared" / "data" / data / "imagesTr"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here")
    marks = {*read_card("promise3d-lesions").training_scans}
    is_known = [
        hashlib.sha256((folder / f"{name}.nii.gz").read_bytes()).hexdigest()[:16] in marks
        for name in (trained, left_out)
    ]
    assert is_known == [True, False]
