from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from clickvol.datasets.samples import MAX_CLICKS, MAX_EXTRA_CLICKS, draw_sample, spoiled_mask, stack
from clickvol.datasets.sampling import SamplingSection
from clickvol.metrics.overlap import dice
from clickvol.preprocessing.intensity import IntensityScale
from reference.labelled import block_case

SHAPE = (24, 28, 32)


def _draw(case, config, seed, shape=SHAPE):
    return draw_sample(case, shape, config, np.random.default_rng(seed))


def _bright(sample):
    """Voxels in the upper half of the patch's range, whatever the contrast."""
    low, high = np.percentile(sample.patch.numpy(), [1, 99.9])
    return sample.patch.numpy() > (low + high) / 2


# -- what is known of a case ------------------------------------------------------------------------


def test_a_case_knows_its_object(box_case):
    assert len(box_case.object_voxels_dhw) == 8 * 10 * 14
    assert box_case.object_voxels_dhw.min(axis=0).tolist() == [12, 22, 20]
    assert box_case.object_voxels_dhw.max(axis=0).tolist() == [19, 31, 33]
    # Between outer voxel centres: x spans .6 * 18 + .8 * 26 mm, y the same sides crossed, z 21 mm.
    assert box_case.longest_side_mm == pytest.approx(0.6 * 18 + 0.8 * 26)
    assert box_case.outside_value == box_case.scale.outside == 0


# -- one sample -------------------------------------------------------------------------------------


def test_shapes_types_and_ranges(phantom_case):
    for seed in range(8):
        sample = _draw(phantom_case, SamplingSection(), seed)
        assert sample.patch.shape == sample.label.shape == sample.prior.shape == (1, *SHAPE)
        assert (sample.patch.dtype, sample.label.dtype) == (torch.float32, torch.uint8)
        assert (sample.points_dhw.dtype, sample.labels.dtype) == (torch.float32, torch.int64)
        assert sample.points_dhw.shape == (MAX_CLICKS, 3)
        assert set(sample.label.unique().tolist()) == {0, 1}
        assert torch.isfinite(sample.patch).all()
        assert sample.prior.abs().max() <= 1


def test_the_same_seed_gives_the_same_sample_and_another_seed_another(phantom_case):
    one, same, other = (_draw(phantom_case, SamplingSection(), seed) for seed in (3, 3, 4))
    for field in fields(one):
        assert torch.equal(getattr(one, field.name), getattr(same, field.name)), field.name
    assert not torch.equal(one.patch, other.patch)


def test_drawing_changes_nothing_in_the_case(phantom_case):
    before = phantom_case.volume.array.copy(), phantom_case.label.copy()
    _draw(phantom_case, SamplingSection(), 5)
    assert np.array_equal(phantom_case.volume.array, before[0])
    assert np.array_equal(phantom_case.label, before[1])


def test_the_first_click_lies_in_the_label_with_all_augmentation_on(large_case):
    inside, beside = [], []
    for seed in range(200):
        sample = _draw(large_case, SamplingSection(), seed, (64, 64, 64))
        index = np.rint(sample.points_dhw[0].numpy()).astype(int)
        assert (index >= 0).all()
        assert (index < 64).all()
        inside.append(bool(sample.label[0][tuple(index)]))
        around = tuple(slice(max(n - 1, 0), n + 2) for n in index)
        beside.append(bool(sample.label[0][around].any()))
    assert np.mean(inside) > 0.95
    assert all(beside)


def test_the_click_follows_the_bending_of_a_small_object():
    config = SamplingSection(first_look_share=0, fitted_extents=(3, 3), finest_voxel_mm=0.5, elastic_voxels=2)
    case = block_case(first=(14, 25, 25), last=(17, 29, 29))
    away = []
    for seed in range(100):
        sample = _draw(case, config, seed, (32, 32, 32))
        voxels = np.argwhere(sample.label[0].numpy())
        away.append(np.linalg.norm(voxels - sample.points_dhw[0].numpy(), axis=1).min())
    # 1.6 voxels where the bending is ignored, 2.6 where it has the wrong sign.
    assert np.percentile(away, 95) < 1.1


def test_without_shift_or_first_look_the_click_is_in_the_middle(box_case, plain):
    sample = _draw(box_case, plain, 0)
    assert sample.points_dhw[0].tolist() == pytest.approx([11.5, 13.5, 15.5], abs=1e-3)


def test_the_click_of_a_fitted_look_wanders_within_its_bound(box_case, plain):
    config = plain.model_copy(update={"first_look_share": 0.0, "max_shift": 0.3})
    clicks = np.array([_draw(box_case, config, seed).points_dhw[0].numpy() for seed in range(60)])
    away = (clicks - (np.array(SHAPE) - 1) / 2) / np.array(SHAPE)
    assert np.abs(away).max() <= 0.3 + 1e-4
    assert (np.abs(away).max(axis=0) > 0.2).all()


def test_padding_stands_behind_the_clicks_and_slots_stay_free_for_corrections(phantom_case):
    config = SamplingSection(extra_click_share=1.0)
    counts = set()
    for seed in range(60):
        sample = _draw(phantom_case, config, seed)
        count = int((sample.labels != -1).sum())
        counts.add(count)
        assert set(sample.labels[:count].tolist()) <= {0, 1}
        assert sample.labels[0] == 1
        assert (sample.labels[count:] == -1).all()
        assert (sample.points_dhw[count:] == 0).all()
    assert max(counts) == MAX_EXTRA_CLICKS + 1 < MAX_CLICKS


def test_further_clicks_carry_the_sign_of_the_label_under_them(phantom_case):
    config = SamplingSection(extra_click_share=1.0)
    signs = []
    for seed in range(40):
        sample = _draw(phantom_case, config, seed)
        for point, sign in zip(sample.points_dhw[1:], sample.labels[1:].tolist(), strict=True):
            if sign == -1:
                continue
            index = tuple(np.rint(point.numpy()).astype(int))
            assert int(sample.label[0][index]) == sign
            signs.append(sign)
    assert 0.2 < np.mean(signs) < 0.9


# -- geometry ---------------------------------------------------------------------------------------


def test_a_fitted_look_shows_the_object_in_its_true_size(box_case, plain):
    config = plain.model_copy(update={"first_look_share": 0.0, "fitted_extents": (2.2, 2.2)})
    voxel_mm = box_case.longest_side_mm * 2.2 / 48
    volumes = [
        float(_draw(box_case, config, seed, (48, 48, 48)).label.sum()) * voxel_mm**3 for seed in range(8)
    ]
    assert volumes == pytest.approx([24 * 20 * 28] * 8, rel=0.05)


def test_image_and_label_are_mirrored_turned_and_bent_together(box_case):
    """The image is the label times a thousand: so it must be on the patch, too."""
    agreements = [
        dice(_bright(sample), sample.label.numpy())
        for sample in (
            _draw(box_case, SamplingSection(rotation_degrees=40, elastic_voxels=2), seed) for seed in range(40)
        )
    ]
    assert np.median(agreements) > 0.95
    assert np.mean(np.array(agreements) > 0.75) >= 0.95


def test_the_superior_axis_is_mirrored_in_half_of_the_samples(plain):
    def with_tail(label):
        image = np.zeros(label.shape)
        image[12:20, 22:32, 20:34] = 300
        image[20:24, 22:32, 20:34] = 1000  # on the side of large d: superior
        return image

    case = block_case(image_of_label=with_tail)
    first_looks = plain.model_copy(update={"first_look_share": 1.0})
    above = 0
    for seed in range(60):
        sample = _draw(case, first_looks, seed)
        tail = np.argwhere(_bright(sample)[0])[:, 0].mean()
        body = np.argwhere(sample.label.numpy()[0])[:, 0].mean()
        assert abs(tail - body) > 0.5
        above += tail > body
    assert 15 <= above <= 45


def test_a_cut_never_goes_into_the_object(plain):
    case = block_case()
    config = plain.model_copy(
        update={
            "cut_share": 1.0,
            "max_cut_mm": 1e4,
            "first_look_share": 0.0,
            "fitted_extents": (2.2, 2.2),
        }
    )
    voxel_mm = case.longest_side_mm * 2.2 / 48
    for seed in range(8):
        sample = _draw(case, config, seed, (48, 48, 48))
        assert float(sample.label.sum()) * voxel_mm**3 == pytest.approx(24 * 20 * 28, rel=0.05)


def test_a_full_cut_leaves_only_the_object(plain):
    case = block_case(image_of_label=lambda label: np.full(label.shape, 900.0))
    case = replace(case, scale=IntensityScale.of_window(0.0, 900.0), outside_value=0.0)
    cut = plain.model_copy(update={"cut_share": 1.0, "max_cut_mm": 1e5, "first_look_share": 1.0})
    for seed in range(5):
        sample = _draw(case, cut, seed)
        values = sample.patch.numpy()
        inside = values[sample.label.numpy() == 1].mean()
        far = values[0, :3, :3, :3].mean()
        assert inside - far > 1.0


# -- the earlier mask as a prompt -------------------------------------------------------------------


def test_a_first_look_has_no_earlier_mask_and_a_fitted_one_may(box_case, plain):
    always = {"prior_share": 1.0}
    first = plain.model_copy(update={**always, "first_look_share": 1.0})
    fitted = plain.model_copy(update={**always, "first_look_share": 0.0})
    assert (_draw(box_case, first, 1).prior == 0).all()
    sample = _draw(box_case, fitted, 1)
    assert dice((sample.prior > 0).numpy(), sample.label.numpy()) > 0.4


def test_a_spoiled_mask_is_near_the_truth_but_not_it():
    label = np.zeros((24, 24, 24), dtype=np.float32)
    label[6:18, 6:18, 6:18] = 1
    scores = []
    for seed in range(20):
        spoiled = spoiled_mask(label, np.random.default_rng(seed))
        assert spoiled.dtype == np.float32
        assert np.abs(spoiled).max() <= 1
        scores.append(dice(spoiled > 0, label))
    assert 0.7 < np.mean(scores) < 0.95
    assert min(scores) > 0.4


# -- batches ----------------------------------------------------------------------------------------


def test_a_batch_stacks_every_field_in_order(box_case, plain):
    samples = [_draw(box_case, plain, seed) for seed in range(3)]
    batch = stack(samples)
    for field in fields(batch):
        stacked = getattr(batch, field.name)
        assert stacked.shape[0] == 3
        for row, sample in zip(stacked, samples, strict=True):
            assert torch.equal(row, getattr(sample, field.name))
