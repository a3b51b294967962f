import numpy as np
import torch

from clickvol.datasets.device import rotating
from clickvol.datasets.device.patch_sampler import PatchSampler
from clickvol.datasets.device.rotating import RotatingSampler
from clickvol.datasets.device.scan_store import ScanStore
from clickvol.datasets.sampling import PatchSampling
from reference.stored_scans import stored_scan

SCANS = [stored_scan("a" * n) for n in range(1, 7)]
GROUPS = ["CT"] * 4 + ["MR"] * 2


def rotating_sampler(loads):
    def load(indices):
        loads.append(indices)
        store = ScanStore.of([SCANS[n] for n in indices], torch.device("cpu"))
        return PatchSampler(store, PatchSampling(), 8, seed=1)

    sizes = [scan.image.size for scan in SCANS]
    return RotatingSampler(GROUPS, sizes, most_voxels=3 * sizes[0], seed=5, load=load)


def test_a_turn_holds_what_there_is_room_for_and_every_group():
    sampler = rotating_sampler([])
    turns = [sampler.scans_of(turn) for turn in range(40)]
    assert {len(scans) for scans in turns} == {3}
    assert all({GROUPS[n] for n in scans} == {"CT", "MR"} for scans in turns)
    counts = np.bincount(np.concatenate(turns), minlength=6)
    assert counts.min() > 8
    assert sampler.scans_of(7) == turns[7]


def test_samples_are_the_same_from_wherever_a_run_goes_on(monkeypatch):
    monkeypatch.setattr(rotating, "SAMPLES_PER_TURN", 4)
    loads = []
    whole = rotating_sampler(loads)
    made = [whole.batch(range(first, first + 3)) for first in (0, 3, 6, 9)]
    # Numbers 3 to 5 lie across two turns; each turn is read once.
    assert len(loads) == 3
    again = rotating_sampler([]).batch(range(3, 6))
    assert torch.equal(made[1].patch, again.patch)
    assert torch.equal(made[1].label, again.label)
    assert torch.equal(again.noise_seed, made[1].noise_seed)
