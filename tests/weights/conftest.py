"""A tiny model with its card, in a folder."""

import json

import pytest
import torch
from pydantic import TypeAdapter

from clickvol.methods.lifted_segmenter import LiftedSegmenter, LiftedSegmenterConfig
from clickvol.methods.promise3d import promise3d_recipe
from clickvol.weights.card import FieldOfViewPlan, ModelCard
from clickvol.weights.safe_file import write_weights


def write_model(folder, state, **changes):
    """Write weights and card of a tiny network; return the card's path."""
    sha256, size = write_weights(state, folder / "m.safetensors", dtype=torch.float32)
    network = TypeAdapter(LiftedSegmenterConfig).dump_python(
        promise3d_recipe("clickvol", "tiny").network, mode="json"
    )
    content = {
        "id": "m",
        "title": "a tiny one",
        "method": "promise3d",
        "network": network,
        "fields_of_view": FieldOfViewPlan(
            first_voxel_mm=3, finest_voxel_mm=1, coarsest_voxel_mm=6
        ).model_dump(),
        "modalities": ["CT"],
        "training_data": [],
        "training_command": "none",
        "licence": "Apache-2.0",
        "num_parameters": 1,
        "dtype": "float32",
        "bytes": size,
        "sha256": sha256,
        "weights_file": "m.safetensors",
        "clickvol_version": "0",
    }
    card = ModelCard.model_validate(content | changes)
    path = folder / "m.json"
    path.write_text(json.dumps(card.model_dump(mode="json")), encoding="utf-8")
    return path


@pytest.fixture
def tiny_state():
    torch.manual_seed(4)
    return LiftedSegmenter(promise3d_recipe("clickvol", "tiny").network).state_dict()


@pytest.fixture
def save_model(tmp_path, tiny_state):
    """Write the tiny model with other weights or another card; return the card's path."""

    def save(state=None, **changes):
        return write_model(tmp_path, tiny_state if state is None else state, **changes)

    return save
