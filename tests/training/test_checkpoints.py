import io
import pickle

import pytest
import torch

from clickvol.errors import ConfigError
from clickvol.methods.lifted_segmenter import LiftedSegmenter
from clickvol.methods.promise3d import promise3d_recipe
from clickvol.training.checkpoints import Checkpoints
from clickvol.training.state import TrainState

CONFIGURATION = '{"model": {"size": "tiny"}, "optimiser": {"steps": 4}}'


class Payload:
    """Touches a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (self.path.touch, ())


def make_state(seed, preset="tiny"):
    torch.manual_seed(seed)
    network = LiftedSegmenter(promise3d_recipe("clickvol", preset).network)
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.1)
    for parameter in network.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimiser.step()
    average = {name: torch.randn_like(value) for name, value in network.named_parameters()}
    return TrainState(seed, network, optimiser, average)


def test_everything_comes_back_to_the_bit(tmp_path):
    saved, other = make_state(11), make_state(12)
    saved.seconds = 7.5
    Checkpoints(tmp_path, CONFIGURATION).save(saved)
    Checkpoints(tmp_path, CONFIGURATION).restore(other)
    assert (other.step, other.seconds) == (11, 7.5)
    for name, value in saved.network.state_dict().items():
        assert torch.equal(other.network.state_dict()[name], value)
    for name, value in saved.average.items():
        assert torch.equal(other.average[name], value)
    ours, theirs = other.optimiser.state_dict()["state"], saved.optimiser.state_dict()["state"]
    assert ours.keys() == theirs.keys()
    for index in ours:
        for kind in ("step", "exp_avg", "exp_avg_sq"):
            assert torch.equal(ours[index][kind], theirs[index][kind])


def test_a_checkpoint_that_knows_no_seconds_is_gone_on_from(tmp_path):
    Checkpoints(tmp_path, CONFIGURATION).save(make_state(11))
    content = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    del content["seconds"]
    torch.save(content, tmp_path / "checkpoint.pt")
    state = make_state(12)
    Checkpoints(tmp_path, CONFIGURATION).restore(state)
    assert (state.step, state.seconds) == (11, 0.0)


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    Checkpoints(tmp_path, CONFIGURATION).save(make_state(11))
    state = make_state(12)
    with pytest.raises(ConfigError, match=r"another network: model\.size was tiny and is small; use --fresh"):
        Checkpoints(tmp_path, CONFIGURATION.replace("tiny", "small")).restore(state)
    assert state.step == 12


def test_what_does_not_change_the_network_may_differ_and_is_told(tmp_path):
    Checkpoints(tmp_path, CONFIGURATION).save(make_state(11))
    state = make_state(12)
    state.optimiser.param_groups[0]["weight_decay"] = 0.5
    changes = Checkpoints(tmp_path, CONFIGURATION.replace("4", "9")).restore(state)
    assert changes == {"optimiser.steps": [4, 9]}
    assert state.step == 11
    # What the new configuration told the optimiser stays.
    assert state.optimiser.param_groups[0]["weight_decay"] == 0.5


def test_a_network_that_has_changed_since_is_refused(tmp_path):
    Checkpoints(tmp_path, CONFIGURATION).save(make_state(11))
    with pytest.raises(ConfigError, match="another version of the network") as caught:
        Checkpoints(tmp_path, CONFIGURATION).restore(make_state(12, "small"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kept", [0, 10, 1000, -1])
def test_a_truncated_checkpoint_is_refused(tmp_path, kept):
    path = tmp_path / "checkpoint.pt"
    Checkpoints(tmp_path, CONFIGURATION).save(make_state(11))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ConfigError, match=r"checkpoint\.pt is not a checkpoint.*use --fresh") as caught:
        Checkpoints(tmp_path, CONFIGURATION).restore(make_state(12))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [{}, [1, 2], {"fingerprint": "f"}])
def test_another_file_of_torch_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "checkpoint.pt")
    with pytest.raises(ConfigError, match="is not a checkpoint"):
        Checkpoints(tmp_path, CONFIGURATION).restore(make_state(12))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_a_checkpoint_that_runs_code_is_refused_and_not_run(tmp_path, form):
    path, touched = tmp_path / "checkpoint.pt", tmp_path / "touched"
    content = {"fingerprint": "f", "step": Payload(touched)}
    if form == "torch":
        buffer = io.BytesIO()
        torch.save(content, buffer)
        path.write_bytes(buffer.getvalue())
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(ConfigError, match="is not a checkpoint"):
        Checkpoints(tmp_path, CONFIGURATION).restore(make_state(12))
    assert not touched.exists()


def test_a_failed_write_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    Checkpoints(tmp_path, CONFIGURATION).save(make_state(11))
    before = path.read_bytes()

    def fail(content, target):
        target.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(KeyboardInterrupt):
        Checkpoints(tmp_path, CONFIGURATION).save(make_state(12))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
