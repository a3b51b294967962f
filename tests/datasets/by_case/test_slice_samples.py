from dataclasses import fields

import numpy as np
import pytest
import torch

from clickvol.datasets.by_case.slice_samples import (
    SliceSample,
    draw_slice_sample,
    joined_slices,
    object_slices,
)
from clickvol.datasets.pictures import PictureFolders, PicturePlan, prepare_pictures
from clickvol.datasets.samples import LabelledVolume
from clickvol.datasets.sampling import SliceSampling
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.volume import Volume
from clickvol.methods.sam2d import sam2d_preset
from reference.picture_folders import ellipse, write_pictures

SAM = sam2d_preset("tiny")
PLAIN = SliceSampling(kind="slices").without_changes()


def make_case(*, flip_z=False):
    """A CT of 20 slices of 32 x 48 pixels: from slice 5 on a large box, in slice 9 one voxel alone."""
    label = np.zeros((20, 32, 48), np.uint8)
    label[5:8, 4:20, 10:30] = 1
    label[9, 30, 2] = 1
    # d runs along z, h along y, w along x.
    affine = np.eye(4)
    affine[:3, :3] = [[0, 0, 1], [0, 1, 0], [-3 if flip_z else 3, 0, 0]]
    array = np.where(label, 240, -160).astype(np.float32)
    return LabelledVolume.of(Volume(array, VolumeGrid(label.shape, affine), "CT"), label)


def draw(case, sampling=PLAIN, seed=0, num_points=6):
    return draw_slice_sample(case, SAM, sampling, num_points, np.random.default_rng(seed))


@pytest.mark.parametrize("flip_z", [False, True])
def test_the_slices_of_an_object_are_those_that_show_it(flip_z):
    case = make_case(flip_z=flip_z)
    assert object_slices(case, "axial").tolist() == [5, 6, 7, 9]
    assert object_slices(case, "coronal").tolist() == [*range(4, 20), 30]
    assert object_slices(case, "sagittal").tolist() == [2, *range(10, 30)]


def test_slices_are_drawn_alike_whatever_they_show():
    sizes = [int(draw(make_case(), seed=seed, num_points=0).label.sum()) for seed in range(400)]
    assert np.mean([size < 10 for size in sizes]) == pytest.approx(1 / 4, abs=0.06)


def test_an_image_lies_at_the_top_left_with_its_truth():
    sample = next(s for seed in range(9) if (s := draw(make_case(), seed=seed)).label.sum() > 10)
    assert (sample.image.shape, sample.image.dtype) == ((1, 3, 64, 64), torch.float32)
    assert (sample.label.shape, sample.label.dtype) == ((1, 1, 64, 64), torch.uint8)
    # 48 columns become 64, 32 rows 42.67, the rest is padding.
    assert sample.image[0, :, 43:].abs().max() == 0
    assert sample.label[0, :, 43:].max() == 0
    # Rows run to the back and columns to the left: both against this grid. The box covers rows 12 to 27 and
    # columns 18 to 37, each 4/3 pixels.
    wanted = torch.zeros(64, 64, dtype=torch.uint8)
    wanted[16:37, 24:51] = 1
    assert (sample.label[0, 0] != wanted).float().mean() < 0.03
    inside = sample.image[0, 0, :43] > sample.image[0, 0, :43].mean()
    assert (inside != sample.label[0, 0, :43].bool()).float().mean() < 0.02


def test_points_lie_in_the_truth_as_their_labels_say():
    for seed in range(6):
        sample = draw(make_case(), SliceSampling(kind="slices"), seed)
        x, y = sample.points_xy_pixel[0].long().T
        assert torch.equal(sample.label[0, 0, y, x].long(), sample.point_labels[0])
        wanted = 3 if sample.label.any() else 0
        assert sample.point_labels.sum() == wanted


def test_no_points_where_none_are_asked_for():
    sample = draw(make_case(), num_points=0)
    assert sample.points_xy_pixel.shape == (1, 0, 2)
    assert sample.point_labels.shape == (1, 0)


def test_the_same_seed_gives_the_same_sample_and_another_one_another():
    case, sampling = make_case(), SliceSampling(kind="slices")
    for seed in range(5):
        one, same, other = (draw(case, sampling, s) for s in (seed, seed, seed + 1))
        assert all(torch.equal(getattr(one, f.name), getattr(same, f.name)) for f in fields(one))
        assert not torch.equal(one.image, other.image)


def test_samples_are_stacked_in_their_order():
    one, two = draw(make_case(), seed=0), draw(make_case(), seed=1)
    batch = joined_slices([one, two])
    for field in fields(SliceSample):
        joined = getattr(batch, field.name)
        assert torch.equal(joined[:1], getattr(one, field.name))
        assert torch.equal(joined[1:], getattr(two, field.name))
    assert all(
        torch.equal(getattr(batch.to(torch.device("cpu")), f.name), getattr(batch, f.name))
        for f in fields(batch)
    )


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    sources = (PictureFolders("p", *write_pictures(folder, ["a", "b"])),)
    return prepare_pictures(PicturePlan(sources=sources, destination=folder / "set")).cases


def test_a_picture_is_its_own_slice_with_its_colours(pictures):
    sample = draw(pictures[0])
    picture, mask = ellipse(0)
    # The tiny network's side is the picture's width: 64 pixels.
    mean, std = np.array(SAM.pixel_mean), np.array(SAM.pixel_std)
    expected = (picture - mean) / std
    shown = sample.image[0, :, :48].permute(1, 2, 0).numpy()
    assert np.abs(shown - expected).max() < 1e-4
    assert sample.image[0, :, 48:].abs().max() == 0
    assert np.array_equal(sample.label[0, 0, :48].numpy() > 0, mask)
    x, y = sample.points_xy_pixel[0].numpy().astype(int).T
    assert np.array_equal(sample.label[0, 0].numpy()[y, x], sample.point_labels[0].numpy())


def test_a_coloured_picture_is_changed_with_its_mask(pictures):
    often = dict.fromkeys(("crop_share", "move_share", "blur_share", "contrast_share", "grain_share"), 1.0)
    sampling = SliceSampling(kind="slices", flip_share=0.5, dropout_share=1.0, **often)
    samples = [draw(pictures[0], sampling, seed=seed) for seed in range(8)]
    plain = draw(pictures[0])
    for sample in samples:
        assert sample.image.shape == plain.image.shape
        assert torch.isfinite(sample.image).all()
        inside = sample.label[0, 0].bool()
        assert 0.6 < inside.sum() / plain.label.sum() < 1.6
        # The ellipse is red whatever was done to it.
        red, green, _ = (sample.image[0] * torch.tensor(SAM.pixel_std)[:, None, None]).unbind()
        assert (red - green)[inside].mean() > (red - green)[~inside].mean()
    assert len({float(sample.image.sum()) for sample in samples}) == 8
