"""Steps as CUDA graphs: launched one by one, the many small kernels of a step wait for the host.

A graph does again what was launched while it was captured, with whatever then lies in the same memory. What the
host decides is fixed in it, so there is one for each kind of step.
"""

import copy
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass

import torch
from torch import Tensor, nn

from clickvol.training.tasks.task import Batch

Descend = Callable[[list[Batch], int], tuple[Tensor, Tensor]]
"""Takes a step from its batches and its number; returns loss and figures, on the device."""

_log = logging.getLogger("clickvol.training")

# Most that a captured step may differ from a plain one: of what the plain one changed, and of its loss. Chosen:
# kernels that add up in another order stay below, another batch or rate does not.
_TOLERANCE = 0.3
_LOSS_TOLERANCE = 0.01


class StepGraphs:
    """Takes steps, as graphs where that is the same: the first of a kind plainly, the second both ways.

    Where a graph cannot be made, or differs, one line says so, and all steps from then on are plain ones.

    Args:
        plain: launches every kernel by itself. What it leaves for the next step stays where it is in memory.
        kind_of: what the host decides about the step of a number; all else is the same in every step.
        network: that is trained.
        optimiser: fused AdamW; its rate becomes a tensor.
    """

    def __init__(
        self,
        plain: Descend,
        kind_of: Callable[[int], int],
        network: nn.Module,
        optimiser: torch.optim.Optimizer,
    ) -> None:
        self._plain, self._kind_of = plain, kind_of
        self._network, self._optimiser = network, optimiser
        self._device = next(network.parameters()).device
        self._first_numbers: dict[int, int] = {}
        self._inputs: list[Batch] = []
        self.graphs: dict[int, tuple[torch.cuda.CUDAGraph, tuple[Tensor, Tensor]]] = {}
        self.is_on = True
        for group in optimiser.param_groups:
            # A number would be fixed in a graph.
            group["lr"] = torch.tensor(float(group["lr"]), device=self._device)

    def __call__(self, rounds: list[Batch], number: int) -> tuple[Tensor, Tensor]:
        """Take a step; what is returned is overwritten by the next one.

        Args:
            rounds: batches of the step.
            number: of the step, from 0.
        """
        kind = self._kind_of(number)
        has_shape = not self._inputs or _shapes(rounds) == _shapes(self._inputs)
        if not self.is_on or not has_shape:
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

    def _compared(self, kind: int, rounds: list[Batch], number: int) -> tuple[Tensor, Tensor]:
        """Take a step plainly, take it back, and take it again as a graph that was captured meanwhile."""
        before, random_before = self._copies(), torch.cuda.get_rng_state(self._device)
        try:
            loss, _ = self._without_waiting(rounds, number)
            expected, after = float(loss), self._copies()
            graph, figures = self._capture(rounds, self._first_numbers[kind])
            self._put(before, random_before)
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
        self._put(before, random_before)
        return self._plain(rounds, number)

    def _without_waiting(self, rounds: list[Batch], number: int) -> tuple[Tensor, Tensor]:
        """Take a plain step; RuntimeError where the host waits for the device, which no capture survives."""
        # Libraries choose their kernels on another stream than the one that everything else waits for.
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        current = torch.cuda.current_stream()
        stream.wait_stream(current)
        torch.cuda.set_sync_debug_mode("error")
        try:
            with torch.cuda.stream(stream):
                return self._plain(rounds, number)
        finally:
            torch.cuda.set_sync_debug_mode("default")
            current.wait_stream(stream)

    def _capture(self, rounds: list[Batch], number: int) -> tuple[torch.cuda.CUDAGraph, tuple[Tensor, Tensor]]:
        """Return a step that was not taken, and where it will leave its figures."""
        if not self._inputs:
            self._inputs = [copy.deepcopy(batch.to(self._device)) for batch in rounds]
            # Graphs are replayed one after the other, so what one no longer needs is free for all.
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        self._optimiser.zero_grad()
        self._say_capturable(value=True)
        try:
            # torch leaves its own stream as the current one when a capture fails.
            with torch.cuda.stream(torch.cuda.current_stream()), torch.cuda.graph(graph, pool=self._pool):
                return graph, self._plain(self._inputs, number)
        finally:
            self._say_capturable(value=False)

    def _say_capturable(self, *, value: bool) -> None:
        """Tell the optimiser what it asks for in a capture, and warns of outside; fused, it does the same."""
        for group in self._optimiser.param_groups:
            group["capturable"] = value

    def _replay(
        self, graph: torch.cuda.CUDAGraph, figures: tuple[Tensor, Tensor], rounds: list[Batch]
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

    def _state(self) -> dict[str, list[Tensor]]:
        """Return all that a step changes."""
        moments = list(self._optimiser.state.values())
        weights = [p for group in self._optimiser.param_groups for p in group["params"]]
        state = {"weights": weights, "buffers": list(self._network.buffers())}
        return state | {name: [m[name] for m in moments] for name in ("step", "exp_avg", "exp_avg_sq")}

    def _copies(self) -> dict[str, list[Tensor]]:
        """Return the state in the host's memory, since the device's may be full."""
        return {n: [t.detach().to("cpu", copy=True) for t in part] for n, part in self._state().items()}

    @torch.no_grad()
    def _put(self, state: dict[str, list[Tensor]], random: Tensor) -> None:
        for name, part in self._state().items():
            for mine, old in zip(part, state[name], strict=True):
                mine.copy_(old)
        torch.cuda.set_rng_state(random, self._device)


def _tensors(value: object) -> Iterator[Tensor]:
    """Yield the tensors of batches, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list):
        for part in value:
            yield from _tensors(part)
    elif is_dataclass(value):
        for field in fields(value):
            yield from _tensors(getattr(value, field.name))


def _shapes(rounds: list[Batch]) -> list[torch.Size]:
    return [tensor.shape for tensor in _tensors(rounds)]


def _difference(
    ours: dict[str, list[Tensor]], plain: dict[str, list[Tensor]], before: dict[str, list[Tensor]]
) -> str | None:
    """Return in what a captured step went elsewhere than the plain one; None where it did not."""
    for name, expected in plain.items():
        change, error = _distance(expected, before[name]), _distance(ours[name], expected)
        if not error <= _TOLERANCE * change:
            return f"{name} change by {change:.3g}, and with a graph they end {error:.3g} away"
    return None


def _distance(ours: list[Tensor], others: list[Tensor]) -> float:
    pairs = zip(ours, others, strict=True)
    return math.sqrt(sum(float((a.double() - b.double()).square().sum()) for a, b in pairs))
