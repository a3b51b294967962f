import numpy as np
import pytest
import torch

from clickvol.datasets import loader
from clickvol.datasets.loader import CaseSampler, batch_numbers, batches, make_phantoms
from clickvol.errors import ConfigError
from reference.labelled import block_case


def _sampler(cases, phantoms=(), *, phantom_share=0.0, seed=0, in_epochs=False):
    """Samples are then the very case that they are drawn from, and a random number."""
    return CaseSampler(
        cases,
        phantoms,
        phantom_share=phantom_share,
        draw=lambda case, rng: [(case, rng.random())],
        join=lambda batches: [sample for batch in batches for sample in batch],
        seed=seed,
        in_epochs=in_epochs,
    )


def _drawn(sampler, count):
    return [case for case, _ in sampler.batch(range(count))]


# -- the stream -------------------------------------------------------------------------------------


def test_a_sample_depends_on_its_number_and_the_seed_alone(box_case, phantom_case):
    sampler = _sampler([box_case], [phantom_case], phantom_share=0.5)
    alone = sampler.batch([5])
    assert sampler.batch([0, 3, 5, 3])[2:3] == alone
    assert sampler.batch([6]) != alone
    assert _sampler([box_case], [phantom_case], phantom_share=0.5, seed=1).batch([5]) != alone


def test_modalities_are_drawn_alike_however_many_cases_they_have():
    many_ct = [block_case(modality="CT") for _ in range(9)]
    drawn = [case.volume.modality for case in _drawn(_sampler([*many_ct, block_case(modality="MR")]), 600)]
    assert drawn.count("MR") / 600 == pytest.approx(0.5, abs=0.07)


def test_in_epochs_every_scan_comes_once_before_any_comes_again():
    cases = [block_case(modality=modality) for modality in ("CT", "CT", "CT", "MR", "MR")]
    drawn = _drawn(_sampler(cases, in_epochs=True), 20)
    numbers = [next(n for n, case in enumerate(cases) if case is one) for one in drawn]
    epochs = [numbers[n : n + 5] for n in range(0, 20, 5)]
    assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    assert _drawn(_sampler(cases, in_epochs=True), 20)[7] is _sampler(cases, in_epochs=True).batch([7])[0][0]


def test_every_case_of_a_modality_is_drawn():
    cases = [block_case() for _ in range(4)]
    drawn = _drawn(_sampler(cases), 400)
    counts = [sum(one is case for one in drawn) for case in cases]
    assert sum(counts) == 400
    assert min(counts) > 60


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_phantoms_have_their_share(share):
    case, phantom = block_case(), block_case()
    drawn = _drawn(_sampler([case], [phantom], phantom_share=share), 400)
    assert np.mean([one is phantom for one in drawn]) == pytest.approx(share, abs=0.07 if 0 < share < 1 else 0)


def test_one_source_alone_is_always_drawn():
    case = block_case()
    assert all(one is case for one in _drawn(_sampler([case], phantom_share=0.5), 20))
    assert all(one is case for one in _drawn(_sampler([], [case], phantom_share=0.0), 20))


def test_nothing_to_train_on_is_refused():
    with pytest.raises(ConfigError, match="nothing to train on"):
        _sampler([])


# -- the numbers of a step --------------------------------------------------------------------------


def test_numbers_count_on_from_the_first_sample():
    assert [list(r) for r in batch_numbers(0, 3, 2)] == [[0, 1], [2, 3], [4, 5]]
    assert batch_numbers(15, 1, 3) == [range(15, 18)]


def test_processes_and_rounds_share_the_samples_of_one_larger_batch():
    whole = [[*r] for r in batch_numbers(7, 2, 6)]
    split = [batch_numbers(7, 2, 2, rank=r, count=3) for r in range(3)]
    assert [[*a, *b, *c] for a, b, c in zip(*split, strict=True)] == whole
    rounds = batch_numbers(7, 6, 2)
    assert [[*a, *b, *c] for a, b, c in (rounds[:3], rounds[3:])] == whole


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_batches_come_in_order_from_processes_or_from_the_device_itself(device):
    made = list(batches(_Numbers(), [range(2), range(2, 4), range(4, 6)], torch.device(device), 1))
    assert made == [[0, 10], [20, 30], [40, 50]]


class _Numbers:
    def batch(self, numbers):
        return [10 * n for n in numbers]


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


def test_a_phantom_has_a_stand_in_around_its_tumour():
    (case,) = make_phantoms(1, seed=5, with_organ=True)
    (plain,) = make_phantoms(1, seed=5)
    assert plain.organ is None
    np.testing.assert_array_equal(case.label, plain.label)
    assert (case.organ[case.label > 0] == 1).all()
    assert case.organ.sum() > 1.5 * case.label.sum()
