"""The recipe of the default model: prepared sets on the wide scale, drawn prompts, candidates; and its file."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from clickvol.cli.app import main
from clickvol.datasets.device.stored_scan import NORMALISED_RANGE, StoredScan
from clickvol.datasets.prepared import read_prepared_set
from clickvol.errors import ConfigError
from clickvol.methods.lifted_segmenter import LiftedSegmenter
from clickvol.methods.promise3d import promise3d_recipe
from clickvol.prompt_encoders.feature_sampling import PointPrompts
from clickvol.prompts.spatial import HintChannel
from clickvol.training.read_config import read_train_config
from clickvol.training.run import train_from_config
from clickvol.training.start import (
    fresh_state,
    grown_weights,
    task_of,
    training_cases,
    validation_cases,
)
from clickvol.weights.card import read_card
from clickvol.weights.load import network_content
from reference.evaluation_sets import write_set
from reference.random_models import write_random_model
from reference.training_batches import training_batch

LESIONS = Path(__file__).parents[2] / "configs" / "lesions.toml"
SHAPE = (12, 24, 24)


def labelled(value):
    """A scan with two blocks of the labels 1 and 2, of 128 and 27 voxels, and a voxel of the label 1 alone."""
    label = np.zeros(SHAPE, np.uint8)
    label[2:6, 4:12, 4:8] = 1
    label[7:10, 16:19, 16:19] = 2
    label[11, 0, 0] = 1
    return np.where(label > 0, value, -1000.0), label


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A CT set of two patients with two scans each, a PET set of one, and a patient for validation in both."""
    folder = tmp_path_factory.mktemp("sets")
    ids = ["p1_n0", "p1_n1", "p2_n0", "p2_n1", "p3_n0"]
    splits = folder / "splits.json"
    splits.write_text(json.dumps([{"train": ids[:4], "val": ids[4:]}]))
    cases = {case: labelled(40 + 100 * number) for number, case in enumerate(ids)}
    write_set(folder / "CT", cases, splits=splits, patients="(.*)_n[0-9]")
    image, label = labelled(10)
    splits.write_text(json.dumps([{"train": ["p1"], "val": ["p3"]}]))
    pet = {"p1": (np.maximum(image, 0), label), "p3": (np.maximum(image, 1), label)}
    write_set(folder / "PET", pet, "PET", splits=splits)
    return folder


def config_of(sets, folder, *overrides):
    """The file of the default model with those sets in place of its own, on a tiny network."""
    paths = [
        '{path="CT", modality="CT", source="one", objects="labels"}',
        '{path="PET", modality="PT", source="two", objects="parts"}',
    ]
    return [
        f"data.root={sets}",
        f"data.folders=[{', '.join(paths)}]",
        "sampling.group_shares={CT=0.5, PET=0.5}",
        "sampling.lung_groups=[]",
        "model.size=tiny",
        "optimiser.batch_size=2",
        "optimiser.steps=2",
        f"run.folder={folder}",
        "run.start_from=",
        "run.precision=float32",
        *overrides,
    ]


def test_the_file_makes_the_network_that_ships():
    config = read_train_config(LESIONS, [])
    recipe = promise3d_recipe(config.model.preset, config.model.size)
    shipped = read_card("promise3d-lesions")
    assert network_content("promise3d", recipe.network) == shipped.network
    assert config.sampling.group_shares.keys() == {folder.path for folder in config.data.folders}
    shares = config.sampling.group_shares
    assert sum(shares.values()) == pytest.approx(1)
    assert sum(share for name, share in shares.items() if name.startswith("Sarcoma")) >= 0.3
    assert shipped.fields_of_view.finest_voxel_mm == config.sampling.finest_voxel_mm


def test_what_of_a_label_is_an_object(sets):
    (case,) = [case for case in read_prepared_set(sets / "CT").cases if case.case_id == "p1_n1"]
    sizes = {}
    for objects in ("tumour", "labels", "parts"):
        scan = StoredScan.of_prepared(case, "lesions", objects)
        sizes[objects] = np.bincount(scan.label.ravel())[1:].tolist()
    assert sizes == {"tumour": [156], "labels": [129, 27], "parts": [128, 27]}
    assert (scan.name, scan.group, scan.patient) == ("p1_n1", "lesions", "p1")
    # 140 HU is 100 of 200 above the middle of the window, air the lowest step; so is what lies outside.
    assert scan.outside == pytest.approx(-2.6)
    assert sorted(np.unique(scan.image)) == [0, round((0.8 + 2.6) / 5.2 * 255)]


def test_a_run_by_the_file_of_the_default_model_makes_a_model_that_knows_every_prompt(sets, tmp_path):
    seen = []
    overrides = config_of(sets, tmp_path / "run", "run.validate_every=2", 'run.keep="best"')
    card_path = train_from_config(LESIONS, overrides, saved=lambda state: seen.append(state.step))
    card = read_card(card_path)
    assert seen == [2]
    assert (card.intensity, card.modalities) == ("wide", ["CT", "PT"])
    assert card.training_data == ["CT (CT): one", "PET (PT): two"]
    # Four CT scans of two patients, and PET of one of them.
    assert (len(card.training_scans), len(card.training_patients)) == (5, 2)
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert lines[-2].keys() >= {"loss", "dice", "best_dice", "judge_error"}
    assert lines[-1].keys() == {"step", "validation_loss"}
    scan = read_prepared_set(sets / "CT").cases[0].native_image_path
    prompts = ["--click", "5,8,3", "--line", "5,5,3:5,10,3", "--box", "4,4,2:7,11,5", "--candidates"]
    output = tmp_path / "mask.nii.gz"
    assert main(["segment", str(scan), *prompts, "--model", str(card_path), "-o", str(output)]) == 0
    assert sorted(path.name for path in tmp_path.glob("mask*.nii.gz")) == [
        *(f"mask-{number}.nii.gz" for number in (1, 2, 3)),
        "mask.nii.gz",
    ]


def test_validation_scans_are_on_the_same_scale(sets, tmp_path):
    config = read_train_config(LESIONS, config_of(sets, tmp_path))
    trained, judged = training_cases(config, None), validation_cases(config, None)
    assert [case.name for case in trained] == ["p1_n0", "p1_n1", "p2_n0", "p2_n1", "p1"]
    assert [(case.name, case.group, case.value_range) for case in judged] == [
        ("p3_n0", "CT", NORMALISED_RANGE),
        ("p3", "PET", NORMALISED_RANGE),
    ]


def test_samples_have_drawn_prompts_and_groups_are_sets(sets, tmp_path):
    config = read_train_config(LESIONS, config_of(sets, tmp_path, "sampling.box_share=0.9"))
    task, cpu = task_of(config), torch.device("cpu")
    sampler = task.sampler(training_cases(config, None), [], cpu)
    assert sampler.store.groups == ("CT", "PET")
    # Labels of four CT scans, parts of one of PET.
    assert np.bincount(sampler.store.objects.group).tolist() == [8, 2]
    hints = sampler.batch(range(6)).prompts.hints
    assert hints.shape == (6, 3, 32, 32, 32)
    assert (hints[:, HintChannel.REGION] == 1).any()
    assert fresh_state(config, task, cpu).optimiser.param_groups[0]["betas"] == (0.9, 0.99)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.voxels_in_memory=30000", "the scans have 34,560 voxels, .* data.voxels_in_memory allows 30,000"),
        ('sampling={kind="published"}', "data.intensity wide is for sampling.kind clicked or windows"),
        ("data.intensity=scan", "the objects of CT are drawn on the wide scale alone"),
        ("data.phantoms=2", "phantoms are not on the wide scale"),
    ],
)
def test_what_the_wide_scale_cannot_do_is_said(sets, tmp_path, override, message):
    overrides = config_of(sets, tmp_path, override)
    with pytest.raises(ConfigError, match=message):
        training_cases(read_train_config(LESIONS, overrides), None)


def test_a_network_with_more_prompts_begins_as_the_one_that_it_began_with():
    start = LiftedSegmenter(promise3d_recipe("clickvol", "tiny").network)
    network = LiftedSegmenter(promise3d_recipe("clickvol-prompts", "tiny").network)
    network.load_state_dict(grown_weights(start, network))
    batch = training_batch(2)
    given = batch.prompts
    plain = PointPrompts(given.points_dhw, given.labels)
    drawn = PointPrompts(given.points_dhw, given.labels, torch.ones(2, 3, *batch.patch.shape[2:]))
    with torch.no_grad():
        expected = start.decode(start.encode_image(batch.patch), plain, given.prior)
        encoded = network.encode_image(batch.patch)
        logits, candidates = network.decode_candidates(encoded, drawn, given.prior)
    assert torch.allclose(logits, expected, atol=1e-5)
    assert candidates.logits.shape[1] == 3


def test_a_run_begins_with_a_model_that_knows_clicks_alone(sets, tmp_path):
    write_random_model(promise3d_recipe("clickvol", "tiny"), tmp_path)
    overrides = config_of(sets, tmp_path / "run", f"run.start_from={tmp_path}", "optimiser.steps=1")
    assert read_card(train_from_config(LESIONS, overrides)).network["num_candidates"] == 3
