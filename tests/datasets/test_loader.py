from dataclasses import fields
from functools import partial

import nibabel
import numpy as np
import pytest
import torch

from clickvol.datasets import loader
from clickvol.datasets.loader import (
    SampleStream,
    batch_indices,
    draw_any_sample,
    make_phantoms,
    read_labelled,
)
from clickvol.datasets.msd import CaseRecord
from clickvol.datasets.sampling import SamplingSection
from clickvol.errors import ConfigError, UnreadableVolumeError
from reference.labelled import block_case

SHAPE = (12, 14, 16)


def _stream(cases, phantoms=(), *, phantom_share=0.0, seed=0, length=100):
    return SampleStream(
        cases,
        phantoms,
        phantom_share=phantom_share,
        draw=partial(draw_any_sample, patch_shape_dhw=SHAPE, sampling=SamplingSection()),
        small_object_exponent=0.0,
        seed=seed,
        length=length,
    )


def _equal(one, other):
    return all(torch.equal(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))


@pytest.fixture
def drawn_case(monkeypatch):
    """Samples are then the very case that they are drawn from."""
    monkeypatch.setattr(loader, "draw_sample", lambda case, *rest, **options: case)


# -- the stream -------------------------------------------------------------------------------------


def test_a_sample_depends_on_its_number_and_the_seed_alone(box_case, phantom_case):
    one, other = (_stream([box_case], [phantom_case], phantom_share=0.5) for _ in range(2))
    for number in (0, 3, 1, 3, 7):
        one[number]
    assert _equal(one[5], other[5])
    assert _equal(one[5], one[5])
    assert not _equal(one[5], one[6])
    assert not _equal(one[5], _stream([box_case], [phantom_case], phantom_share=0.5, seed=1)[5])


def test_its_length_is_that_of_the_run(box_case):
    assert len(_stream([box_case], length=17)) == 17


@pytest.mark.usefixtures("drawn_case")
def test_modalities_are_drawn_alike_however_many_cases_they_have():
    many_ct = [block_case(modality="CT") for _ in range(9)]
    stream = _stream([*many_ct, block_case(modality="MR")])
    drawn = [stream[n].volume.modality for n in range(600)]
    assert drawn.count("MR") / 600 == pytest.approx(0.5, abs=0.07)


@pytest.mark.usefixtures("drawn_case")
def test_every_case_of_a_modality_is_drawn():
    cases = [block_case() for _ in range(4)]
    stream = _stream(cases)
    counts = [sum(stream[n] is case for n in range(400)) for case in cases]
    assert sum(counts) == 400
    assert min(counts) > 60


@pytest.mark.usefixtures("drawn_case")
@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_phantoms_have_their_share(share):
    case, phantom = block_case(), block_case()
    stream = _stream([case], [phantom], phantom_share=share)
    drawn = np.mean([stream[n] is phantom for n in range(400)])
    assert drawn == pytest.approx(share, abs=0.07 if 0 < share < 1 else 0)


@pytest.mark.usefixtures("drawn_case")
def test_one_source_alone_is_always_taken():
    case = block_case()
    assert all(_stream([case], phantom_share=0.5)[n] is case for n in range(20))
    assert all(_stream([], [case], phantom_share=0.0)[n] is case for n in range(20))


def test_nothing_to_train_on_is_refused():
    with pytest.raises(ConfigError, match="nothing to train on"):
        _stream([])


# -- the numbers of a step --------------------------------------------------------------------------


def test_batch_indices_count_on_from_the_first_step():
    assert list(batch_indices(range(3), 2)) == [[0, 1], [2, 3], [4, 5]]
    assert list(batch_indices(range(5, 6), 3)) == [[15, 16, 17]]


def test_a_run_that_was_stopped_goes_on_with_the_same_numbers():
    parts = [*batch_indices(range(4), 3), *batch_indices(range(4, 9), 3)]
    assert parts == list(batch_indices(range(9), 3))


def test_processes_and_rounds_share_the_samples_of_one_larger_batch():
    whole = list(batch_indices(range(2), 6))
    split = [list(batch_indices(range(2), 2, rank=r, count=3)) for r in range(3)]
    assert [a + b + c for a, b, c in zip(*split, strict=True)] == whole
    rounds = list(batch_indices(range(6), 2))
    assert [[*a, *b, *c] for a, b, c in (rounds[:3], rounds[3:])] == whole


# -- reading ----------------------------------------------------------------------------------------


def _record(folder, image, label, *, label_affine=None):
    affine = np.diag([1.0, 2, 3, 1])
    paths = folder / "image.nii.gz", folder / "label.nii.gz"
    nibabel.save(nibabel.Nifti1Image(image, affine), paths[0])
    nibabel.save(nibabel.Nifti1Image(label, affine if label_affine is None else label_affine), paths[1])
    return CaseRecord("sts_001", "CT", *paths)


IMAGE = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)


def test_a_labelled_scan_has_the_modality_of_its_folder_and_a_label_of_0_and_1(tmp_path):
    label = np.zeros((4, 5, 6), dtype=np.uint8)
    label[1, 2, 3], label[3, 4, 5] = 1, 7
    case = read_labelled(_record(tmp_path, IMAGE, label))
    assert case.volume.modality == "CT"
    assert case.volume.array[3, 2, 1] == IMAGE[1, 2, 3]
    assert case.label.dtype == np.uint8
    assert np.argwhere(case.label).tolist() == [[3, 2, 1], [5, 4, 3]]
    assert case.label.max() == 1
    assert case.object_voxels_dhw.tolist() == [[3, 2, 1], [5, 4, 3]]


LABEL = (np.indices((4, 5, 6)).sum(axis=0) == 7).astype(np.uint8)


def test_a_label_elsewhere_is_refused(tmp_path):
    moved = np.diag([1.0, 2, 3, 1])
    moved[0, 3] = 5
    record = _record(tmp_path, IMAGE, LABEL, label_affine=moved)
    with pytest.raises(ConfigError, match=r"label\.nii\.gz is not on the grid of .*image\.nii\.gz"):
        read_labelled(record)


def test_a_label_that_leans_half_a_millimetre_away_in_the_far_corner_is_refused(tmp_path):
    image = np.arange(2 * 2 * 460, dtype=np.int16).reshape(2, 2, 460)
    leaning = np.diag([1.0, 2, 3, 1])
    leaning[0, 2] += 1e-3
    record = _record(tmp_path, image, (image == 7).astype(np.uint8), label_affine=leaning)
    with pytest.raises(ConfigError, match=r"is not on the grid of .*: its corners lie up to 0\.46 mm away"):
        read_labelled(record)


def test_a_label_of_another_size_is_refused(tmp_path):
    record = _record(tmp_path, IMAGE, np.pad(LABEL, ((0, 0), (0, 0), (0, 1))))
    with pytest.raises(ConfigError, match="is not on the grid"):
        read_labelled(record)


def test_a_label_without_object_is_refused(tmp_path):
    record = _record(tmp_path, IMAGE, np.zeros((4, 5, 6), np.uint8))
    with pytest.raises(UnreadableVolumeError, match=r"label\.nii\.gz: empty scan"):
        read_labelled(record)


# -- phantoms ---------------------------------------------------------------------------------------


def test_phantoms_are_ct_and_mr_in_turn_and_follow_the_seed(monkeypatch):
    seen = []

    def small_phantom(seed, *, modality, **size):
        seen.append((seed, modality))
        return loader_make_phantom(
            seed, modality=modality, shape_dhw=(24, 24, 24), spacing_dhw_mm=(8.0, 8.0, 8.0)
        )

    loader_make_phantom = loader.make_phantom
    monkeypatch.setattr(loader, "make_phantom", small_phantom)
    made = make_phantoms(3, seed=2)
    assert seen == [(2000, "CT"), (2001, "MR"), (2002, "CT")]
    assert [case.volume.modality for case in made] == ["CT", "MR", "CT"]
    assert all(case.label.any() for case in made)
    assert make_phantoms(0, seed=2) == []
