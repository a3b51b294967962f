"""CUDA graphs without CUDA: what a capture is and does, played on the CPU.

While a `RecordedGraph` is captured, every operation is recorded with the very tensors that it was given. Unlike
a device, the CPU computes meanwhile; what was written into older memory is put back at the end. `replay` does
them again in the same memory, so whatever Python decided, or copied elsewhere, stays as it was at the capture.
"""

import contextlib
import warnings

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# What a device would have to be waited for.
_READS = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)


class _RefusesReads(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in _READS:
            raise RuntimeError("called a synchronizing CUDA operation")
        return func(*args, **(kwargs or {}))


class RecordedGraph(TorchDispatchMode):
    """Stands for `torch.cuda.CUDAGraph`.

    Attributes:
        replays: how often it was launched.
    """

    def __init__(self):
        super().__init__()
        self._calls, self._own, self._older = [], {}, {}
        self.replays = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in _READS:
            raise RuntimeError("operation not permitted when stream is capturing")
        for argument, value in zip(func._schema.arguments, args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                for tensor in _tensors_in(value):
                    place = tensor.untyped_storage().data_ptr()
                    if place not in self._own and place not in self._older:
                        self._older[place] = tensor.untyped_storage(), tensor.untyped_storage().clone()
        before = {t.untyped_storage().data_ptr() for t in _tensors_in((args, kwargs))}
        result = func(*args, **kwargs)
        made = [t for t in _tensors_in(result) if t.untyped_storage().data_ptr() not in before]
        # Held, so that no later tensor has the same address.
        self._own |= {t.untyped_storage().data_ptr(): t for t in made}
        self._calls.append((func, args, kwargs, result, made))
        return result

    def end(self):
        for storage, old in self._older.values():
            storage.copy_(old)

    def replay(self):
        self.replays += 1
        with torch.no_grad():
            for func, args, kwargs, result, made in self._calls:
                again = func(*args, **kwargs)
                for mine, new in zip(_tensors_in(result), _tensors_in(again), strict=True):
                    if any(mine is tensor for tensor in made):
                        mine.copy_(new)


def _tensors_in(tree):
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


class _Stream:
    def wait_stream(self, other):
        pass


def stand_in_for_cuda(monkeypatch):
    """Let graphs be captured and launched on the CPU; return all that were begun."""
    begun, modes = [], []

    def new_graph():
        begun.append(RecordedGraph())
        return begun[-1]

    @contextlib.contextmanager
    def capture(graph, pool):
        try:
            with graph:
                yield
        finally:
            graph.end()

    @contextlib.contextmanager
    def on_stream(_):
        with contextlib.ExitStack() as stack:
            if modes and modes[-1] == "error":
                stack.enter_context(_RefusesReads())
            yield

    def set_mode(mode):
        if not modes:
            warnings.warn("Synchronization debug mode is a prototype feature", UserWarning, stacklevel=1)
        modes.append(mode)

    nothing = contextlib.nullcontext
    for name, value in {
        "CUDAGraph": new_graph,
        "graph": capture,
        "graph_pool_handle": object,
        "Stream": _Stream,
        "current_stream": _Stream,
        "stream": on_stream,
        "device": nothing,
        "set_sync_debug_mode": set_mode,
        "get_rng_state": lambda _: torch.get_rng_state(),
        "set_rng_state": lambda state, _: torch.set_rng_state(state),
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    # CUDA's own checks nothing, so that nothing waits.
    monkeypatch.setattr(F, "one_hot", lambda index, n: (index[..., None] == torch.arange(n)).long())
    return begun
