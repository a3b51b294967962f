"""`clickvol` with a fault: processes add their gradients ("sum"), or each keeps its "own"."""

import sys

import torch.distributed as dist

from clickvol.cli.app import main
from clickvol.training import loop


def add(_state, bucket):
    """Add the gradients of all processes and forget to divide."""
    future = dist.all_reduce(bucket.buffer(), async_op=True).get_future()
    return future.then(lambda f: f.value()[0])


def without_division(step, processes, num_rounds):
    """Let the processes share sums."""
    shared = right(step, processes, num_rounds)
    shared.register_comm_hook(None, add)
    return shared


right = loop._for_all_processes
fault = sys.argv.pop(1)
loop._for_all_processes = without_division if fault == "sum" else lambda step, *_: step
sys.exit(main(sys.argv[1:]))
