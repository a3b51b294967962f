"""Several processes, as a launcher starts them."""

import pytest
import torch

from clickvol.errors import ConfigError
from clickvol.training.processes import Processes, join_processes
from clickvol.training.run import train_from_config
from reference.launched_runs import FIRST_STEP, TINY_RUN, forked_pair, gradients, launch, relative_difference
from reference.wrong_averaging import keep_own, share_sums

# A click into the error may fall elsewhere by the rounding of a single voxel. Seed 3 draws a sample whose
# gradient makes 7e-4 of rounding, also between two rounds and one batch of one process; seed 5 makes 6e-7. In
# float64 both are 1e-16 apart.
OVERRIDES = [*FIRST_STEP, "sampling.corrected_click_share=0.0", "run.seed=5"]


@pytest.fixture(scope="module")
def doubled_batch(tmp_path_factory):
    """The gradient of one process with twice the batch."""
    folder = tmp_path_factory.mktemp("one")
    path = folder / "one.toml"
    path.write_text(TINY_RUN.format(folder=folder / "run"), encoding="utf-8")
    train_from_config(path, [*OVERRIDES, "optimiser.batch_size=2"])
    return gradients(folder / "run")


@pytest.mark.slow
def test_two_processes_are_one_with_the_doubled_batch(write_config, doubled_batch):
    path, folder = write_config("two")
    done = launch(2, path, *OVERRIDES, "optimiser.batch_size=1")
    assert done.returncode == 0, done.stderr
    assert relative_difference(gradients(folder), doubled_batch) < 1e-4


@pytest.mark.slow
def test_two_processes_with_rounds_share_their_gradients_once_a_step(write_config):
    path, folder = write_config("rounds")
    codes, told = forked_pair(path, "optimiser.steps=2", "optimiser.batch_size=1", "optimiser.accumulate=2")
    assert codes == [0, 0], told
    kept = torch.load(folder / "checkpoint.pt", weights_only=True)
    assert (kept["step"], kept["samples"]) == (2, 8)


@pytest.mark.slow
@pytest.mark.parametrize("fault", [share_sums, keep_own])
def test_a_wrong_averaging_is_far_from_the_doubled_batch(write_config, doubled_batch, fault):
    path, folder = write_config("two")
    codes, told = forked_pair(path, *OVERRIDES, "optimiser.batch_size=1", prepare=fault)
    assert codes == [0, 0], told
    assert relative_difference(gradients(folder), doubled_batch) > 0.1


@pytest.mark.slow
def test_a_mistake_is_told_by_every_process_and_nothing_is_left(write_config):
    path, folder = write_config("two")
    codes, told = forked_pair(path, "optimiser.novelty=1")
    assert codes == [2, 2]
    assert all("optimiser.novelty is not known" in each for each in told)
    assert not folder.exists()


def test_alone_a_process_is_the_first_and_its_means_are_its_own():
    with join_processes("cpu") as processes:
        assert (processes.rank, processes.count, processes.is_first) == (0, 1, True)
        assert processes.mean([1.0, 2.0]) == [1.0, 2.0]
        processes.wait()


def test_the_means_are_over_all_processes(monkeypatch):
    # Two processes that hold 1 and 4: what the second one adds is put in by hand.
    def add_the_other(tensor):
        tensor += torch.tensor([4.0, 0.0], dtype=tensor.dtype)

    monkeypatch.setattr("torch.distributed.all_reduce", add_the_other)
    assert Processes(0, 2, torch.device("cpu")).mean([1.0, 3.0]) == [2.5, 1.5]


def test_more_processes_than_cuda_devices_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with (
        pytest.raises(ConfigError, match="process 1 of this machine has no CUDA device, there are 1"),
        join_processes("auto"),
    ):
        pass
