"""Weights in the number format of the matrix work under way."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """Return what autocast casts matrix work on a device to; None where it is off."""
    available = torch.amp.is_autocast_available(device.type)
    if not available or not torch.is_autocast_enabled(device.type):
        return None
    return torch.get_autocast_dtype(device.type)


def without_autocast(device: torch.device) -> AbstractContextManager[None]:
    """Return a context in which autocast leaves work on a device alone."""
    if autocast_dtype(device) is None:
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def cast_linears(module: nn.Module) -> dict[str, Tensor]:
    """Return the weights and biases of the linear layers in a module as autocast would cast them, by name.

    Autocast casts a frozen weight at every use. Work that is done in many steps casts first and hands the
    result to each step, through `torch.func.functional_call`.
    """
    linears = [(name, m) for name, m in module.named_modules() if isinstance(m, nn.Linear)]
    return {
        name: parameter.to(autocast_dtype(parameter.device) or parameter.dtype)
        for prefix, linear in linears
        for name, parameter in linear.named_parameters(prefix)
    }
