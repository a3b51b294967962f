"""Tiny labelled data sets on disk, and methods that answer what a test wants."""

import json

import numpy as np

from clickvol.datasets.preparation import PreparationPlan, prepare_data_set
from clickvol.evaluation.methods import Answer
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.formats import write_volume
from clickvol.phantoms.phantom import make_phantom

SHAPE = (10, 24, 24)


def oblique_grid(shape=SHAPE, spacing=(3.0, 1.5, 1.5)):
    """A grid whose axes run down, back and left, with an offset."""
    affine = np.array([[0, 0, -1, 0], [0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 0, 1.0]])
    affine[:3, :3] *= spacing
    affine[:3, 3] = (30, -20, 100)
    return VolumeGrid(shape, affine)


def write_raw(folder, cases, modality="CT", grid=None):
    """Write an MSD folder of {case id: (image array, label array)}."""
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    pairs = []
    for case_id, (image, label) in cases.items():
        here = grid or oblique_grid(image.shape)
        file = f"{case_id}.nii.gz"
        write_volume(image.astype(np.int16), here, folder / "imagesTr" / file)
        write_volume(label.astype(np.uint8), here, folder / "labelsTr" / file)
        pairs.append({"image": f"./imagesTr/{file}", "label": f"./labelsTr/{file}"})
    index = {"name": folder.name, "modality": {"0": modality}, "training": pairs}
    (folder / "dataset.json").write_text(json.dumps(index))
    return folder


def write_set(folder, cases, modality="CT", grid=None, **options):
    """Prepare a data set of {case id: (image array, label array)}; `options` as of `PreparationPlan`."""
    raw = write_raw(folder.parent / "raw" / folder.name, cases, modality, grid)
    prepare_data_set(PreparationPlan(kind="msd", source=raw, destination=folder, **options))
    return folder


def block_arrays(start=(2, 6, 6), stop=(7, 14, 16), shape=SHAPE, seed=0):
    """A bright block in noise, and its label."""
    label = np.zeros(shape, np.uint8)
    label[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = 1
    noise = np.random.default_rng(seed).normal(0, 10, shape)
    return label * 200.0 + noise, label


def write_phantoms(folder, count=2, shape=(16, 32, 32), write=write_set):
    """Prepare small CT phantoms; `write_raw` leaves them as they come."""
    cases = {}
    for seed in range(count):
        phantom = make_phantom(seed, shape_dhw=shape, spacing_dhw_mm=(6.0, 5.0, 5.0), tumour_diameter_mm=50.0)
        grid = phantom.volume.grid
        cases[f"case_{seed:03d}"] = (phantom.volume.array, phantom.truth.array)
    return write(folder, cases, grid=grid)


class Scripted:
    """A method whose answers a function makes of the scan and the clicks."""

    fingerprint = "scripted"

    def __init__(self, answer, name="scripted", *, takes_clicks=True, takes_organ_mask=False, seconds=0.25):
        self.name, self.takes_clicks = name, takes_clicks
        self.takes_organ_mask = takes_organ_mask
        self._answer, self._seconds = answer, seconds
        self.scans, self.asked = [], []

    def open_scan(self, scan):
        self.scans.append(scan)
        return lambda clicks: self._reply(scan, clicks)

    def _reply(self, scan, clicks):
        self.asked.append(tuple(clicks))
        return Answer(self._answer(scan, clicks), self._seconds)
