"""Steps as CUDA graphs: launched one by one, the many small kernels of a step wait for the host.

A graph does again what was launched while it was captured, with whatever then lies in the same memory. What the
host decides is fixed in it, so there is one for each kind of step.
"""

import copy
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass

import torch
from torch import Tensor

from clickvol.training.tasks.task import Batch, Step

Descend = Callable[[Sequence[Batch], int], tuple[Tensor, Tensor]]
"""Takes a step from its batches and its number, from 0; returns loss and figures, on the device."""

_State = dict[str, list[Tensor]]

_log = logging.getLogger("clickvol.training")

# Most that a captured step may differ from a plain one: of what the plain one changed, and of its loss. Chosen
# above what rounding does: bfloat16 in place of float32 makes .06 to .11, and .0005 of the loss
# (promise3d-lesions, second step of 4 patches of phantoms, on a CPU).
_TOLERANCE = 0.3
_LOSS_TOLERANCE = 0.01


class StepGraphs:
    """Takes steps, as graphs where that is the same: the first of a kind plainly, the second both ways.

    Where a graph cannot be made, or differs, one line says so, and all steps from then on are plain ones. What
    a step returns is overwritten by the next one.

    Args:
        plain: launches every kernel by itself. What it leaves for the next step stays where it is in memory.
        step: whose kinds these are, with the network that is trained.
        optimiser: fused AdamW; its rate becomes a tensor.
    """

    def __init__(self, plain: Descend, step: Step, optimiser: torch.optim.Optimizer) -> None:
        self._plain, self._step, self._optimiser = plain, step, optimiser
        self._device = next(step.parameters()).device
        self._first_numbers: dict[int, int] = {}
        self._inputs: list[Batch] = []
        self.graphs: dict[int, tuple[torch.cuda.CUDAGraph, tuple[Tensor, Tensor]]] = {}
        self.is_on = True
        for group in optimiser.param_groups:
            # A number would be fixed in a graph.
            group["lr"] = torch.tensor(float(group["lr"]), device=self._device)

    def __call__(self, rounds: Sequence[Batch], number: int) -> tuple[Tensor, Tensor]:
        """Take a step; see `Descend`."""
        kind = self._step.kind(number)
        shapes = ([tensor.shape for tensor in _tensors(batches)] for batches in (self._inputs, rounds))
        if not self.is_on or (self._inputs and next(shapes) != next(shapes)):
            return self._plain(rounds, number)
        if kind in self.graphs:
            return self._replay(*self.graphs[kind], rounds)
        if kind in self._first_numbers:
            with torch.cuda.device(self._device):
                return self._compared(kind, rounds, number)
        self._first_numbers[kind] = number
        try:
            return self._plain(rounds, number)
        except torch.OutOfMemoryError:
            if not self.graphs:
                raise
        self._stop("their memory is needed")
        return self._plain(rounds, number)

    def _compared(self, kind: int, rounds: Sequence[Batch], number: int) -> tuple[Tensor, Tensor]:
        """Take a step plainly, take it back, and take it again as a graph that was captured meanwhile."""
        before, random = self._copies(), torch.cuda.get_rng_state(self._device)
        try:
            loss, _ = self._without_waiting(rounds, number)
            expected, after = float(loss), self._copies()
            graph, figures = self._capture(rounds, self._first_numbers[kind])
            self._put(before, random)
            self._replay(graph, figures, rounds)
            problem = _difference(self._copies(), after, before)
            if not abs(float(figures[0]) - expected) <= _LOSS_TOLERANCE * abs(expected):
                problem = f"its loss is {float(figures[0]):.4g} in place of {expected:.4g}"
        except RuntimeError as error:  # whatever it is, a plain step is without it or tells it again
            problem = str(error).partition("\n")[0]
        if problem is None:
            self.graphs[kind] = graph, figures
            return figures
        self._stop(problem)
        self._put(before, random)
        return self._plain(rounds, number)

    def _without_waiting(self, rounds: Sequence[Batch], number: int) -> tuple[Tensor, Tensor]:
        """Take a plain step; RuntimeError where the host waits for the device, which no capture survives."""
        # Libraries choose their kernels on another stream than the one that everything else waits for.
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        current = torch.cuda.current_stream()
        stream.wait_stream(current)
        with warnings.catch_warnings(action="ignore"):  # that torch may overlook some
            torch.cuda.set_sync_debug_mode("error")
        try:
            with torch.cuda.stream(stream):
                return self._plain(rounds, number)
        finally:
            torch.cuda.set_sync_debug_mode("default")
            current.wait_stream(stream)

    def _capture(
        self, rounds: Sequence[Batch], number: int
    ) -> tuple[torch.cuda.CUDAGraph, tuple[Tensor, Tensor]]:
        """Return a step that was not taken, and where it will leave its figures."""
        if not self._inputs:
            self._inputs = [copy.deepcopy(batch.to(self._device)) for batch in rounds]
            # Graphs are replayed one after the other, so what one no longer needs is free for all.
            self._pool = torch.cuda.graph_pool_handle()
        graph, groups = torch.cuda.CUDAGraph(), self._optimiser.param_groups
        self._optimiser.zero_grad()
        # Asked for in a capture, and warned of outside; a fused optimiser does the same with it.
        groups[0]["capturable"] = True
        try:
            # torch leaves its own stream as the current one when a capture fails.
            with torch.cuda.stream(torch.cuda.current_stream()), torch.cuda.graph(graph, pool=self._pool):
                return graph, self._plain(self._inputs, number)
        finally:
            groups[0]["capturable"] = False

    def _replay(
        self, graph: torch.cuda.CUDAGraph, figures: tuple[Tensor, Tensor], rounds: Sequence[Batch]
    ) -> tuple[Tensor, Tensor]:
        for mine, new in zip(_tensors(self._inputs), _tensors(rounds), strict=True):
            mine.copy_(new, non_blocking=True)
        graph.replay()
        return figures

    def _stop(self, why: str) -> None:
        self.is_on = False
        self.graphs.clear()
        self._inputs = []
        _log.warning("steps are not launched as CUDA graphs, and may wait for the host: %s", why)

    def _state(self) -> _State:
        """Return all that a step changes."""
        moments = list(self._optimiser.state.values())
        weights = [p for group in self._optimiser.param_groups for p in group["params"]]
        state = {"weights": weights, "buffers": list(self._step.buffers())}
        return state | {name: [m[name] for m in moments] for name in ("step", "exp_avg", "exp_avg_sq")}

    def _copies(self) -> _State:
        """Return the state in the host's memory, since the device's may be full."""
        return {n: [t.detach().to("cpu", copy=True) for t in part] for n, part in self._state().items()}

    @torch.no_grad()
    def _put(self, state: _State, random: Tensor) -> None:
        for name, part in self._state().items():
            for mine, old in zip(part, state[name], strict=True):
                mine.copy_(old)
        torch.cuda.set_rng_state(random, self._device)


def _tensors(value: object) -> Iterator[Tensor]:
    """Yield the tensors of batches, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)
    elif is_dataclass(value):
        yield from _tensors([getattr(value, field.name) for field in fields(value)])


def _difference(ours: _State, plain: _State, before: _State) -> str | None:
    """Return in what a captured step went elsewhere than the plain one; None where it did not."""
    for name, expected in plain.items():
        change, error = _distance(expected, before[name]), _distance(ours[name], expected)
        if not error <= _TOLERANCE * change:
            return f"{name} change by {change:.3g}, and with a graph they end {error:.3g} away"
    return None


def _distance(ours: list[Tensor], others: list[Tensor]) -> float:
    pairs = zip(ours, others, strict=True)
    return math.sqrt(sum(float((a.double() - b.double()).square().sum()) for a, b in pairs))
