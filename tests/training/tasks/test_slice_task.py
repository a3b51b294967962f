"""Runs of ProMISe-2D through the training command: the tiny network on two phantoms."""

import json

import numpy as np
import pytest
import torch

from clickvol.cli.app import main
from clickvol.datasets.pictures import PictureFolders, PicturePlan, prepare_pictures
from clickvol.errors import ConfigError, TrainingError
from clickvol.methods.promise2d import Promise2d, promise2d_network
from clickvol.methods.sam2d import Sam2d, sam2d_preset
from clickvol.predict.image_predictor import load_image_model, segment_image
from clickvol.prompts.image_prompts import ImageClick, ImagePrompts
from clickvol.training.read_config import read_train_config
from clickvol.training.run import train_from_config
from clickvol.training.start import task_of, training_cases
from clickvol.training.tasks.step2d import SliceStep
from clickvol.weights.card import read_card
from reference.launched_runs import FIRST_STEP, forked_pair, gradients, relative_difference
from reference.picture_folders import write_pictures
from reference.tiny_models2d import write_model2d

CONFIG = """
[model]
id = "t"
title = "a tiny one"
method = "promise2d"
preset = "clickvol"
size = "tiny"

[promise2d]
mode = "{mode}"
num_points = 4

[data]
phantoms = 2

[sampling]
kind = "slices"

[optimiser]
steps = 3
batch_size = 2
learning_rate = 1e-3
schedule = "constant"
warmup_steps = 0
weight_decay = 0.0
average_decay = 0.0

[run]
folder = "{folder}"
foundation = "{foundation}"
trained = "adapters"
seed = 3
threads = 1
precision = "float32"
checkpoint_every = 2
"""


@pytest.fixture(scope="module")
def foundation(tmp_path_factory):
    torch.manual_seed(0)
    return write_model2d(tmp_path_factory.mktemp("sam"), Sam2d(sam2d_preset("tiny")), "sam2d")


@pytest.fixture
def write(tmp_path, foundation):
    """Write the configuration of a run of some mode; return it and its folder."""

    def written(name, mode="ips"):
        path, folder = tmp_path / f"{name}.toml", tmp_path / name
        path.write_text(CONFIG.format(mode=mode, folder=folder, foundation=foundation))
        return path, folder

    return written


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["ips", "promise"])
def test_a_trained_model_segments_images(capfd, write, foundation, mode):
    path, folder = write("run", mode)
    assert main(["train", str(path)]) == 0
    assert f"clickvol segment-image --model {folder / 't.json'}" in capfd.readouterr().out
    model = load_image_model(str(folder / "t.json"), device="cpu")
    assert isinstance(model.network, Promise2d)
    assert model.card.fields_of_view is None
    assert any("synthetic" in line for line in model.card.training_data)
    assert any("foundation" in line for line in model.card.training_data)
    # What was frozen is the foundation, what was added has moved.
    start = torch.load(folder / "checkpoint.pt", weights_only=True)["network"]
    sam = load_image_model(str(foundation), device="cpu").network.state_dict()
    assert all(torch.equal(start[f"sam.{name}"], value) for name, value in sam.items())
    image = np.random.default_rng(0).random((40, 56), dtype=np.float32)
    click = ImagePrompts(clicks=(ImageClick(20, 10, foreground=True),))
    asked = click if mode == "ips" else "auto"
    assert segment_image(image, asked, model).mask.shape == (40, 56)


@pytest.mark.slow
def test_a_run_that_was_stopped_ends_with_the_same_weights_to_the_bit(write):
    path, folder = write("whole", "promise")
    train_from_config(path, [])
    parts_path, parts = write("parts", "promise")
    train_from_config(parts_path, [], max_steps=1)
    assert (parts / "t.safetensors").read_bytes() != (folder / "t.safetensors").read_bytes()
    train_from_config(parts_path, [])
    assert (parts / "t.safetensors").read_bytes() == (folder / "t.safetensors").read_bytes()


@pytest.mark.slow
def test_accumulated_batches_are_one_large_batch(write):
    path, folder = write("large")
    train_from_config(path, [*FIRST_STEP, "optimiser.batch_size=4"])
    split_path, split = write("split")
    train_from_config(split_path, [*FIRST_STEP, "optimiser.accumulate=2"])
    assert relative_difference(gradients(split), gradients(folder)) < 1e-4


@pytest.mark.slow
def test_two_processes_are_one_with_the_doubled_batch(write):
    path, folder = write("two")
    codes, told = forked_pair(path, *FIRST_STEP, "optimiser.batch_size=1")
    assert codes == [0, 0], told
    one_path, one_folder = write("one")
    train_from_config(one_path, FIRST_STEP)
    assert relative_difference(gradients(folder), gradients(one_folder)) < 1e-4


@pytest.mark.slow
def test_a_loss_that_is_no_number_leaves_the_batch(write, monkeypatch):
    path, folder = write("run")
    forward = SliceStep.forward

    def broken(self, batch, numbers):
        loss, *rest = forward(self, batch, numbers)
        return (loss * float("nan"), *rest)

    monkeypatch.setattr(SliceStep, "forward", broken)
    with pytest.raises(TrainingError, match="loss is nan at step 1"):
        train_from_config(path, [])
    (batch,) = torch.load(folder / "bad_batch_step1_process0.pt", weights_only=True)
    assert batch["image"].shape == (2, 3, 64, 64)
    assert batch["points_xy_pixel"].shape == (2, 4, 2)


@pytest.mark.slow
def test_a_model_can_be_the_start_of_another(write):
    path, folder = write("first")
    train_from_config(path, [])
    next_path, next_folder = write("next")
    overrides = [f"run.start_from={folder / 't.json'}", "optimiser.learning_rate=1e-12"]
    train_from_config(next_path, overrides, max_steps=1)
    assert (next_folder / "t.safetensors").read_bytes() == (folder / "t.safetensors").read_bytes()
    assert json.loads((next_folder / "provenance.json").read_text())
    assert read_card(next_folder / "t.json").method == "promise2d"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("run.foundation=", "name one in run.foundation"),
        ("run.trained=everything", "set run.trained to adapters"),
        ("run.recompute_blocks=true", "leave out run.recompute_blocks"),
        ("data.intensity=set", "set data.intensity to scan"),
        ("sampling={}", "sampling.kind is clicked; set it to slices"),
        ("model.preset=none", "no preset 'none'"),
        ("model.size=small", "no preset 'small'"),
        ("model.method=promise3d", r"section \[promise2d\] is for the method promise2d"),
    ],
)
def test_contradictions_are_refused(write, override, message):
    path, _ = write("run")
    with pytest.raises(ConfigError, match=message):
        task_of(read_train_config(path, [override]))


def test_a_foundation_of_another_size_is_refused(write):
    path, _ = write("run")
    task = task_of(read_train_config(path, ["model.size=litemedsam"]))
    with pytest.raises(ConfigError, match=r"tiny-sam2d, but model\.size asks for another network"):
        task.build_network()


def test_the_points_say_how_the_network_is_built(write):
    path, _ = write("run", "promise")
    task = task_of(read_train_config(path, ["model.preset=released"]))
    assert task.network_config == promise2d_network(
        "tiny", "promise", form="resnet", last_layer="default", num_points=4
    )


def test_slices_are_not_for_networks_of_volumes(write_config):
    path, _ = write_config("run")
    with pytest.raises(ConfigError, match="promise3d is trained on patches"):
        task_of(read_train_config(path, ["sampling={kind='slices'}"]))


PICTURES = """
[[data.folders]]
path = "{path}"
modality = "picture"
source = "made by tests"
{only}
[sampling]"""


@pytest.fixture(scope="module")
def picture_set(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    sources = tuple(
        PictureFolders(name, *write_pictures(folder / name, [f"x{n}" for n in range(6)], first_seed=seed))
        for name, seed in (("polyps", 0), ("skin", 20))
    )
    prepare_pictures(PicturePlan(sources=sources, destination=folder / "set"))
    return folder / "set"


def on_pictures(path, picture_set, only=""):
    text = path.read_text().replace("phantoms = 2", "", 1)
    path.write_text(text.replace("[sampling]", PICTURES.format(path=picture_set, only=only), 1))


@pytest.mark.parametrize("mode", ["apm", "ips", "promise"])
def test_pictures_of_two_data_sets_train_every_mode(write, picture_set, mode):
    path, folder = write("run", mode)
    on_pictures(path, picture_set)
    words = ["run.validate_every=1", "run.keep=best"]
    card_path = train_from_config(path, words)
    card = read_card(card_path)
    assert card.modalities == ["picture"]
    assert card.notes[-1] == "Trained on pictures; none without the object was shown."
    model = load_image_model(str(card_path), device="cpu")
    image = np.zeros((48, 64, 3), np.uint8)
    points = "auto" if model.predicts_points else ImagePrompts(clicks=(ImageClick(30, 20),))
    assert segment_image(image, points, model).mask.shape == (48, 64)
    losses = [
        json.loads(line).get("validation_loss") for line in (folder / "log.jsonl").read_text().splitlines()
    ]
    assert sum(loss is not None for loss in losses) == 3


def test_one_data_set_of_the_folder_can_be_trained_on(write, picture_set):
    path, _ = write("run")
    on_pictures(path, picture_set, 'only = ["skin"]')
    config = read_train_config(path, [])
    cases = training_cases(config, None)
    assert {case.data_set for case in cases} == {"skin"}
    assert task_of(config).num_items(cases) == len(cases) == 4


def test_pictures_and_scans_are_told_apart(write, picture_set, tmp_path):
    path, _ = write("run")
    on_pictures(path, picture_set)
    wrong = path.read_text().replace('modality = "picture"', 'modality = "CT"')
    path.write_text(wrong)
    with pytest.raises(ConfigError, match="holds pictures, but scans are expected"):
        training_cases(read_train_config(path, []), None)
