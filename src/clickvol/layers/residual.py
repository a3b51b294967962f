"""Additions to a stream of tokens: as a whole, in place part by part, or done again for the gradients.

A large ViT on a CPU spends as much time on fetching memory as on multiplying, if it works on all tokens at
once: temporaries fall out of the cache, and the C library gives them back to the system after every use.
And it keeps more for the backward pass than a machine has. Both end where the work is cut into parts.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from clickvol.layers.matrix_work import autocast_dtype


@dataclass(frozen=True, slots=True)
class Places:
    """Some tokens of a stream (T, E).

    Attributes:
        index: a range of tokens, or their numbers (N,), -1 where there is none (padding).
        is_padded: whether there is a -1.
    """

    index: slice | Tensor
    is_padded: bool = False

    def take(self, rows: Tensor) -> Tensor:
        """Return these tokens: (T, E) -> (N, E); zeros where there is none."""
        if isinstance(self.index, slice):
            return rows[self.index]
        return self.blank(rows.index_select(0, self.index.clamp(min=0)))

    def blank(self, selected: Tensor) -> Tensor:
        """Set to zero where there is no token: (N, E) -> (N, E)."""
        if isinstance(self.index, slice) or not self.is_padded:
            return selected
        return selected.masked_fill(self.index[:, None] < 0, 0)

    def add_(self, rows: Tensor, update: Tensor) -> None:
        """Add (N, E) to these tokens of (T, E), in place."""
        if isinstance(self.index, slice):
            rows[self.index].add_(update)
            return
        index = self.index
        if self.is_padded:
            real = index >= 0
            index, update = index[real], update[real]
        rows.index_add_(0, index, update.to(rows.dtype))


Part = tuple[Places, Callable[[Tensor], Tensor]]
"""Some tokens, and what is added to them: (N, E) -> (N, E)."""


class Residual(ABC):
    """tokens -> factor * tokens + update(tokens), for (B, d, h, w, E); the update is made with `modules`."""

    def __init__(self, *modules: nn.Module, factor: float = 1.0) -> None:
        self.modules = modules
        self.factor = factor

    @abstractmethod
    def parts(self, tokens: Tensor, part_tokens: int) -> Iterator[Part]:
        """Cut the update of (B, d, h, w, E) into parts of about so many tokens that need none but their own."""

    def add(self, tokens: Tensor) -> Tensor:
        """Return the sum: (B, d, h, w, E) -> (B, d, h, w, E)."""
        rows = tokens.reshape(-1, tokens.shape[-1])
        result = self.factor * rows if self.factor != 1 else rows.clone()
        for places, update in self.parts(tokens, len(rows)):
            places.add_(result, update(places.take(rows)))
        return result.view(tokens.shape)

    def add_(self, tokens: Tensor, part_tokens: int) -> None:
        """Do the same in place, part by part, without gradients; the tokens are contiguous."""
        rows = tokens.view(-1, tokens.shape[-1])
        for places, update in self.parts(tokens, part_tokens):
            added = update(places.take(rows))
            if self.factor != 1:
                added = torch.add(added, places.take(rows), alpha=self.factor - 1)
            places.add_(rows, added)

    def add_again(self, tokens: Tensor, part_tokens: int) -> Tensor:
        """Do the same and keep the tokens alone; the backward pass makes each part again.

        torch.utils.checkpoint could do that with all tokens at once, whose temporaries on a CPU cost more time
        than what is done again.
        """
        parameters = [p for m in self.modules for p in m.parameters() if p.requires_grad]
        result = _Again.apply(  # type: ignore[no-untyped-call] # torch does not say
            tokens, self, part_tokens, *parameters
        )
        return torch.as_tensor(result)


class _Again(torch.autograd.Function):
    """Autograd's side of `Residual.add_again`."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, residual: Residual, part_tokens: int, *parameters: Tensor) -> Tensor:
        ctx.save_for_backward(tokens, *parameters)
        ctx.residual, ctx.part_tokens = residual, part_tokens
        ctx.cast_to = autocast_dtype(tokens.device)
        result = tokens.clone(memory_format=torch.contiguous_format)
        residual.add_(result, part_tokens)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_result: Tensor) -> tuple[Tensor | None, ...]:
        tokens, *parameters = ctx.saved_tensors
        rows, grad_rows = (x.reshape(-1, tokens.shape[-1]) for x in (tokens, grad_result))
        gradients = [grad_rows * ctx.residual.factor, *(torch.zeros_like(p) for p in parameters)]
        with torch.enable_grad(), _autocast(tokens.device, ctx.cast_to):
            for places, update in ctx.residual.parts(tokens, ctx.part_tokens):
                selected = places.take(rows).detach().requires_grad_()
                added = update(selected)
                grad_added = places.take(grad_rows).to(added.dtype)
                grads = torch.autograd.grad(added, [selected, *parameters], grad_added)
                places.add_(gradients[0], grads[0])
                for total, grad in zip(gradients[1:], grads[1:], strict=True):
                    total.add_(grad)
        return gradients[0].view(tokens.shape), None, None, *gradients[1:]


def _autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[None]:
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)
