"""Reading an array between its voxels along one axis: what shifts, resamples and pastes."""

import numpy as np
from numpy.typing import NDArray


def read_along(
    values: NDArray[np.floating], axis: int, places: NDArray[np.float64], outside: float | None = None
) -> NDArray[np.floating]:
    """Read linearly at places along an axis; beyond the ends their values, or one for all outside."""
    last = values.shape[axis] - 1
    low = np.clip(np.floor(places), 0, max(last - 1, 0)).astype(int)
    across = [-1 if each == axis else 1 for each in range(values.ndim)]
    weight = np.clip(places - low, 0, 1).astype(values.dtype).reshape(across)
    below, above = values.take(low, axis), values.take(np.minimum(low + 1, last), axis)
    # In place: memory for another array of this size would cost as much as the sum.
    below *= 1 - weight
    above *= weight
    result: NDArray[np.floating] = np.add(below, above, out=below)
    if outside is not None:
        np.moveaxis(result, axis, 0)[(places < 0) | (places > last)] = outside
    return result
