"""Organ masks beside training scans: read, cut with the scan, and standing in for what is not there."""

from dataclasses import fields, replace
from functools import partial

import nibabel
import numpy as np
import pytest
import torch

from clickvol.datasets.loader import SampleStream, draw_any_sample, make_phantoms, read_labelled
from clickvol.datasets.msd import CaseRecord
from clickvol.datasets.organs import OrganPlan
from clickvol.datasets.samples import draw_sample
from clickvol.datasets.sampling import SamplingSection
from clickvol.errors import ConfigError, UnreadableVolumeError
from reference.labelled import block_case

AFFINE = np.diag([1.0, 2, 3, 1])
SHAPE = (24, 28, 32)
FILES = OrganPlan(source="file", path="../organs/{case_id}.nii.gz")
GT, NONE = OrganPlan(source="gt"), OrganPlan(source="none")


@pytest.fixture
def record(tmp_path):
    """A scan whose label is organ (1) with a tumour (2), and an organ file that says something else."""
    for name in ("images", "labels", "organs"):
        (tmp_path / name).mkdir()
    image = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
    label, organ = np.zeros((4, 5, 6), np.uint8), np.zeros((4, 5, 6), np.uint8)
    label[1, 2, 3], label[1, 2, 4] = 2, 1
    organ[1, 2, 1:5] = 9
    paths = [tmp_path / name / "kidney_7.nii.gz" for name in ("images", "labels", "organs")]
    for path, array in zip(paths, (image, label, organ), strict=True):
        nibabel.save(nibabel.Nifti1Image(array, AFFINE), path)
    return CaseRecord("kidney_7", "CT", *paths[:2])


def test_a_network_without_the_channel_reads_no_organ(record):
    assert read_labelled(record, tumour_label=2).organ is None
    assert read_labelled(record, tumour_label=2, organs=NONE).organ is None


def test_a_file_is_found_beside_the_scan(record):
    case = read_labelled(record, tumour_label=2, organs=FILES)
    assert case.organ.dtype == np.uint8
    assert np.argwhere(case.organ).tolist() == [[k, 2, 1] for k in range(1, 5)]
    assert case.organ.max() == 1
    assert np.argwhere(case.label).tolist() == [[3, 2, 1]]


def test_a_label_gives_organ_and_tumour(record):
    case = read_labelled(record, tumour_label=2, organs=GT)
    assert np.argwhere(case.organ).tolist() == [[3, 2, 1], [4, 2, 1]]
    assert np.argwhere(case.label).tolist() == [[3, 2, 1]]


def test_a_label_that_is_all_tumour_gives_no_organ(record):
    with pytest.raises(ConfigError, match="would be the answer"):
        read_labelled(record, organs=GT)


def test_a_label_without_the_value_is_refused(record):
    with pytest.raises(ConfigError, match=r"has no voxel of value 3; mend tumour_label"):
        read_labelled(record, tumour_label=3)


def test_an_organ_that_is_missing_or_elsewhere_is_refused(record, tmp_path):
    path = tmp_path / "organs" / "kidney_7.nii.gz"
    moved = AFFINE.copy()
    moved[0, 3] = 5
    organ = np.asarray(nibabel.load(path).dataobj)
    nibabel.save(nibabel.Nifti1Image(organ, moved), path)
    with pytest.raises(ConfigError, match=r"organs/kidney_7\.nii\.gz is not on the grid of"):
        read_labelled(record, tumour_label=2, organs=FILES)
    path.unlink()
    with pytest.raises(UnreadableVolumeError, match="kidney_7"):
        read_labelled(record, tumour_label=2, organs=FILES)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "is the same for every scan"),
        ("kidney.nii.gz", "is the same for every scan; write {case_id} into it"),
        ("{case}.nii.gz", "has a field other than {case_id}"),
        ("{}.nii.gz", "has a field other than {case_id}"),
        ("{case_id.nii.gz", "has a field other than {case_id}"),
    ],
)
def test_a_path_that_does_not_tell_scans_apart_is_refused(path, message):
    with pytest.raises(ConfigError, match=message):
        OrganPlan(source="file", path=path)


# -- samples ----------------------------------------------------------------------------------------


def draw(case, seed, num_channels=2, config=None):
    rng = np.random.default_rng(seed)
    return draw_sample(case, SHAPE, config or SamplingSection(), rng, num_channels=num_channels)


def test_the_mask_is_cut_turned_and_bent_with_the_label():
    """An organ that is the object itself gives the label, whatever the augmentation."""
    case = block_case()
    case = replace(case, organ=case.label)
    for seed in range(12):
        sample = draw(case, seed)
        assert sample.patch.shape == (2, *SHAPE)
        assert sample.label.any()
        torch.testing.assert_close(sample.patch[1], sample.label[0].float(), rtol=0, atol=0)


def test_without_a_mask_the_scan_is_there_twice():
    sample = draw(block_case(), 1)
    assert torch.equal(sample.patch[0], sample.patch[1])


def test_the_channel_changes_nothing_else_of_a_sample():
    case = block_case()
    with_organ = draw(replace(case, organ=case.label), 4)
    plain = draw(case, 4, num_channels=1)
    assert torch.equal(with_organ.patch[:1], plain.patch)
    for name in {f.name for f in fields(plain)} - {"patch"}:
        assert torch.equal(getattr(with_organ, name), getattr(plain, name))


def test_the_stream_gives_the_channels_of_the_network(box_case):
    stream = SampleStream(
        [box_case],
        [],
        phantom_share=0.0,
        draw=partial(draw_any_sample, patch_shape_dhw=SHAPE, sampling=SamplingSection(), num_channels=2),
        small_object_exponent=0.0,
        seed=0,
        length=2,
    )
    assert stream[0].patch.shape == (2, *SHAPE)


def test_a_phantom_has_a_stand_in_around_its_tumour():
    (case,) = make_phantoms(1, seed=5, with_organ=True)
    (plain,) = make_phantoms(1, seed=5)
    assert plain.organ is None
    np.testing.assert_array_equal(case.label, plain.label)
    assert (case.organ[case.label > 0] == 1).all()
    assert case.organ.sum() > 1.5 * case.label.sum()
