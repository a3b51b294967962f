"""Cubic windows on a grid of tokens: cutting, shifting and who may see whom."""

import torch
import torch.nn.functional as F
from torch import Tensor

Triple = tuple[int, int, int]


def padded_shape(shape_dhw: Triple, window: Triple) -> Triple:
    """Return the smallest multiples of the window that hold the grid."""
    d, h, w = (-(-n // k) * k for n, k in zip(shape_dhw, window, strict=True))
    return (d, h, w)


def to_windows(tokens: Tensor, window: Triple, shift: Triple) -> Tensor:
    """Cut a grid of tokens, (B, d, h, w, E), into windows.

    The grid is padded at its far ends with zeros to a multiple of the window (tokens per axis), then rolled by
    minus `shift`, then cut.

    Returns:
        (B * num_windows, window_d, window_h, window_w, E); windows in d, h, w order.
    """
    b, d, h, w, e = tokens.shape
    pd, ph, pw = padded_shape((d, h, w), window)
    if (pd, ph, pw) != (d, h, w):
        tokens = F.pad(tokens, (0, 0, 0, pw - w, 0, ph - h, 0, pd - d))
    if any(shift):
        tokens = torch.roll(tokens, [-s for s in shift], dims=(1, 2, 3))
    kd, kh, kw = window
    cut = tokens.view(b, pd // kd, kd, ph // kh, kh, pw // kw, kw, e)
    return cut.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(-1, kd, kh, kw, e)


def window_index(
    shape_dhw: Triple, window: Triple, shift: Triple, *, batch: int, device: torch.device
) -> Tensor:
    """Tell which token is where in which window, in the order of `to_windows`.

    Returns:
        (batch * num_windows, places) long: index into the tokens (batch * d * h * w); -1 where padded.
    """
    count = batch * shape_dhw[0] * shape_dhw[1] * shape_dhw[2]
    # Counted from 1, so that the zeros of padding are known.
    number = torch.arange(1, count + 1, device=device).view(batch, *shape_dhw, 1)
    return to_windows(number, window, shift).flatten(1) - 1


def region_codes(shape_dhw: Triple, window: Triple, shift: Triple, *, like: Tensor) -> Tensor | None:
    """Tell which tokens of a window belong together after rolling and padding.

    A rolled window holds tokens from both ends of the grid, which are no neighbours; a padded one
    holds tokens that do not exist. Two tokens may see each other when their codes are equal.

    Returns:
        (num_windows, places, codes) one-hot in the type of `like`; None when every token may see every
        other one of its window.
    """
    padded = padded_shape(shape_dhw, window)
    if not any(shift) and padded == shape_dhw:
        return None
    code = torch.zeros((1, *padded, 1), device=like.device, dtype=torch.long)
    for axis, (n, p, s) in enumerate(zip(shape_dhw, padded, shift, strict=True)):
        place = torch.arange(p, device=like.device)
        wrapped = (place >= p - s).long() if s else torch.zeros_like(place)
        missing = ((place + s) % p >= n).long()
        along = wrapped * (1 << axis) + missing * 8
        view = [1, 1, 1, 1, 1]
        view[axis + 1] = p
        code = torch.bitwise_or(code, along.view(view))
    cut = to_windows(code, window, (0, 0, 0))
    # Bits 0 to 2 tell the side of the wrap per axis, bit 3 what is padded.
    num_codes = 8 if padded == shape_dhw else 16
    return F.one_hot(cut.reshape(cut.shape[0], -1), num_codes).to(like.dtype)
