import dataclasses
import multiprocessing

import numpy as np
import pytest
import torch

from clickvol.datasets.device.patch_sampler import PatchSampler
from clickvol.datasets.device.scan_files import ScanFiles
from clickvol.datasets.device.scan_store import ScanStore
from clickvol.datasets.device.stored_scan import StoredScan, to_steps
from clickvol.datasets.labelled_volumes import read_labelled_volumes
from clickvol.datasets.levels import along_patient
from clickvol.datasets.preparation import PreparationPlan, prepare_data_set
from clickvol.datasets.samples import LabelledVolume
from clickvol.datasets.sampling import PatchSampling
from clickvol.errors import ConfigError
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.formats import write_volume
from clickvol.patches.field_of_view import block_mean
from clickvol.preprocessing.intensity import IntensityScale
from reference.labelled import block_case

CPU = torch.device("cpu")
SIDE = 20


def ramp_case(**options):
    """A block in an image that is different everywhere."""
    return block_case(
        image_of_label=lambda label: label * 900.0 + np.arange(60) + 7 * np.arange(60)[:, None], **options
    )


def samplers(case, sampling=None, *, stays=False):
    """Return a sampler of the scan in memory, at 8 bit, and of the scan as it is read when it is needed."""
    sampling = sampling or PatchSampling(lesion_share=0.0, synthesis_share=0.0)
    held = ScanStore.of([StoredScan.of(case, "a", "set")], CPU)
    read = ScanFiles.of([case], ["set"], CPU, stays=stays)
    return [PatchSampler(store, sampling, SIDE, seed=4) for store in (held, read)]


@pytest.mark.parametrize("stays", [False, True])
def test_both_tables_say_the_same_of_a_scan(stays):
    held, read = (sampler.store for sampler in samplers(ramp_case(), stays=stays))
    for name in ("voxels_per_mm", "spacing_dhw_mm", "shape_dhw", "level_shape_dhw", "level_block_dhw"):
        assert np.allclose(getattr(held, name), getattr(read, name)), name
    for name in ("low_dhw", "high_dhw", "mask_shape_dhw", "mask_low_dhw", "scan", "group", "number"):
        assert np.array_equal(getattr(held.objects, name), getattr(read.objects, name)), name
    assert held.objects.longest_mm == pytest.approx(read.objects.longest_mm, abs=0.1)
    assert held.outside == pytest.approx(read.outside, abs=1e-6)


def test_object_and_body_voxels_are_where_they_should_be():
    case = ramp_case()
    held, read = (sampler.store for sampler in samplers(case))
    uniform = np.linspace(0.01, 0.99, 50)
    zeros = np.zeros(50, dtype=np.int64)
    label = StoredScan.of(case, "a", "set").label
    voxels = read.object_voxels(zeros, uniform)
    assert label[tuple(voxels.T)].all()
    assert len(np.unique(voxels, axis=0)) == 50
    body = read.body_voxels(zeros, uniform)
    image = StoredScan.of(case, "a", "set").image
    # Of the first three quarters all lie above air.
    normalised = held.value_low[0] + held.value_step[0] * image[tuple(body[:37].T)]
    assert (normalised > -1.2).all()


@pytest.mark.parametrize("stays", [False, True])
@pytest.mark.parametrize("elastic_voxels", [0.0, 2.0])
def test_what_is_read_box_by_box_is_what_memory_holds(elastic_voxels, stays):
    """To the rounding at 8 bit, where no value is cut off; the same labels and prompts from the same voxel."""
    sampling = PatchSampling(lesion_share=0.0, synthesis_share=0.0, elastic_voxels=elastic_voxels)
    case = dataclasses.replace(ramp_case(), scale=IntensityScale.of_window(-10, 2000), outside_value=-10.0)
    held, read = samplers(case, sampling, stays=stays)
    plan = held.planner.plan(range(24))
    step = held.store.value_step[0]
    for row in range(24):
        mine = plan.part(slice(row, row + 1))
        number = int(np.flatnonzero(held.store.level_start[0] == mine.image_start[0])[0])
        label_at = int(np.flatnonzero(held.store.objects.mask_start[0] == mine.label_start[0])[0])
        facts = {
            name: getattr(read.store, name) for name in ("stored_low", "stored_high", "value_low", "value_step")
        }
        theirs = dataclasses.replace(
            mine,
            **facts,
            image_start=read.store.level_start[0, [number]],
            label_start=read.store.objects.mask_start[0, [label_at]],
        )
        grey_free = {"grey": np.zeros(1, dtype=bool), "remap": np.zeros(1, dtype=bool)}
        a = held.make(dataclasses.replace(mine, **grey_free))
        b = read.make(dataclasses.replace(theirs, **grey_free))
        assert torch.allclose(a.patch, b.patch, atol=2 * step), row
        assert torch.equal(a.label, b.label)
        assert torch.equal(a.prompts.labels, b.prompts.labels)


@pytest.mark.parametrize("stays", [False, True])
def test_a_batch_is_its_samples_and_organs_are_read_where_they_are(stays):
    case = ramp_case()
    cases = [dataclasses.replace(case, organ=case.label), ramp_case(first=(2, 2, 2))]
    store = ScanFiles.of(cases, ["set", "set"], CPU, stays=stays)
    sampler = PatchSampler(store, PatchSampling(), SIDE, seed=3, num_channels=2, with_hints=False)
    plan = sampler.planner.plan(range(12))
    together, alone = sampler.make(plan), sampler.batch(range(12))
    assert torch.allclose(together.patch, alone.patch, atol=1e-4)
    assert (together.label != alone.label).float().mean() < 1e-4
    assert set(plan.has_organ) == {False, True}
    for row in np.flatnonzero(plan.has_organ & ~plan.lesion):
        assert torch.equal(alone.patch[row, 1], alone.label[row, 0].float())


def test_a_prepared_set_is_drawn_from_its_levels(tmp_path):
    """A scan whose axes are not the patient's, read from the files alone: first the levels, then the finest."""
    case = ramp_case()
    for kind, array in (("images", case.volume.array.astype(np.int16)), ("labels", case.label)):
        (tmp_path / "src" / kind).mkdir(parents=True)
        write_volume(array, case.volume.grid, tmp_path / "src" / kind / "a.nii.gz")
    plan = PreparationPlan(kind="folder", source=tmp_path / "src", destination=tmp_path / "set", modality="MR")
    prepare_data_set(plan)
    (read,) = read_labelled_volumes(tmp_path / "set", "all")
    # Voxels of 3 x 2 x 2 mm: of blocks (1, 1, 1) to (1, 2, 2) all are kept.
    assert [*read.coarser] == [*case.coarser] == [(1, 2, 2)]
    # 48 values, of which 3.2 parts of 4.2 lie in the window.
    step = (read.scale.high - read.scale.low) / 3.2 * 4.2 / 47
    for block, level in case.coarser.items():
        errors = np.abs(np.asarray(read.coarser[block]) - level)[level < read.scale.high - step]
        assert 0.4 * step < errors.max() <= 0.5 * step + 0.5
    theirs = samplers(dataclasses.replace(case, index=read.index, scale=read.scale))[1].batch(range(8))
    ours = PatchSampler(
        ScanFiles.of([read], ["set"], CPU), PatchSampling(lesion_share=0.0, synthesis_share=0.0), SIDE, seed=4
    ).batch(range(8))
    assert torch.allclose(ours.patch, theirs.patch, atol=4.2 / 47 / 2 * 1.7)
    assert torch.equal(ours.label, theirs.label)


def test_a_level_that_no_file_holds_is_made_of_one_with_half_its_block():
    case = ramp_case()
    grid = VolumeGrid(case.label.shape, np.diag([1.0, 1.0, 3.0, 1.0])[:, [2, 1, 0, 3]])
    case = LabelledVolume.of(dataclasses.replace(case.volume, grid=grid), case.label)
    assert [*case.coarser] == [(1, 2, 2), (1, 3, 3)]
    sampler = samplers(case, stays=True)[1]
    store, plan = sampler.store, sampler.planner.plan([0])
    assert store.level_block_dhw[0].tolist() == [[1, 1, 1], [1, 1, 1], [1, 2, 2], [1, 3, 3], [1, 4, 4]]
    values = along_patient(case.volume.array, grid)
    for level in range(5):
        start, shape = int(store.level_start[0, level]), store.level_shape_dhw[0, level]
        read = store.read(
            dataclasses.replace(plan, image_start=np.array([start])), (8, 8, 8), with_organs=False
        )
        mean = block_mean(values, store.level_block_dhw[0, level])
        steps = to_steps(case.scale.normalise(mean), (-1.6, 1.6))
        kept = read.images[start : start + shape.prod()].view(*shape.tolist())
        assert np.abs(kept.numpy().astype(int) - steps).max() <= 1


@pytest.mark.parametrize("stays", [False, True])
def test_nothing_is_read_before_a_sample_needs_it_and_of_what_stays_once(tmp_path, stays):
    for name in ("a", "b"):
        case = ramp_case()
        for kind, array in (("images", case.volume.array.astype(np.int16)), ("labels", case.label)):
            (tmp_path / "src" / kind).mkdir(parents=True, exist_ok=True)
            write_volume(
                array + (name == "b") * (kind == "images"),
                case.volume.grid,
                tmp_path / "src" / kind / f"{name}.nii.gz",
            )
    plan = PreparationPlan(kind="folder", source=tmp_path / "src", destination=tmp_path / "set", modality="MR")
    prepare_data_set(plan)
    for path in (tmp_path / "set" / "cases").glob("b.*.b2nd"):
        path.unlink()
    store = ScanFiles.of(read_labelled_volumes(tmp_path / "set", "all"), ["set", "set"], CPU, stays=stays)
    sampler = PatchSampler(store, PatchSampling(), SIDE, seed=4)
    first = sampler.batch(range(6), [0] * 6)
    with pytest.raises(ConfigError, match=r"b\.image.* of the case b is missing"):
        sampler.batch([0], [1])
    for path in (tmp_path / "set" / "cases").glob("a.*.b2nd"):
        path.unlink()
    if stays:
        again = sampler.batch(range(6), [0] * 6)
        assert torch.equal(again.patch, first.patch)
        assert torch.equal(again.label, first.label)
    else:
        with pytest.raises(ConfigError, match="of the case a is missing"):
            sampler.batch([0], [0])


def test_processes_share_what_one_of_them_has_read():
    store = samplers(ramp_case(), stays=True)[1].store
    sampler = PatchSampler(store, PatchSampling(), SIDE, seed=4)
    child = multiprocessing.get_context("fork").Process(target=sampler.batch, args=(range(8),))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert store.images.is_filled.any()
    assert store.images.values.any()


def test_a_patch_beside_the_scan_shows_what_lies_outside():
    read = samplers(ramp_case())[1]
    plan = read.planner.plan(range(4))
    away = dataclasses.replace(
        plan,
        image_origin=plan.image_origin + 1000,
        label_origin=plan.label_origin - 1000,
        grey=plan.grey & False,
    )
    batch = read.make(dataclasses.replace(away, remap=plan.remap & False))
    assert torch.allclose(batch.patch, torch.full_like(batch.patch, float(read.store.outside[0])))
    assert not batch.label.any()


def test_any_axes_of_the_file_give_the_same_patches():
    case = ramp_case()
    order = (2, 0, 1)
    affine = case.volume.grid.affine_ras_mm
    affine = affine[:, [*order, 3]]
    arrays = [np.ascontiguousarray(a.transpose(order)) for a in (case.volume.array, case.label)]
    other = type(case).of(
        dataclasses.replace(case.volume, array=arrays[0], grid=VolumeGrid(arrays[1].shape, affine)), arrays[1]
    )
    other = dataclasses.replace(
        other,
        index=dataclasses.replace(
            case.index,
            object_voxels_dhw=case.index.object_voxels_dhw[:, order],
            places_dhw=case.index.places_dhw[:, order],
        ),
    )
    ours, theirs = (
        PatchSampler(ScanFiles.of([c], ["set"], CPU), PatchSampling(), SIDE, seed=4).batch(range(6))
        for c in (case, other)
    )
    assert torch.allclose(ours.patch, theirs.patch, atol=2e-3)
    assert torch.equal(ours.label, theirs.label)
