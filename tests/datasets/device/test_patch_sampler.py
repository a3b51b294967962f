"""Batches against the plain numpy form: `patches.field_of_view.extract`, patch by patch."""

import dataclasses

import numpy as np
import pytest
import torch

from clickvol.datasets.device.patch_sampler import PatchSampler
from clickvol.datasets.device.scan_store import ScanStore
from clickvol.datasets.device.stored_scan import NORMALISED_RANGE, StoredScan
from clickvol.datasets.samples import LabelledVolume
from clickvol.datasets.sampling import PatchSampling, WindowSampling
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.volume import Volume
from clickvol.patches.field_of_view import extract
from reference.labelled import block_case

SIDE = 16
SPACING = (2.5, 0.9, 1.1)
PLAIN = PatchSampling(
    group_shares={"set": 1.0},
    first_view_share=0.5,
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
    table = sampler.store.objects
    for row in range(12):
        level = table.mask_start[0].tolist().index(plan.label_start[row])
        block = sampler.store.level_block_dhw[0, level]
        origin = plan.label_origin[row] + table.mask_low_dhw[0, level]
        step = np.linalg.norm(plan.label_matrix[row] * block[:, None], axis=1)
        if (np.maximum(1, np.floor(step + 1e-3)) != block).any():
            continue
        soft = _plain(scan.label, block, plan.label_matrix[row], origin, 0.0)
        clear = np.abs(soft - 0.5) > 2 / 255
        assert clear.mean() > 0.9
        assert np.array_equal(batch.label[row, 0].numpy()[clear], (soft > 0.5)[clear])


def test_the_click_lies_in_a_voxel_of_the_object(scan, sampler):
    plan = sampler.planner.plan(range(64))
    clicks = sampler.make(plan).prompts.points_dhw[:, 0].numpy() - (SIDE - 1) / 2
    fine = sampler.store.objects.mask_start[0, 0] == plan.label_start
    plan = plan.part(fine)
    places = np.einsum("bij,bj->bi", plan.label_matrix, clicks[fine]) + plan.label_origin
    places += sampler.store.objects.mask_low_dhw[0, 0]
    voxels = np.rint(places).astype(int)
    assert (np.abs(places - voxels) <= 0.5).all()
    assert (scan.label[tuple(voxels.T)] == 1).all()
    assert len(np.unique(voxels, axis=0)) > 0.7 * len(voxels) > 10


def test_a_batch_is_its_samples(scan):
    store = ScanStore.of([scan], torch.device("cpu"))
    shares = ["lesion", "synthesis", "remap", "prior", "diameter", "slice_box", "box", "scribble"]
    everything = PatchSampling(lung_groups=("set",), **{f"{name}_share": 0.25 for name in shares})
    sampler = PatchSampler(store, everything, SIDE, seed=4)
    together, alone = sampler.batch(range(8, 16)), sampler.batch(range(13, 14))
    assert torch.isfinite(together.patch).all()
    assert torch.allclose(together.patch[5], alone.patch[0], atol=1e-5)
    assert torch.equal(together.label[5], alone.label[0])
    assert torch.equal(together.prompts.labels[5], alone.prompts.labels[0])
    assert torch.allclose(together.prompts.hints[5], alone.prompts.hints[0], atol=1e-5)


def test_a_synthetic_lesion_is_seen_where_its_mask_is(scan):
    flat = dataclasses.replace(scan, image=np.full(scan.image.shape, 140, dtype=np.uint8))
    sampling = PLAIN.model_copy(
        update={"lesion_share": 1.0, "lesion_mm": (12.0, 16.0), "first_view_share": 1.0}
    )
    batch = PatchSampler(ScanStore.of([flat], torch.device("cpu")), sampling, SIDE, seed=2).batch(range(16))
    for patch, label in zip(batch.patch[:, 0], batch.label[:, 0].bool(), strict=True):
        assert label.any()
        around = patch[~label].median()
        assert (patch[label].mean() - around).abs() > 0.05


@pytest.mark.parametrize("elastic_voxels", [0.0, 2.0])
def test_any_axes_of_the_file_give_the_same_patches(elastic_voxels):
    """A permuted and flipped copy of a scan, and other shapes of patch than a cube."""
    case = block_case(image_of_label=lambda label: label * 1000.0 + np.arange(60))
    turned = case.volume.array[::-1].transpose(2, 0, 1), case.label[::-1].transpose(2, 0, 1)
    affine = case.volume.grid.affine_ras_mm.copy()
    affine[:3, 3] += affine[:3, 0] * (case.label.shape[0] - 1)
    affine[:3, 0] *= -1
    grid = VolumeGrid(turned[1].shape, affine[:, [2, 0, 1, 3]])
    other = LabelledVolume.of(Volume(np.ascontiguousarray(turned[0]), grid, "MR"), turned[1])
    sampling = PatchSampling(elastic_voxels=elastic_voxels)
    ours, theirs = (
        PatchSampler(
            ScanStore.of([StoredScan.of(c, "a", "set")], torch.device("cpu")), sampling, (16, 20, 24), seed=4
        ).batch(range(6))
        for c in (case, other)
    )
    assert ours.patch.shape == (6, 1, 16, 20, 24)
    assert torch.allclose(ours.patch, theirs.patch, atol=2e-3)
    assert torch.equal(ours.label, theirs.label)


def test_an_oblique_scan_shows_the_object_in_its_true_size():
    case = block_case()
    store = ScanStore.of([StoredScan.of(case, "a", "set")], torch.device("cpu"))
    sampling = PLAIN.model_copy(
        update={"first_view_share": 0.0, "fitted_extents": (2.2, 2.2), "rotation_degrees": 0.0, "stretch": 0.0}
        | {"max_shift": 0.0}
    )
    sampler = PatchSampler(store, sampling, 48, seed=1)
    plan = sampler.planner.plan(range(4))
    volumes = sampler.make(plan).label.sum((1, 2, 3, 4)).numpy() * plan.voxel_mm**3
    assert volumes == pytest.approx([24 * 20 * 28] * 4, rel=0.05)


def test_a_fitted_view_lies_around_the_object_where_that_is_wanted():
    case = block_case()
    store = ScanStore.of([StoredScan.of(case, "a", "set")], torch.device("cpu"))
    sampling = PLAIN.model_copy(
        update={"first_view_share": 0.3, "fitted_extents": (1.8, 2.2), "rotation_degrees": 20.0, "stretch": 0.1}
        | {"fitted_around": "object", "max_shift": 0.0}
    )
    sampler = PatchSampler(store, sampling, 48, seed=1)
    batch, plan = sampler.batch(range(12)), sampler.planner.plan(range(12))
    off, clicks = [], batch.prompts.points_dhw[:, 0].numpy() - 23.5
    for label in batch.label[:, 0].numpy():
        off.append(np.argwhere(label).mean(0) - 23.5)
    is_first = (plan.click_offset == 0).all(axis=1)
    assert 2 <= is_first.sum() <= 8
    assert np.abs(np.array(off)[~is_first]).max() < 1
    # So the clicks are where the user happens to click, and a first view has its click in the middle.
    assert np.abs(clicks[~is_first]).max(axis=1).mean() > 4
    assert np.abs(clicks[is_first]).max() < 0.6
    # A lesion of the object's shape lies so, too, whatever the scan cuts off it.
    lesions = sampling.model_copy(
        update={"lesion_share": 1.0, "real_shape_share": 1.0, "first_view_share": 0.0}
    )
    plan = PatchSampler(store, lesions, 48, seed=1).planner.plan(range(12))
    assert plan.label_origin == pytest.approx((plan.label_shape - 1) / 2, abs=0.6)


def test_an_organ_is_cut_turned_and_bent_with_the_label():
    case = block_case()
    case = dataclasses.replace(case, organ=case.label)
    scans = [StoredScan.of(case, "a", "set"), StoredScan.of(block_case(), "b", "set")]
    store = ScanStore.of(scans, torch.device("cpu"))
    sampler = PatchSampler(store, PatchSampling(), 24, seed=3, num_channels=2, with_hints=False)
    plan = sampler.planner.plan(range(12))
    batch = sampler.batch(range(12))
    assert batch.prompts.hints is None
    assert set(plan.has_organ) == {False, True}
    for row, has_organ in enumerate(plan.has_organ):
        image, organ = batch.patch[row]
        expected = batch.label[row, 0].float() if has_organ else image
        torch.testing.assert_close(organ, expected, rtol=0, atol=0)


def test_windows_have_their_own_voxels_and_no_clicks():
    case = block_case()
    store = ScanStore.of([StoredScan.of(case, "a", "set")], torch.device("cpu"))
    still = {"voxel_mm": 2.0, "cut_share": 0.0, "rotation_degrees": 0.0, "stretch": 0.0, "elastic_voxels": 0.0}
    around = WindowSampling(kind="windows", max_shift=0.0, foreground_share=1.0, **still)
    batch = PatchSampler(store, around, 48, seed=1).batch(range(4))
    assert (batch.prompts.labels == -1).all()
    assert batch.label.sum((1, 2, 3, 4)).tolist() == pytest.approx([24 * 20 * 28 / 8] * 4, rel=0.1)
    shares = WindowSampling(kind="windows", max_shift=0.0, **still)
    middles = PatchSampler(store, shares, 5, seed=1).batch(range(300)).label[:, 0, 2, 2, 2]
    assert float(middles.float().mean()) == pytest.approx(2 / 3, abs=0.08)
    never = around.model_copy(update={"foreground_share": 0.0})
    assert PatchSampler(store, never, 16, seed=1).batch(range(60)).label.flatten(1).any(1).float().mean() < 0.6


def test_a_sample_is_drawn_around_the_object_that_is_asked_for(scan):
    other = dataclasses.replace(scan, name="b", patient="b", label=np.roll(scan.label, 5, axis=2))
    store = ScanStore.of([scan, other], torch.device("cpu"))
    plan = PatchSampler(store, PLAIN, SIDE, seed=4).planner.plan(range(6), [0, 1, 1, 0, 1, 0])
    assert (plan.image_start >= store.level_start[1, 0]).tolist() == [False, True, True, False, True, False]


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
