"""Decomposed relative positions in three axes, as an inner product.

SAM adds to each attention logit q_i . R_h[h_i - h_j] + q_i . R_w[w_i - w_j]; the lifted network has a
third term for the depth. For a fixed query the sum over axes is an inner product between the numbers
q_i . R[...] (one per offset of the key) and the one-hot code of the key's place. So the terms need no
(T, T) tensor: they are extra columns of q and k.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def resample_table(table: Tensor, window: int) -> Tensor:
    """Squeeze a table of relative positions, (rows, E_head), into a window's (2 * window - 1, E_head) offsets.

    The whole range of the table is used (linear interpolation, align_corners false), as the published networks
    do; there is no centre crop.
    """
    rows = 2 * window - 1
    if table.shape[0] == rows:
        return table
    squeezed = F.interpolate(table.T[None].float(), size=rows, mode="linear", align_corners=False)
    return squeezed[0].T.to(table.dtype)


def offset_rows(table: Tensor, window: int) -> Tensor:
    """Return R with R[i, j] = table row of the offset i - j: (window, window, E_head)."""
    place = torch.arange(window, device=table.device)
    offset = place[:, None] - place[None, :] + window - 1
    return resample_table(table, window)[offset]


def place_one_hot(window: tuple[int, ...], *, like: Tensor) -> Tensor:
    """Return the code of each place in a window of n axes: (places, sum of the window's sides) of 0 and 1."""
    axes = torch.meshgrid(*[torch.arange(n, device=like.device) for n in window], indexing="ij")
    codes = [F.one_hot(axis.reshape(-1), n).to(like.dtype) for axis, n in zip(axes, window, strict=True)]
    return torch.cat(codes, dim=1)


def query_columns(query: Tensor, rows: tuple[Tensor, ...]) -> Tensor:
    """Return the logits of each query against each offset along the axes, two or three.

    Args:
        query: (G, heads, [d,] h, w, E_head), unscaled (the published networks do not scale it here).
        rows: per axis (window, window, E_head) from `offset_rows`.

    Returns:
        (G, heads, [d,] h, w, [window_d +] window_h + window_w).
    """
    axes = "dhw"[-len(rows) :]
    along = [
        torch.einsum(f"gn{axes}e,{axis}ke->gn{axes}k", query, r) for axis, r in zip(axes, rows, strict=True)
    ]
    return torch.cat(along, dim=-1)
