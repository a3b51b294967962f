"""Batches that need no scan."""

import torch

from clickvol.datasets.samples import MAX_CLICKS, PatchBatch, PatchPrompts
from clickvol.shapes import PADDING_LABEL
from reference.compare import noise


def training_batch(size, *, only=None, side=16):
    """Return samples of boxes in noise, each clicked once; `only` keeps one of them."""
    label = torch.zeros(size, 1, side, side, side, dtype=torch.uint8)
    for number in range(size):
        label[number, :, 4:12, 5 : 11 - number, 3 : 9 + number] = 1
    points = torch.zeros(size, MAX_CLICKS, 3)
    points[:, 0] = torch.tensor([8.0, 7.0, 6.0])
    labels = torch.full((size, MAX_CLICKS), PADDING_LABEL)
    labels[:, 0] = 1
    patch = noise(size, 1, side, side, side, seed=5) + label
    prior = torch.zeros(size, 1, side, side, side)
    kept = slice(None) if only is None else slice(only, only + 1)
    prompts = PatchPrompts(points[kept], labels[kept], prior[kept])
    return PatchBatch(patch[kept], label[kept], prompts, torch.arange(20, 20 + size)[kept])
