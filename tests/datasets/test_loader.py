from dataclasses import fields
from functools import partial

import numpy as np
import pytest
import torch

from clickvol.datasets import loader
from clickvol.datasets.loader import (
    SampleStream,
    batch_indices,
    draw_any_sample,
    make_phantoms,
)
from clickvol.datasets.sampling import SamplingSection
from clickvol.errors import ConfigError
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
