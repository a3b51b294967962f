"""Organ masks in samples: cut with the scan, and standing in for what is not there."""

from dataclasses import fields, replace
from functools import partial

import numpy as np
import torch

from clickvol.datasets.loader import SampleStream, draw_any_sample, make_phantoms
from clickvol.datasets.samples import draw_sample
from clickvol.datasets.sampling import SamplingSection
from reference.labelled import block_case

SHAPE = (24, 28, 32)


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
