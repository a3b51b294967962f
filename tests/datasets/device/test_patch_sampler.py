"""Batches against the plain numpy form: `patches.field_of_view.extract`, patch by patch."""

import dataclasses

import numpy as np
import pytest
import torch

from clickvol.datasets.device.patch_sampler import PatchSampler
from clickvol.datasets.device.sample_plan import PatchSampling
from clickvol.datasets.device.scan_store import NORMALISED_RANGE, ScanStore, StoredScan
from clickvol.geometry.grid import VolumeGrid
from clickvol.patches.field_of_view import extract

SIDE = 16
SPACING = (2.5, 0.9, 1.1)
PLAIN = PatchSampling(
    group_shares={"set": 1.0},
    first_share=0.5,
    first_voxel_mm=2.0,
    cut_share=0.0,
    elastic_share=0.0,
    lesion_share=0.0,
    synthesis_share=0.0,
    remap_share=0.0,
    grey_share=0.0,
    extra_click_share=0.0,
    prior_share=0.0,
    diameter_share=0.0,
    slice_box_share=0.0,
    box_share=0.0,
    scribble_share=0.0,
)


@pytest.fixture(scope="module")
def scan():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (14, 40, 36), dtype=np.uint8)
    label = np.zeros(image.shape, dtype=np.uint8)
    label[4:9, 12:25, 10:22] = 1
    return StoredScan("a", "set", "a", SPACING, image, label)


@pytest.fixture(scope="module")
def sampler(scan):
    store = ScanStore.of([scan], torch.device("cpu"))
    return PatchSampler(store, PLAIN, SIDE, seed=4)


def _plain(array, block, matrix, origin, outside):
    """Read a patch with `extract`: the scan's affine is the identity, the patch's what the plan says."""
    patch_to_voxel = np.eye(4)
    patch_to_voxel[:3, :3] = matrix * block[:, None]
    middle = origin * block + (block - 1) / 2
    patch_to_voxel[:3, 3] = middle - patch_to_voxel[:3, :3] @ np.full(3, (SIDE - 1) / 2)
    grids = VolumeGrid(array.shape, np.eye(4)), VolumeGrid((SIDE, SIDE, SIDE), patch_to_voxel)
    return extract(array, *grids, outside_value=outside)


def test_patches_are_those_of_the_plain_form(scan, sampler):
    plan = sampler.planner.plan(range(12))
    batch = sampler.make(plan)
    span = NORMALISED_RANGE[1] - NORMALISED_RANGE[0]
    values = scan.image.astype(np.float32) * (span / 255) + NORMALISED_RANGE[0]
    num_compared = 0
    for row in range(12):
        level = sampler.store.level_start[0].tolist().index(plan.image_start[row])
        block = sampler.store.level_block_dhw[0, level]
        theirs = _plain(values, block, plan.image_matrix[row], plan.image_origin[row], plan.outside[row])
        step = np.linalg.norm(plan.image_matrix[row] * block[:, None], axis=1)
        if (np.maximum(1, np.floor(step + 1e-3)) != block).any():
            continue  # extract averages over other blocks than the nearest level has
        num_compared += 1
        ours, outside = batch.patch[row, 0].numpy(), np.float32(plan.outside[row])
        # At the border of the scan the reach is half a voxel of the level here, of the scan there.
        both = (ours != outside) & (theirs != outside)
        assert ((ours == outside) == (theirs == outside)).mean() > 0.95
        # Levels are rounded to 8 bits.
        assert np.abs(ours - theirs)[both].max() < 0.6 * span / 255
    assert num_compared >= 3


def test_labels_are_those_of_the_plain_form(scan, sampler):
    plan = sampler.planner.plan(range(12))
    batch = sampler.make(plan)
    for row in range(12):
        soft = _plain_label(scan.label, plan.label_matrix[row], plan.label_origin[row])
        clear = np.abs(soft - 0.5) > 1e-3
        assert np.array_equal(batch.label[row, 0].numpy()[clear], (soft > 0.5)[clear])


def _plain_label(label, matrix, origin):
    """Read between voxels one by one."""
    axis = np.arange(SIDE) - (SIDE - 1) / 2
    offsets = np.stack(np.meshgrid(axis, axis, axis, indexing="ij")).reshape(3, -1)
    places = matrix @ offsets + origin[:, None]
    last = np.array(label.shape)[:, None] - 1
    inside = ((places >= -0.5) & (places <= last + 0.5)).all(axis=0)
    places = np.clip(places, 0, last)
    low = np.floor(places).astype(int)
    high = np.minimum(low + 1, last)
    part = places - low
    total = np.zeros(places.shape[1])
    for corner in np.ndindex(2, 2, 2):
        index = tuple(np.where(c, high[a], low[a]) for a, c in enumerate(corner))
        weight = np.prod([np.where(c, part[a], 1 - part[a]) for a, c in enumerate(corner)], axis=0)
        total += weight * (label[index] == 1)
    return (total * inside).reshape(SIDE, SIDE, SIDE)


def test_the_click_lies_in_a_voxel_of_the_object(scan, sampler):
    plan = sampler.planner.plan(range(64))
    clicks = sampler.make(plan).prompts.points_dhw[:, 0].numpy() - (SIDE - 1) / 2
    places = np.einsum("bij,bj->bi", plan.label_matrix, clicks) + plan.label_origin
    voxels = np.rint(places).astype(int)
    assert (np.abs(places - voxels) <= 0.5).all()
    assert (scan.label[tuple(voxels.T)] == 1).all()
    assert len(np.unique(voxels, axis=0)) > 50


def test_a_batch_is_its_samples(scan):
    store = ScanStore.of([scan], torch.device("cpu"))
    everything = dataclasses.replace(
        PatchSampling(group_shares={"set": 1.0}), lung_groups=("set",), lesion_share=0.5, synthesis_share=0.3
    )
    sampler = PatchSampler(store, everything, SIDE, seed=4)
    together, alone = sampler.batch(range(8, 16)), sampler.batch(range(13, 14))
    assert torch.isfinite(together.patch).all()
    assert torch.allclose(together.patch[5], alone.patch[0], atol=1e-5)
    assert torch.equal(together.label[5], alone.label[0])
    assert torch.equal(together.prompts.labels[5], alone.prompts.labels[0])
    assert torch.allclose(together.prompts.hints[5], alone.prompts.hints[0], atol=1e-5)


def test_a_synthetic_lesion_is_seen_where_its_mask_is(scan):
    flat = dataclasses.replace(scan, image=np.full(scan.image.shape, 140, dtype=np.uint8))
    sampling = dataclasses.replace(PLAIN, lesion_share=1.0, lesion_mm=(12.0, 16.0), first_share=1.0)
    batch = PatchSampler(ScanStore.of([flat], torch.device("cpu")), sampling, SIDE, seed=2).batch(range(16))
    for patch, label in zip(batch.patch[:, 0], batch.label[:, 0].bool(), strict=True):
        assert label.any()
        around = patch[~label].median()
        assert (patch[label].mean() - around).abs() > 0.05


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_makes_the_same_batch(scan):
    sampling = PatchSampling(group_shares={"set": 1.0})
    on_cpu, on_gpu = (
        PatchSampler(ScanStore.of([scan], torch.device(name)), sampling, SIDE, seed=4).batch(range(16))
        for name in ("cpu", "cuda")
    )
    assert torch.allclose(on_cpu.patch, on_gpu.patch.cpu(), atol=1e-3)
    assert (on_cpu.label != on_gpu.label.cpu()).float().mean() < 1e-4
    assert torch.equal(on_cpu.prompts.labels, on_gpu.prompts.labels.cpu())
