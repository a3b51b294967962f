import contextlib
import hashlib
import json
import math
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

from clickvol.errors import ConfigError
from clickvol.methods.promise3d import promise3d_recipe
from clickvol.training import loop
from clickvol.training.processes import Processes
from clickvol.training.run import train_from_config
from clickvol.weights.card import read_card
from clickvol.weights.load import load_model, network_config
from reference.forked_program import ForkedProgram
from reference.launched_runs import TINY_RUN

pytestmark = pytest.mark.slow

FILES = {
    ".lock",
    "checkpoint.pt",
    "config.json",
    "history.jsonl",
    "provenance.json",
    "t.json",
    "t.safetensors",
    "tensorboard",
}


# A step that costs a third, where it does not matter what is learned.
ONE_SAMPLE = ["data.phantoms=1", "optimiser.batch_size=1", "sampling.corrected_click_share=0.0"]


def weights_of(folder):
    return (folder / "t.safetensors").read_bytes()


def log_lines(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def log_steps(folder):
    return [line["step"] for line in log_lines(folder)]


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """Train all eight steps, once for tests that change nothing there; return configuration and folder."""
    parent = tmp_path_factory.mktemp("runs")
    path, folder = parent / "whole.toml", parent / "whole"
    path.write_text(TINY_RUN.format(folder=folder), encoding="utf-8")
    with pytest.MonkeyPatch.context() as change:
        change.setattr(loop, "_LOG_EVERY", 2)
        train_from_config(path, [])
    return path, folder


def test_a_run_leaves_log_checkpoint_configuration_and_model(whole_run):
    folder = whole_run[1]
    assert {p.name for p in folder.iterdir()} == FILES | {"log.jsonl"}
    assert log_steps(folder) == [2, 4, 6, 8]
    assert json.loads((folder / "config.json").read_text())["run"]["seed"] == 3
    assert torch.load(folder / "checkpoint.pt", weights_only=True)["step"] == 8


def test_the_card_says_what_the_model_is(whole_run):
    path, folder = whole_run
    card = read_card(folder)
    assert card.id == "t"
    assert card.training_command == f"clickvol train {path}"
    assert card.training_data == ["2 synthetic scans of this package (phantoms/phantom.py)"]
    assert network_config("promise3d", card.network) == promise3d_recipe("clickvol", "tiny").network
    assert card.fields_of_view.model_dump() == {
        "first_voxel_mm": 3.0,
        "finest_voxel_mm": 1.0,
        "coarsest_voxel_mm": 6.0,
        "click_off_middle": 0.15,
    }
    assert card.bytes == len(weights_of(folder))
    assert card.sha256 == hashlib.sha256(weights_of(folder)).hexdigest()


def test_the_model_is_the_average_in_half_precision(whole_run):
    folder = whole_run[1]
    model = load_model(folder / "t.json", device="cpu")
    kept = torch.load(folder / "checkpoint.pt", weights_only=True)
    assert model.card.num_parameters == sum(v.numel() for v in kept["average"].values())
    loaded = model.network.state_dict()
    for name, value in kept["average"].items():
        assert torch.equal(loaded[name], value.half().float())
    gaussian = "prompt_encoder.positions.gaussian"
    assert torch.equal(loaded[gaussian], kept["network"][gaussian].half().float())
    assert any(not torch.equal(kept["average"][n], kept["network"][n]) for n in kept["average"])


@pytest.fixture(scope="module")
def stopped_runs(tmp_path_factory):
    """Stop one run twice, between checkpoints and at one; return the folder then by the step of the stop."""
    parent = tmp_path_factory.mktemp("stopped")
    path, folder = parent / "parts.toml", parent / "parts"
    path.write_text(TINY_RUN.format(folder=folder), encoding="utf-8")
    folders = {}
    with pytest.MonkeyPatch.context() as change:
        change.setattr(loop, "_LOG_EVERY", 2)
        for stop in (1, 6):
            train_from_config(path, [], max_steps=stop)
            folders[stop] = shutil.copytree(folder, parent / f"after_{stop}")
    return folders


@pytest.fixture
def stopped(write_config, stopped_runs, log_every_second_step):
    """Write the configuration of a run, and its folder as it was after some steps; return both paths."""

    def write(name, step):
        path, folder = write_config(name)
        shutil.copytree(stopped_runs[step], folder)
        return path, folder

    return write


def test_a_run_that_was_stopped_twice_ends_with_the_same_weights_to_the_bit(whole_run, stopped_runs, stopped):
    for stop, folder in stopped_runs.items():
        assert torch.load(folder / "checkpoint.pt", weights_only=True)["step"] == stop
        assert weights_of(folder) != weights_of(whole_run[1])
    path, folder = stopped("parts", 6)
    # A crash after the last checkpoint, in the middle of a line: no step is lost or there twice. The end of
    # each call is logged, too.
    with (folder / "log.jsonl").open("a") as log:
        log.write('{"step": 7}\n{"step": 8, "lo')
    train_from_config(path, [])
    assert log_steps(folder) == [1, 2, 4, 6, 8]
    assert weights_of(folder) == weights_of(whole_run[1])
    ours, theirs = (
        torch.load(f / "checkpoint.pt", weights_only=True)["network"] for f in (folder, whole_run[1])
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_finished_run_is_not_trained_further(whole_run):
    path, folder = whole_run
    before = weights_of(folder)
    train_from_config(path, [])
    assert weights_of(folder) == before
    assert log_steps(folder) == [2, 4, 6, 8]


def test_another_seed_gives_other_weights(stopped_runs, write_config):
    path, folder = write_config("other")
    card = train_from_config(path, ["run.seed=4"], max_steps=1)
    assert weights_of(folder) != weights_of(stopped_runs[1])
    assert read_card(card).training_command == f"clickvol train {path} --set run.seed=4"


def test_fresh_begins_again(stopped_runs, stopped):
    path, folder = stopped("fresh", 6)
    assert log_steps(folder) == [1, 2, 4, 6]
    train_from_config(path, [], fresh=True, max_steps=1)
    assert log_steps(folder) == [1]
    assert torch.load(folder / "checkpoint.pt", weights_only=True)["step"] == 1
    assert weights_of(folder) == weights_of(stopped_runs[1])


def test_only_what_changes_the_network_is_refused_on_the_way(stopped):
    path, folder = stopped("run", 1)
    with pytest.raises(ConfigError, match=r"another network: model\.size was tiny and is small; use --fresh"):
        train_from_config(path, ["model.size=small"])
    # One step: bfloat16 is slow where a CPU has no instructions for it.
    changes = [
        "optimiser.steps=2",
        "optimiser.learning_rate=0.5",
        "optimiser.accumulate=2",
        "run.precision=bfloat16",
        "run.threads=2",
        "data.root=/elsewhere",
    ]
    train_from_config(path, changes)
    kept = torch.load(folder / "checkpoint.pt", weights_only=True)
    assert (kept["step"], kept["samples"]) == (2, 2 + 4)
    first, second = (json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines())
    assert (first["from_step"], first["changes"], second["from_step"]) == (0, {}, 1)
    assert second["changes"]["optimiser.steps"] == [8, 2]
    assert second["changes"]["run.precision"] == ["float32", "bfloat16"]
    assert "--set optimiser.accumulate=2" in second["command"]
    assert (second["threads"], second["device"], second["processes"]) == (2, "cpu", 1)


def rates(folder):
    return {line["step"]: line["learning_rate"] for line in log_lines(folder)}


@pytest.mark.parametrize(
    ("schedule", "changed", "expected"),
    [
        # Two steps to warm up, then (1 + cos) / 2 of 99 % above 1 %: of 6 steps, and of 10.
        (
            "cosine",
            "optimiser.steps=12",
            lambda s, n: 0.01 + 0.99 * (1 + math.cos(math.pi * (s - 2) / (n - 2))) / 2,
        ),
        # 1 - 99 % of the epochs, which are steps here, that were asked for: of 8, and of 12.
        ("linear", "optimiser.linear_epochs=12", lambda s, n: 1 - 0.99 * s / n),
    ],
)
def test_a_falling_rate_is_that_of_the_new_length_after_a_change(
    write_config, monkeypatch, schedule, changed, expected
):
    monkeypatch.setattr(loop, "_LOG_EVERY", 1)
    settings = [f"optimiser.schedule={schedule}", "optimiser.learning_rate=0.001", "optimiser.linear_epochs=8"]
    settings += ONE_SAMPLE
    longer = [*settings, changed]
    folders = []
    for name, stops in (("once", ()), ("twice", (6,))):
        path, folder = write_config(name)
        train_from_config(path, settings, max_steps=4)
        for stop in stops:
            train_from_config(path, longer, max_steps=stop)
        train_from_config(path, longer)
        folders.append(folder)
    last = 12 if schedule == "cosine" else 8
    told = rates(folders[0])
    assert sorted(told) == list(range(1, last + 1))
    assert [told[1], told[2]] == pytest.approx([0.0005, 0.001])
    assert [told[s + 1] for s in range(2, 4)] == pytest.approx([0.001 * expected(s, 8) for s in range(2, 4)])
    assert [told[s + 1] for s in range(4, last)] == pytest.approx(
        [0.001 * expected(s, 12) for s in range(4, last)]
    )
    key, value = changed.split("=")
    history = [json.loads(line) for line in (folders[1] / "history.jsonl").read_text().splitlines()]
    assert [(line["from_step"], line["changes"]) for line in history] == [
        (0, {}),
        (4, {key: [8, int(value)]}),
        (6, {}),
    ]
    # A stop that changes nothing changes nothing: rates and weights are those of the run that went through.
    assert rates(folders[1]) == told
    assert weights_of(folders[0]) == weights_of(folders[1])


def test_a_smaller_batch_with_more_rounds_sees_the_same_samples(whole_run, stopped):
    path, folder = stopped("split", 6)
    train_from_config(path, ["optimiser.batch_size=1", "optimiser.accumulate=2"])
    ours, theirs = (
        torch.load(f / "checkpoint.pt", weights_only=True)["average"] for f in (folder, whole_run[1])
    )
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=5e-3)


def test_how_a_run_is_kept_may_change_on_the_way(stopped, tmp_path):
    path, folder = stopped("run", 1)
    folder.rename(tmp_path / "moved")
    overrides = [f"run.folder={tmp_path / 'moved'}", "run.checkpoint_every=1", "model.title=new"]
    card = train_from_config(path, overrides, max_steps=2)
    assert card.parent == tmp_path / "moved"
    assert read_card(card).title == "new"


def test_what_a_killed_writer_left_is_removed(write_config):
    path, folder = write_config("run")
    folder.mkdir()
    (folder / ".clickvol-0123456789ab.pt").write_bytes(b"half a checkpoint")
    (folder / "mine.txt").write_text("kept")
    train_from_config(path, [], max_steps=1)
    names = {p.name for p in folder.iterdir()}
    assert "mine.txt" in names
    assert not any(name.startswith(".clickvol") for name in names)


def test_a_model_can_be_the_start_of_another(whole_run, write_config):
    path, folder = write_config("next")
    start = whole_run[1] / "t.json"
    # So small a rate moves nothing that half precision can tell.
    overrides = [f"run.start_from={start}", "optimiser.learning_rate=1e-12"]
    card = train_from_config(path, overrides, max_steps=1)
    assert weights_of(folder) == weights_of(whole_run[1])
    assert read_card(card).training_data == read_card(start).training_data


def test_figures_are_reported(write_config, log_every_second_step):
    path, _ = write_config("run")
    reported = []
    train_from_config(path, ONE_SAMPLE, max_steps=3, report=reported.append)
    assert [(figures["step"], "loss" in figures) for figures in reported] == [(1, True), (2, True), (3, True)]
    assert all(figures["num_steps"] == 3 for figures in reported)
    assert reported[0]["samples_per_second"] > 0


def test_nothing_to_train_on_is_refused(write_config):
    path, folder = write_config("run")
    with pytest.raises(ConfigError, match="there is nothing to train on"):
        train_from_config(path, ["data.phantoms=0"])
    assert not (folder / "t.json").exists()


def wait_for_step(checkpoint: Path, step: int, process: ForkedProgram) -> None:
    deadline = time.monotonic() + 120
    seen = None
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        # At any moment, also while the next one is being written, what bears the name is whole.
        if checkpoint.is_file() and checkpoint.stat().st_ino != seen:
            seen = checkpoint.stat().st_ino
            if torch.load(checkpoint, weights_only=True)["step"] >= step:
                return
        time.sleep(0.01)
    pytest.fail("the run wrote no checkpoint in two minutes")


def test_a_run_that_was_killed_goes_on_to_the_same_weights(write_config):
    path, folder = write_config("killed")
    overrides = ["optimiser.steps=100000", "run.checkpoint_every=1", *ONE_SAMPLE]
    words = [word for override in overrides for word in ("--set", override)]
    process = ForkedProgram(["train", path, *words], prepare=os.setpgrp)
    try:
        wait_for_step(folder / "checkpoint.pt", 2, process)
    finally:
        # The loader's process goes with it: both are in a group of their own.
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert process.poll() == -signal.SIGKILL
    done = torch.load(folder / "checkpoint.pt", weights_only=True)["step"]
    assert not (folder / "t.json").exists()
    assert not (folder / "t.safetensors").exists()
    train_from_config(path, overrides, max_steps=done + 1)
    whole_path, whole_folder = write_config("not-killed")
    train_from_config(whole_path, overrides, max_steps=done + 1)
    assert weights_of(folder) == weights_of(whole_folder)
    assert {p.name for p in folder.iterdir()} - {"log.jsonl"} == FILES
    assert load_model(folder, device="cpu").card.id == "t"


def test_a_run_whose_minutes_are_over_stays_where_it_is_until_it_gets_more(write_config):
    path, folder = write_config("run")
    # 60 microseconds: less than any step takes.
    train_from_config(path, ["run.minutes=1e-6"])
    assert log_steps(folder) == [1]
    assert read_card(folder / "t.json").id == "t"
    told = []
    train_from_config(path, ["run.minutes=1e-6"], report=told.append)
    assert told == []
    assert log_steps(folder) == [1]
    train_from_config(path, ["run.minutes=60"], max_steps=3, report=told.append)
    assert [figures["step"] for figures in told] == [2, 3]
    assert {figures["num_steps"] for figures in told} == {3}


def test_minutes_are_for_one_process(write_config, monkeypatch):
    path, folder = write_config("run")

    @contextlib.contextmanager
    def two(_):
        yield Processes(0, 2, torch.device("cpu"))

    monkeypatch.setattr("clickvol.training.run.join_processes", two)
    with pytest.raises(ConfigError, match=r"run\.minutes goes by the clock of one process"):
        train_from_config(path, ["run.minutes=5"])
    assert not folder.exists()
