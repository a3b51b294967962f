"""How far two results are apart, and modules whose every parameter matters."""

import torch
from torch import Tensor, nn


def deviation(result: Tensor, expected: Tensor) -> float:
    """Return the largest absolute difference of two tensors of one shape."""
    assert result.shape == expected.shape, (result.shape, expected.shape)
    return float((result - expected).detach().abs().max())


def randomise(module: nn.Module, seed: int = 0, scale: float = 0.3) -> nn.Module:
    """Add noise to every parameter, so that no zero start hides a path; return the module."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in sorted(module.named_parameters()):
            fan = max(1, parameter[0].numel()) if parameter.ndim > 1 else 1
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise * scale / fan**0.5)
    return module


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Return standard normal float32 of a shape."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def num_parameters(module: nn.Module) -> int:
    """Return how many values a module learns."""
    return sum(p.numel() for p in module.parameters())
