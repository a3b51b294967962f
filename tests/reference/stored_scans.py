"""Small scans as a training set stores them."""

import numpy as np

from clickvol.datasets.device.stored_scan import StoredScan


def stored_scan(name="a", spacing=(3.0, 1.0, 1.0), shape=(4, 9, 10), *, objects=1):
    rng = np.random.default_rng(len(name))
    image = rng.integers(0, 256, shape, dtype=np.uint8)
    label = np.zeros(shape, dtype=np.uint8)
    for number in range(1, objects + 1):
        label[1:3, 2 * number : 2 * number + 2, 3:7] = number
    return StoredScan(name, "set", name, spacing, image, label)
