"""Training from a carried file, and from scans that stay on the disk."""

import json

import numpy as np
import pytest

from clickvol.datasets.device.stored_scan import StoredScan, write_pack
from clickvol.errors import ConfigError
from clickvol.training.config import TrainConfig
from clickvol.training.read_config import read_train_config
from clickvol.training.run import run_fingerprint, train_from_config
from clickvol.training.start import training_cases, validation_cases
from clickvol.weights.card import read_card

SETS = 'data.folders=[{path="lesions", modality="PT", source="one who knows"}]'


@pytest.fixture
def pack(tmp_path):
    scans = []
    for name, group in (("x_1", "lesions"), ("x_2", "lesions"), ("y_1", "organs")):
        ball = (np.indices((24, 32, 32)) - np.array([12, 16, 16])[:, None, None, None]) ** 2
        label = (ball.sum(axis=0) < 30).astype(np.uint8)
        scans.append(StoredScan(name, group, name, (3.0, 2.0, 2.0), 80 + 90 * label, label))
    write_pack(scans, tmp_path / "pack.zip")
    return tmp_path / "pack.zip"


def config_of(write_config, pack, *overrides):
    path, _ = write_config("one")
    return read_train_config(path, [f"data.root={pack}", SETS, "data.phantoms=0", *overrides])


def test_of_a_pack_the_named_sets_are_trained_on(write_config, pack):
    config = config_of(write_config, pack)
    assert [scan.name for scan in training_cases(config, None)] == ["x_1", "x_2"]
    without = config_of(write_config, pack, 'data.validation_patients=["2"]')
    assert [scan.name for scan in training_cases(without, None)] == ["x_1"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.folders=[]", "holds the sets lesions, organs; name some of them in data.folders"),
        (SETS.replace("lesions", "lesion"), "holds the sets lesions, organs; name some"),
        ("data.intensity=set", "carries scans at 8 bit"),
    ],
)
def test_what_a_pack_cannot_do_is_said(write_config, pack, override, message):
    with pytest.raises(ConfigError, match=message):
        training_cases(config_of(write_config, pack, override), None)


def test_a_pack_has_no_scans_for_validation(write_config, pack):
    with pytest.raises(ConfigError, match="no scan is for validation"):
        validation_cases(config_of(write_config, pack), None)


@pytest.mark.slow
def test_a_model_of_a_pack_says_its_scale_and_data(write_config, pack):
    path, folder = write_config("one")
    train_from_config(
        path, [f"data.root={pack}", SETS, "data.phantoms=0", "optimiser.steps=1", "optimiser.batch_size=1"]
    )
    card = read_card(folder)
    assert card.intensity == "wide"
    assert card.modalities == ["PT"]
    assert card.training_data == ["lesions (PT): one who knows"]
    assert len(json.loads((folder / "provenance.json").read_text())["data_sha256"]) == 64


@pytest.mark.slow
def test_scans_that_do_not_fit_are_read_sample_by_sample(write_config):
    losses = []
    for voxels in (400_000_000, 0, 0):
        path, folder = write_config(f"run{len(losses)}")
        train_from_config(path, [f"data.voxels_in_memory={voxels}", "optimiser.steps=1"])
        losses.append(json.loads((folder / "log.jsonl").read_text().splitlines()[-1])["loss"])
    # Other clicks are drawn, so the first differs; the rest is the same from run to run.
    assert losses[1] == losses[2] != losses[0]
    assert losses[1] == pytest.approx(losses[0], rel=0.5)


def test_fields_that_came_later_and_are_not_used_make_no_other_run():
    folder = {"path": "a", "modality": "CT", "source": "s"}
    given = {"model": {"id": "m", "title": "t"}, "optimiser": {"steps": 1}, "run": {"folder": "r"}}
    given["data"] = {"folders": [folder]}
    plain = run_fingerprint(TrainConfig.model_validate(given))
    assert "betas" not in plain
    assert "objects" not in plain
    assert "fitted_around" not in plain
    around = given | {"sampling": {"fitted_around": "object"}}
    assert '"fitted_around":"object"' in run_fingerprint(TrainConfig.model_validate(around))
    given["optimiser"]["betas"] = (0.9, 0.99)
    assert '"betas":[0.9,0.99]' in run_fingerprint(TrainConfig.model_validate(given))
    given["data"] = {"intensity": "wide", "folders": [folder, folder | {"objects": "parts"}]}
    assert run_fingerprint(TrainConfig.model_validate(given)).count('"objects":"parts"') == 1
