"""Two faults of training in several processes: they add their gradients, or each keeps its own."""

import torch.distributed as dist

from clickvol.training import loop

_right = loop._for_all_processes


def share_sums():
    """Forget to divide by the number of processes."""
    loop._for_all_processes = _without_division


def keep_own():
    """Let no process know of another."""
    loop._for_all_processes = lambda step, *_: step


def _add(_state, bucket):
    future = dist.all_reduce(bucket.buffer(), async_op=True).get_future()
    return future.then(lambda f: f.value()[0])


def _without_division(step, processes, num_rounds):
    shared = _right(step, processes, num_rounds)
    shared.register_comm_hook(None, _add)
    return shared
