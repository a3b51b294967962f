"""A small scan, a tiny model with random weights, and a way to run the command line in process."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from clickvol.cli.app import main
from clickvol.methods.lifted_segmenter import LiftedSegmenter, LiftedSegmenterConfig
from clickvol.methods.promise3d import promise3d_recipe
from clickvol.weights.card import FieldOfViewPlan, ModelCard
from clickvol.weights.safe_file import write_weights

SHAPE_IJK = (40, 36, 20)
AFFINE_IJK_RAS_MM = np.array([[-2.0, 0, 0, 50], [0, -2.0, 0, 40], [0, 0, 4.0, -30], [0, 0, 0, 1]])


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def run(capfd):
    """Run the command line in this process; arguments may be paths."""

    def run_main(*words: object) -> Outcome:
        capfd.readouterr()
        code = main([str(word) for word in words])
        out, err = capfd.readouterr()
        return Outcome(code, out, err)

    return run_main


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """The card of a network with random weights."""
    folder = tmp_path_factory.mktemp("model")
    config = promise3d_recipe("clickvol", "tiny").network
    torch.manual_seed(0)
    network = LiftedSegmenter(config)
    weights = folder / "tiny.safetensors"
    sha256, size = write_weights(network.state_dict(), weights, dtype=torch.float32)
    card = ModelCard(
        id="tiny",
        title="random weights",
        method="promise3d",
        network=json.loads(TypeAdapter(LiftedSegmenterConfig).dump_json(config)),
        fields_of_view=FieldOfViewPlan(first_voxel_mm=4, finest_voxel_mm=4, coarsest_voxel_mm=8),
        modalities=["CT", "MR"],
        training_data=["none: random weights"],
        training_command="none",
        licence="Apache-2.0",
        scores=[{"set": "none", "dice": 0.5}],
        num_parameters=sum(p.numel() for p in network.parameters()),
        dtype="float32",
        bytes=size,
        sha256=sha256,
        weights_file=weights.name,
        clickvol_version="0.0.0",
    )
    path = folder / "tiny.json"
    path.write_text(card.model_dump_json())
    return path


@pytest.fixture
def ct_array() -> np.ndarray:
    """(i, j, k) int16 HU: air, with a block of muscle and a brighter ball in it."""
    array = np.full(SHAPE_IJK, -1000, np.int16)
    array[5:-5, 5:-5, :] = 50
    i, j, k = np.ogrid[: SHAPE_IJK[0], : SHAPE_IJK[1], : SHAPE_IJK[2]]
    array[(i - 20) ** 2 + (j - 18) ** 2 + 4 * (k - 10) ** 2 < 64] = 120
    return array


@pytest.fixture
def write_scan(tmp_path) -> Callable[..., Path]:
    """Write an (i, j, k) array as a NIfTI file in the test's folder."""

    def write(array: np.ndarray, name: str = "scan.nii.gz") -> Path:
        image = nibabel.Nifti1Image(array, AFFINE_IJK_RAS_MM)
        image.set_qform(AFFINE_IJK_RAS_MM, 1)
        image.set_sform(AFFINE_IJK_RAS_MM, 1)
        nibabel.save(image, tmp_path / name)
        return tmp_path / name

    return write


@pytest.fixture
def scan(write_scan, ct_array) -> Path:
    return write_scan(ct_array)
