"""A model that is kept as its difference from another one: a few MB that are added when it is loaded.

A tensor that changed is written whole under its own name, or as two factors whose product is its difference
(`NAME:left` (rows, r), `NAME:right` (r, columns); rows is the first axis of the tensor, columns all others).
Which tensors get how many ranks is decided for all together: singular values are kept in the order of what they
explain per byte, until the file is full.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from clickvol.errors import DamagedWeightsError

_LEFT, _RIGHT = ":left", ":right"

# Numbers are written in half precision.
_BYTES_PER_VALUE = 2


def difference_of(
    base: Mapping[str, Tensor], changed: Mapping[str, Tensor], max_bytes: int
) -> dict[str, Tensor]:
    """Return what has to be added to `base` to get `changed`, in at most so many bytes.

    Equal tensors are left out. Vectors and scalars are kept whole and count first.
    """
    differences = {name: (value - base[name]).float() for name, value in changed.items()}
    differences = {name: value for name, value in differences.items() if value.any()}
    whole = {name: value for name, value in differences.items() if value.ndim < 2}
    rest = max_bytes - _BYTES_PER_VALUE * sum(value.numel() for value in whole.values())
    factors = {name: _factors(value) for name, value in differences.items() if name not in whole}
    ranks = _ranks({name: (f[0].shape[0] + f[1].shape[1], f[2]) for name, f in factors.items()}, rest)
    for name, rank in ranks.items():
        left, right, _ = factors[name]
        if rank * (left.shape[0] + right.shape[1]) >= differences[name].numel():
            whole[name] = differences[name]
        elif rank:
            whole[name + _LEFT], whole[name + _RIGHT] = left[:, :rank], right[:rank]
    return whole


def _factors(value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return left (m, r) and right (r, n), whose product is the tensor as a matrix, and its singular values."""
    u, s, v = torch.linalg.svd(value.flatten(1), full_matrices=False)
    root = s.sqrt()
    return u * root, root[:, None] * v, s


def _ranks(values: Mapping[str, tuple[int, Tensor]], max_bytes: int) -> dict[str, int]:
    """Return how many singular values are kept: (numbers that one takes, the values) by matrix."""
    offers = [
        (float(value) ** 2 / numbers, name, numbers)
        for name, (numbers, singular) in values.items()
        for value in singular
    ]
    ranks = dict.fromkeys(values, 0)
    for _, name, numbers in sorted(offers, key=lambda offer: (-offer[0], offer[1])):
        cost = numbers * _BYTES_PER_VALUE
        if cost > max_bytes:
            break
        max_bytes -= cost
        ranks[name] += 1
    return ranks


def add_difference(base: Mapping[str, Tensor], difference: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the whole base with a difference, as read from the file of `difference_of`, added; float32.

    Raises:
        DamagedWeightsError: for a tensor that the base does not have, without its other factor, or of another
            shape.
    """
    result = dict(base)
    for name, value in difference.items():
        if name.endswith(_RIGHT) and name.removesuffix(_RIGHT) + _LEFT in difference:
            continue
        target = name.removesuffix(_LEFT)
        if name.endswith(_LEFT):
            right = difference.get(target + _RIGHT)
            fits = right is not None and value.ndim == right.ndim == 2 and value.shape[1] == right.shape[0]
            if right is None or not fits:
                raise DamagedWeightsError(
                    f"the factors of {target} do not belong together; make the model again"
                )
            value = value @ right
        known = base.get(target)
        if known is None or known.numel() != value.numel():
            raise DamagedWeightsError(
                f"the difference holds {name}, which its base does not have in this size; make the model again"
            )
        result[target] = known + value.reshape(known.shape)
    return result
