"""What becomes of a run when something goes wrong."""

import json
import resource
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from clickvol.errors import ConfigError, OutputError, TrainingError
from clickvol.files.lock import only_process_in
from clickvol.training import run as run_module
from clickvol.training.checkpoints import Checkpoints
from clickvol.training.run import train_from_config
from clickvol.training.tasks.step import TrainingStep

pytestmark = pytest.mark.slow


def step_done(folder):
    return torch.load(folder / "checkpoint.pt", weights_only=True)["step"]


def test_a_loss_that_is_no_number_stops_the_run_and_leaves_the_batch(write_config, monkeypatch):
    path, folder = write_config("run")
    train_from_config(path, [], max_steps=1)
    weights = (folder / "t.safetensors").read_bytes()
    forward = TrainingStep.forward

    def broken(self, batch, step):
        loss, *rest = forward(self, batch, step)
        return (loss * float("nan") if step == 2 else loss), *rest

    monkeypatch.setattr(TrainingStep, "forward", broken)
    with pytest.raises(TrainingError, match=r"loss is nan at step 3.*bad_batch_step3_process0\.pt"):
        train_from_config(path, [])
    (batch,) = torch.load(folder / "bad_batch_step3_process0.pt", weights_only=True)
    assert batch["patch"].shape == (2, 1, 32, 32, 32)
    assert step_done(folder) == 1
    assert (folder / "t.safetensors").read_bytes() == weights
    # What the error advises works.
    monkeypatch.setattr(TrainingStep, "forward", forward)
    train_from_config(path, ["optimiser.learning_rate=1e-4"], max_steps=2)
    assert step_done(folder) == 2
    (*_, last) = map(json.loads, (folder / "history.jsonl").read_text().splitlines())
    assert last["from_step"] == 1
    assert last["changes"] == {"optimiser.learning_rate": [0.001, 0.0001]}


def test_a_full_disk_leaves_the_checkpoint_before(write_config):
    path, folder = write_config("run")
    train_from_config(path, [], max_steps=1)
    kept = (folder / "checkpoint.pt").read_bytes()
    # The largest file that a process may write stands for the room on the disk.
    code = (
        "import resource, signal, sys; from clickvol.cli.app import main;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({len(kept) // 2},) * 2);"
        f"sys.exit(main(['train', {str(path)!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 2, done.stderr
    error = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(error) == 1
    assert "checkpoint.pt" in error[0]
    assert "the file before is whole" in error[0]
    assert (folder / "checkpoint.pt").read_bytes() == kept
    assert not list(folder.glob(".clickvol-*"))
    train_from_config(path, [], max_steps=4)
    assert step_done(folder) == 4


def test_the_limit_of_this_process_is_untouched():
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_a_folder_that_another_run_works_in_is_refused(write_config):
    path, folder = write_config("run")
    with (
        only_process_in(folder),
        pytest.raises(ConfigError, match=f"another process is working in {folder}"),
    ):
        train_from_config(path, [])


def test_memory_that_runs_out_says_what_to_lower(write_config, monkeypatch):
    path, folder = write_config("run")
    train_from_config(path, [], max_steps=1)
    for error in (
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ):

        def fail(*_, error=error):
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(run_module, "fit", fail)
            with pytest.raises(TrainingError, match=r"a lower optimiser\.batch_size .*recompute_blocks"):
                train_from_config(path, [])
    # What the error advises works, and the samples are those of the larger batch.
    train_from_config(path, ["optimiser.batch_size=1", "optimiser.accumulate=2"], max_steps=2)
    kept = torch.load(folder / "checkpoint.pt", weights_only=True)
    assert (kept["step"], kept["samples"]) == (2, 4)


def test_another_runtime_error_is_not_taken_for_lack_of_memory(write_config, monkeypatch):
    path, _ = write_config("run")

    def fail(*_):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(run_module, "fit", fail)
    with pytest.raises(RuntimeError, match="shapes differ"):
        train_from_config(path, [])


def test_weights_of_another_method_or_shape_are_refused(write_config):
    path, folder = write_config("run")
    train_from_config(path, [], max_steps=1)
    start = f"run.start_from={folder / 't.json'}"
    other = write_config("other")[0]
    windows = ["sampling={kind='published'}", start]
    with pytest.raises(ConfigError, match=r"run\.start_from is a model of the method promise3d, but"):
        train_from_config(other, ["model.method=sam3d_adapter", "model.preset=released", *windows])
    with pytest.raises(ConfigError, match="are of another shape than clickvol at size small"):
        train_from_config(other, ["model.size=small", start])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["sampling={kind='windows'}"],
            "trained by a simulated user, but sampling.kind is windows",
        ),
        (["model.method=dynunet", "model.preset=automatic"], "takes no clicks, but sampling.kind"),
        (["model.preset=released", "run.precision=float16"], "float16 cannot hold"),
        (
            [
                "model.method=dynunet",
                "model.preset=automatic",
                "sampling={kind='windows'}",
                "run.trained=adapters",
            ],
            "dynunet has no 2D foundation",
        ),
        (["run.validate_every=1"], "no scan is for validation"),
    ],
)
def test_values_that_contradict_each_other_are_named(write_config, overrides, message):
    path, _ = write_config("run")
    with pytest.raises(ConfigError, match=message) as caught:
        train_from_config(path, overrides)
    assert "\n" not in str(caught.value)


def test_the_best_weights_are_asked_for_before_any_validation(tmp_path):
    with pytest.raises(ConfigError, match="no validation has been done yet"):
        Checkpoints(tmp_path, "f").read_best()


def test_a_checkpoint_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed\nframe 1")

    monkeypatch.setattr(torch, "save", fail)
    state = type("State", (), {"step": 1, "weights_to_keep": dict})()
    with pytest.raises(OutputError, match="file write failed; the file before is whole") as caught:
        Checkpoints(tmp_path, "{}").save_best(state)
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_called_so(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    monkeypatch.setattr(torch, "save", fail)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10))
    state = SimpleNamespace(step=1, weights_to_keep=lambda: {"a": torch.zeros(8)})
    with pytest.raises(OutputError, match="disk full; the file before is whole"):
        Checkpoints(tmp_path, "{}").save_best(state)
