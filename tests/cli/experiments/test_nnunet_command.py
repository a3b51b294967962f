"""`clickvol nnunet` against a stand-in for nnU-Net: what it prints, and how it fails."""

import json
import sys
from pathlib import Path

import nibabel
import pytest

from clickvol.bridges.nnunet_environment import NNUNET_VERSION
from reference.nnunet_venv import make_stand_in
from reference.prepared_sets import prepare_lesions


@pytest.fixture
def data(tmp_path):
    prepare_lesions(tmp_path)
    return (tmp_path / "prepared").rename(tmp_path / "data")


@pytest.fixture
def venv(tmp_path):
    return make_stand_in(tmp_path / "venv")


def test_a_run_says_where_the_masks_are_and_how_they_are_scored(run, data, venv, tmp_path):
    out = tmp_path / "out"
    words = ("nnunet", "run", "--data", data, "--venv", venv, "-o", out, "--epochs", 2)
    outcome = run(*words, "--iterations-per-epoch", 3)
    assert outcome.err == ""
    assert outcome.code == 0
    first, second = outcome.out.splitlines()
    assert first == f"2 masks in {out / 'predictions'}; score them with"
    assert second == f"  clickvol evaluate predictions:{out / 'predictions'} --data {data} -o REPORT"
    assert nibabel.load(out / "predictions" / "case_3.nii.gz").shape == (6, 5, 4)
    settings = json.loads((out / "run.json").read_text())
    assert (settings["epochs"], settings["iterations_per_epoch"]) == (2, 3)
    assert settings["nnunetv2"] == NNUNET_VERSION


def test_a_relative_folder_will_do(run, data, venv, tmp_path, monkeypatch):
    """nnU-Net is given absolute paths."""
    monkeypatch.chdir(tmp_path)
    assert run("nnunet", "run", "--data", "data", "--venv", "venv", "-o", "out").code == 0
    assert (tmp_path / "out" / "predictions" / "case_3.nii.gz").is_file()


def test_setup_says_what_is_there(run, venv):
    outcome = run("nnunet", "setup", "--venv", venv)
    assert outcome.code == 0
    assert outcome.out == f"{venv}: nnunetv2 {NNUNET_VERSION}, torch 2.13.0+cpu, no GPU\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"--venv": "nowhere"},
            "nowhere is not a virtual environment; make it with clickvol nnunet",
        ),
        ({"--data": "."}, ". is not a prepared data set: prepared.json is missing"),
        ({"--device": "cuda"}, "sees no GPU; use --device cpu"),
        ({"--configuration": "4d"}, "nnU-Net's configuration '4d' is not known"),
        ({"--epochs": "0"}, "epochs is 0"),
        ({"--fold": "2"}, "has no fold 2"),
    ],
)
def test_a_mistake_is_one_line(run, data, venv, tmp_path, monkeypatch, change, message):
    monkeypatch.chdir(tmp_path)
    options = {"--data": "data", "--venv": "venv", "-o": "out"} | change
    outcome = run("nnunet", "run", *[word for option in options.items() for word in option])
    assert outcome.code == 2
    assert outcome.err.startswith("error: ")
    assert len(outcome.err.splitlines()) == 1
    assert message in outcome.err


def test_ours_is_no_place_for_nnunet(run):
    outcome = run("nnunet", "setup", "--venv", sys.prefix)
    assert outcome.code == 2
    assert "in the environment that runs clickvol" in outcome.err


def test_offline_and_missing_pip_says_so(run, tmp_path, monkeypatch):
    """A real environment, in which pip may reach no index: it fails at once, with the place of the log."""
    monkeypatch.setenv("CLICKVOL_OFFLINE", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    folder = tmp_path / "new"
    outcome = run("nnunet", "setup", "--venv", folder)
    assert outcome.code == 2
    assert outcome.err.startswith("error: pip failed: ERROR: No matching distribution found for torch")
    assert "--no-index" in (folder / "clickvol-setup.log").read_text()
    assert Path(sys.prefix).resolve() not in (folder / "bin" / "python").parents
