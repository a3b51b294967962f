import json
import runpy
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from clickvol.metrics.overlap import dice
from clickvol.version import __version__
from clickvol.weights.card import list_cards


def test_demo_writes_its_files_and_says_the_dice_and_the_command(run, tmp_path, tiny_model):
    out_folder = tmp_path / "a" / "demo"
    code, out, _ = run("demo", "--out", out_folder, "--model", tiny_model)
    assert code == 0
    names = ("scan.nii.gz", "truth.nii.gz", "mask.nii.gz", "preview.png")
    assert sorted(p.name for p in out_folder.iterdir()) == sorted(names)
    for name in names:
        assert str(out_folder / name) in out
    truth, mask = (np.asarray(nibabel.load(out_folder / n).dataobj) for n in ("truth.nii.gz", "mask.nii.gz"))
    assert f"Dice {dice(mask, truth):.3f}" in out
    assert nibabel.load(out_folder / "scan.nii.gz").get_data_dtype() == np.int16
    with Image.open(out_folder / "preview.png") as image:
        assert image.format == "PNG"
    assert "Research use only, not a medical device" in out


def test_the_command_that_the_demo_prints_gives_the_same_mask(run, tmp_path, tiny_model):
    out = run("demo", "--out", tmp_path / "demo", "--model", tiny_model, "--modality", "MR").out
    mask = tmp_path / "demo" / "mask.nii.gz"
    before = np.asarray(nibabel.load(mask).dataobj)
    (line,) = [line for line in out.splitlines() if line.strip().startswith("clickvol segment")]
    mask.unlink()
    assert run(*line.split()[1:]).code == 0
    assert np.array_equal(np.asarray(nibabel.load(mask).dataobj), before)


def test_demo_in_a_place_that_cannot_be_made(run, tmp_path):
    (tmp_path / "file").write_text("")
    code, out, err = run("demo", "--out", tmp_path / "file" / "demo")
    assert (code, out) == (2, "")
    assert err.startswith("error: cannot make the folder")
    assert err.count("\n") == 1


def test_models_list_names_every_shipped_model(run):
    listed = run("models", "list")
    assert listed.code == 0
    as_json = json.loads(run("models", "list", "--json").out)["models"]
    assert [card["id"] for card in as_json] == [card.id for card in list_cards()]
    assert all(card.id in listed.out for card in list_cards())


def test_models_show_tells_data_licence_and_scores(run, tiny_model):
    code, out, _ = run("models", "show", tiny_model)
    assert code == 0
    for fact in (
        "tiny",
        "CT, MR",
        "Apache-2.0",
        "none: random weights",
        "dice 0.5",
        "Research use",
    ):
        assert fact in out
    assert json.loads(run("models", "show", tiny_model, "--json").out)["id"] == "tiny"


def test_models_show_of_an_unknown_model(run):
    code, out, err = run("models", "show", "nonsense")
    assert (code, out) == (2, "")
    assert err.startswith("error: there is no model 'nonsense'")


@pytest.mark.parametrize("model", [card.id for card in list_cards()])
def test_a_shipped_model_has_a_page_with_limits_figures_failures_and_cost(run, model):
    page = run("models", "card", model).out
    assert page.startswith(f"# Model card: {model}\n")
    for part in (
        "Not for",
        "has not been cross-validated",
        "## Where it fails",
        "## What it cost",
        "Energy and carbon",
    ):
        assert part in page
    assert "10.7937/K9/TCIA.2015.7GO2GSKS" in run("models", "card", model, "--data").out


def test_a_model_without_a_page_says_where_its_facts_are(run, tiny_model):
    code, out, err = run("models", "card", tiny_model)
    assert (code, out) == (2, "")
    assert "models show" in err


def test_the_pages_are_up_to_date_and_a_stale_one_would_be_seen():
    folder = Path(__file__).parents[2] / "benchmarks"
    script = runpy.run_path(str(folder / "model_card.py"))
    for card in list_cards():
        path = script["SHIPPED"] / f"{card.id}.md"
        page = path.read_text(encoding="utf-8")
        content = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        assert script["filled"](page, content) == page, "python benchmarks/model_card.py brings it up to date"
        assert script["filled"](page, content | {"licence": "none"}) != page


def test_the_scores_by_modality_are_those_of_the_study():
    script = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "model_card.py"))
    assert (
        "| CT | 6 | 0.69 [0.59, 0.77] | 0.76" in script["scores"]()
    )  # .689 [.588, .771] in docs/explanation/results.md


def test_info_as_json_and_as_text_name_the_same_facts(run):
    facts = json.loads(run("info", "--json").out)
    assert facts["clickvol"] == __version__
    assert facts["devices"][0] == "cpu"
    assert facts["threads"] >= 1
    assert facts["libraries"]["numpy"] == np.__version__
    text = run("info").out
    for name in facts:
        assert name.replace("_", " ") in text


def test_train_with_a_missing_configuration(run, tmp_path):
    code, out, err = run("train", tmp_path / "missing.toml")
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
