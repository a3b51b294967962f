import dataclasses

import numpy as np
import pytest
import torch

from clickvol.datasets.device.sample_plan import PatchSampling, SamplePlanner
from clickvol.datasets.device.scan_store import ScanStore
from clickvol.errors import ConfigError
from reference.stored_scans import stored_scan as scan

SAMPLING = PatchSampling(group_shares={"set": 1.0})


@pytest.fixture(scope="module")
def store():
    return ScanStore.of([scan("a", objects=2), scan("bc")], torch.device("cpu"))


def test_a_sample_is_the_same_in_any_batch(store):
    planner = SamplePlanner(store, SAMPLING, 16, seed=3)
    together, alone = planner.plan(range(40, 48)), planner.plan(range(45, 46))
    for part in dataclasses.fields(together):
        assert np.array_equal(getattr(together, part.name)[5:6], getattr(alone, part.name)), part.name


def test_another_seed_draws_others(store):
    first, second = (SamplePlanner(store, SAMPLING, 16, seed).plan(range(4)) for seed in (1, 2))
    assert not np.array_equal(first.uniform, second.uniform)


def test_shares_are_kept(store):
    sampling = SAMPLING.model_copy(update={"lesion_share": 0.25, "diameter_share": 0.2})
    plan = SamplePlanner(store, sampling, 16, seed=1).plan(range(4000))
    assert abs(plan.lesion.mean() - 0.25) < 0.03
    assert abs((plan.hint == 1).mean() - 0.2) < 0.03
    assert (plan.click_kept | (plan.hint > 0)).all()
    assert plan.voxel_mm.min() >= sampling.finest_voxel_mm


def test_patients_are_drawn_alike_however_many_objects_they_have(store):
    sampling = SAMPLING.model_copy(update={"small_object_exponent": 0.0})
    plan = SamplePlanner(store, sampling, 16, seed=1).plan(range(4000))
    of_first = plan.label_start < store.objects.mask_start[2, 0]
    assert abs(of_first.mean() - 0.5) < 0.04


def test_a_group_that_is_not_there_is_refused(store):
    with pytest.raises(ConfigError, match="no group is drawn from; name some of set"):
        SamplePlanner(store, PatchSampling(group_shares={"other": 1.0}), 16, seed=1)
