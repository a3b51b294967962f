"""Weights in the number format of the matrix work under way."""

import torch
from torch import Tensor, nn


def cast_linears(module: nn.Module) -> dict[str, Tensor]:
    """Return the weights and biases of the linear layers in a module as autocast would cast them.

    Autocast casts a frozen weight at every use. Work that is done in many steps casts first and hands
    the result to each step, through `torch.func.functional_call`.

    Returns:
        Tensors by the name of the parameter that they stand for.
    """
    linears = [(name, m) for name, m in module.named_modules() if isinstance(m, nn.Linear)]
    cast: dict[str, Tensor] = {}
    for prefix, linear in linears:
        for name, parameter in linear.named_parameters(prefix):
            device = parameter.device.type
            wanted = torch.is_autocast_enabled(device)
            cast[name] = parameter.to(torch.get_autocast_dtype(device)) if wanted else parameter
    return cast
