"""Weights in the number format of the matrix work under way."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.func import functional_call


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """Return what autocast casts matrix work on a device to; None where it is off."""
    # "meta" is unknown there, and to ask what is known is more than torch.compile can follow.
    if device.type == "meta" or not torch.is_autocast_enabled(device.type):
        return None
    return torch.get_autocast_dtype(device.type)


def without_autocast(device: torch.device) -> AbstractContextManager[None]:
    """Return a context in which autocast leaves work on a device alone."""
    if autocast_dtype(device) is None:
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def cast_once(module: nn.Module, device: torch.device) -> Callable[..., Tensor]:
    """Return a module as a function, the weights of its linear layers cast as autocast would cast them.

    Autocast casts a frozen weight at every use. Work that is done in many steps casts first.
    """
    dtype = autocast_dtype(device)
    if dtype is None:
        return module
    linears = [(name, m) for name, m in module.named_modules() if isinstance(m, nn.Linear)]
    cast = {n: p.to(dtype) for prefix, linear in linears for n, p in linear.named_parameters(prefix)}
    return lambda *inputs: torch.as_tensor(functional_call(module, cast, inputs))
