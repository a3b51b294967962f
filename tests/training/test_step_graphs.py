"""Steps as graphs against plain steps; the graphs are those of `reference.recorded_graphs`."""

import logging
from dataclasses import dataclass

import pytest
import torch

from clickvol.training import loop
from clickvol.training.processes import Processes
from clickvol.training.run import train_from_config
from clickvol.training.state import TrainState
from clickvol.training.step_graphs import StepGraphs
from clickvol.training.tasks.task import Step
from reference.recorded_graphs import stand_in_for_cuda


@dataclass(frozen=True)
class Values:
    """A batch of numbers whose mean is to be learned."""

    label: torch.Tensor
    nothing: torch.Tensor | None = None

    def to(self, device):
        return self


class Mean(Step):
    """Loss (w - mean)^2, in even steps; twice that in odd ones, as two kinds."""

    def __init__(self, *, kinds=2, host_factor=False, reads=False, dropout=0.0):
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor([5.0, 5.0, 5.0]))
        self.register_buffer("seen", torch.zeros(()))
        self.kinds, self.host_factor, self.reads = kinds, host_factor, reads
        self.dropout = torch.nn.Dropout(dropout)
        self.sizes = []

    def kind(self, number):
        return number % self.kinds

    def forward(self, batch, number):
        self.sizes.append(len(batch.label))
        self.seen += 1
        factor = 1 + number if self.host_factor else 1 + self.kind(number)
        if self.reads:
            factor *= 1 + int(batch.label.sum() > 1e6)
        away = self.dropout(self.w) - batch.label.mean()
        return factor * (away**2).sum(), away.detach().mean(), torch.zeros(())


def descend_of(step, *, graphs):
    optimiser = torch.optim.AdamW(step.parameters(), lr=0.1, fused=True)
    state = TrainState(0, step, optimiser, {})
    config = loop.TrainConfig.model_validate(
        {
            "model": {"id": "t", "title": "t"},
            "optimiser": {"steps": 9, "max_gradient_norm": 2.0},
            "run": {"folder": "unused", "precision": "float32"},
        }
    )
    plain = loop.make_descend(state, step, config, Processes(0, 1, torch.device("cpu")))
    return state, StepGraphs(plain, step, optimiser) if graphs else plain


def weights_after(step, batches, *, graphs, numbers=range(100)):
    torch.manual_seed(0)
    state, descend = descend_of(step, graphs=graphs)
    figures = []
    for number, values in zip(numbers, batches, strict=False):
        state.set_rate(0.1 / (1 + number))
        figures.append(torch.stack(descend([Values(torch.tensor(values))], number)).tolist())
    moments = state.optimiser.state[step.w]
    kept = [moments[name].tolist() for name in ("step", "exp_avg", "exp_avg_sq")]
    return [step.w.tolist(), step.seen.item(), *kept], figures, descend


BATCHES = [[1.0, 2.0], [3.0, 4.0], [0.0, 7.0], [2.0, 2.0], [9.0, 1.0], [4.0, 4.5], [6.0, 5.0], [1.0, 1.5]]


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_steps_as_graphs_are_the_plain_steps_to_the_bit(monkeypatch, dropout):
    plain, figures, _ = weights_after(Mean(dropout=dropout), BATCHES, graphs=False)
    begun = stand_in_for_cuda(monkeypatch)
    step = Mean(dropout=dropout)
    ours, told, descend = weights_after(step, BATCHES, graphs=True)
    assert ours == plain
    assert told == figures
    # Of each kind one plain step, one compared with its graph, and two as a graph alone.
    assert {kind: graph.replays for kind, (graph, _) in descend.graphs.items()} == {0: 3, 1: 3}
    assert len(begun) == 2
    # Python ran for two plain steps and a capture of each kind.
    assert len(step.sizes) == 6


def test_the_first_steps_by_hand(monkeypatch):
    stand_in_for_cuda(monkeypatch)
    (weights, seen, steps, *_), figures, _ = weights_after(Mean(kinds=1), [[1.0], [1.0], [1.0]], graphs=True)
    # AdamW's first steps go by the rate, .1, .05 and .0333, and shrink the weights by .01 of it.
    assert weights == pytest.approx([4.8072] * 3, abs=2e-3)
    assert figures[0] == [48.0, 4.0]
    assert (seen, steps) == (3, 3)


@pytest.mark.parametrize(
    ("step", "why"),
    [
        ({"host_factor": True}, "its loss is "),
        ({"reads": True}, "called a synchronizing CUDA operation"),
    ],
)
def test_a_step_that_no_graph_can_be_is_taken_plainly_and_said_once(monkeypatch, caplog, step, why):
    plain, figures, _ = weights_after(Mean(**step), BATCHES, graphs=False)
    begun = stand_in_for_cuda(monkeypatch)
    with caplog.at_level(logging.WARNING, "clickvol.training"):
        ours, told, descend = weights_after(Mean(**step), BATCHES, graphs=True)
    assert (ours, told) == (plain, figures)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"steps are not launched as CUDA graphs, and may wait for the host: {why}")
    assert not descend.is_on
    assert not descend.graphs
    # What waits for the device is told before a capture is begun, which it would leave broken.
    assert len(begun) == (0 if "reads" in step else 1)


@pytest.mark.parametrize("part", ["weights", "exp_avg", "step", "seen"])
def test_a_graph_that_leaves_something_else_is_refused(monkeypatch, caplog, part):
    plain, *_ = weights_after(Mean(), BATCHES, graphs=False)
    begun = stand_in_for_cuda(monkeypatch)
    step = Mean()
    torch.manual_seed(0)
    state, descend = descend_of(step, graphs=True)
    new_graph = torch.cuda.CUDAGraph

    def spoiled():
        graph = new_graph()
        replay = graph.replay

        def wrong():
            replay()
            with torch.no_grad():
                moments = state.optimiser.state[step.w]
                {"weights": step.w, "seen": step.seen}.get(part, moments.get(part)).add_(1)

        graph.replay = wrong
        return graph

    monkeypatch.setattr(torch.cuda, "CUDAGraph", spoiled)
    for number, values in enumerate(BATCHES):
        state.set_rate(0.1 / (1 + number))
        descend([Values(torch.tensor(values))], number)
    assert len(begun) == 1
    assert [step.w.tolist(), step.seen.item()] == plain[:2]
    (line,) = [record.getMessage() for record in caplog.records]
    assert f"{'buffers' if part == 'seen' else part} change by" in line


def test_a_batch_of_another_size_is_a_plain_step(monkeypatch):
    batches = [*BATCHES[:5], [8.0, 8.0, 2.0], *BATCHES[5:]]
    plain, *_ = weights_after(Mean(), batches, graphs=False)
    stand_in_for_cuda(monkeypatch)
    step = Mean()
    ours, _, descend = weights_after(step, batches, graphs=True)
    assert ours == plain
    assert step.sizes.count(3) == 1
    assert len(descend.graphs) == 2


# Numbers of which the first two are of one kind, whose graph is there when another kind begins.
NUMBERS = [0, 2, 1, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(("fails_at", "graphs_begun"), [(2, 1), (3, 1), (1, 0)])
def test_memory_that_runs_out_leaves_plain_steps(monkeypatch, caplog, fails_at, graphs_begun):
    """At the capture, at the first step of another kind, and in the plain half of a comparison."""
    plain, *_ = weights_after(Mean(), BATCHES, graphs=False, numbers=NUMBERS)
    begun = stand_in_for_cuda(monkeypatch)
    passes = iter(range(100))
    forward = Mean.forward

    def full(self, batch, number):
        if next(passes) == fails_at:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")
        return forward(self, batch, number)

    monkeypatch.setattr(Mean, "forward", full)
    ours, _, descend = weights_after(Mean(), BATCHES, graphs=True, numbers=NUMBERS)
    assert ours == plain
    assert len(begun) == graphs_begun
    assert not descend.is_on
    assert not descend.graphs
    assert len(caplog.records) == 1


def test_memory_that_runs_out_without_graphs_is_told(monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    stand_in_for_cuda(monkeypatch)
    monkeypatch.setattr(Mean, "forward", full)
    with pytest.raises(torch.OutOfMemoryError):
        weights_after(Mean(), BATCHES, graphs=True)


def test_only_a_device_that_trains_alone_in_full_numbers_takes_graphs():
    step = Mean()
    state, _ = descend_of(step, graphs=False)
    config = loop.TrainConfig.model_validate(
        {
            "model": {"id": "t", "title": "t"},
            "optimiser": {"steps": 9},
            "run": {"folder": "unused"},
        }
    )

    def takes(device="cuda", **run):
        changed = config.model_copy(update={"run": config.run.model_copy(update=run)})
        made = loop.make_descend(state, step, changed, Processes(0, 1, torch.device(device)))
        return isinstance(made, StepGraphs)

    assert takes()
    assert not takes("cpu")
    assert not takes(cuda_graphs=False)
    state.scaler = torch.amp.GradScaler("cpu", enabled=True)
    assert not takes()


@pytest.mark.slow
def test_a_run_with_graphs_resumed_or_not_is_the_plain_run_to_the_bit(write_config, monkeypatch):
    settings = ["optimiser.accumulate=2", "sampling.max_corrected_clicks=2", "optimiser.steps=9"]
    settings += ["optimiser.batch_size=1", "data.phantoms=1"]
    stand_in_for_cuda(monkeypatch)
    made = []

    def with_graphs(state, step, config, processes, make=loop.make_descend):
        made.append(StepGraphs(make(state, step, config, processes), step, state.optimiser))
        return made[-1]

    monkeypatch.setattr(loop, "make_descend", with_graphs)
    with monkeypatch.context() as patch:
        # The plain steps have their rate in float32, too.
        patch.setattr(StepGraphs, "__call__", lambda self, rounds, number: self._plain(rounds, number))
        path, folder = write_config("plain")
        train_from_config(path, settings)
    assert not made.pop().graphs
    plain = torch.load(folder / "checkpoint.pt", weights_only=True)
    path, folder = write_config("graphs")
    train_from_config(path, settings, max_steps=5)
    train_from_config(path, settings)
    ours = torch.load(folder / "checkpoint.pt", weights_only=True)
    assert all(each.is_on for each in made)
    assert len(made) == 2
    assert all(each.graphs for each in made)
    for part in ("network", "average"):
        assert plain[part].keys() == ours[part].keys()
        assert all(torch.equal(value, ours[part][name]) for name, value in plain[part].items())
    assert ours["samples"] == plain["samples"] == 18
