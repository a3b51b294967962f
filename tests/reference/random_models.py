"""Loaded models with random weights, for everything that does not depend on what was learned."""

import torch

from clickvol.methods.registry import find_method
from clickvol.weights.card import FieldOfViewPlan, ModelCard
from clickvol.weights.load import LoadedModel, network_content
from clickvol.weights.safe_file import write_weights
from reference.compare import randomise


def random_card(recipe, network, weights_file="none.safetensors", sha256="1" * 64, size=0):
    return ModelCard(
        id="random",
        title="random weights",
        method=recipe.method,
        network=network_content(recipe.method, network.config),
        fields_of_view=FieldOfViewPlan(first_voxel_mm=4, finest_voxel_mm=4, coarsest_voxel_mm=8),
        modalities=["CT", "MR"],
        training_data=["none: random weights"],
        training_command="none",
        licence="Apache-2.0",
        num_parameters=sum(p.numel() for p in network.parameters()),
        dtype="float32",
        bytes=size,
        sha256=sha256,
        weights_file=weights_file,
        clickvol_version="0.0.0",
    )


def random_model(recipe, seed=0):
    """Return the network of a recipe in float32 on the CPU."""
    torch.manual_seed(seed)
    network = find_method(recipe.method).build(recipe.network)
    network = randomise(network, seed).eval().requires_grad_(False)
    card = random_card(recipe, network)
    return LoadedModel(card, network, torch.device("cpu"), torch.float32)


def write_random_model(recipe, folder, seed=0):
    """Write a model's weights and card into a folder; return the path of the card."""
    model = random_model(recipe, seed)
    weights = folder / "random.safetensors"
    sha256, size = write_weights(model.network.state_dict(), weights, dtype=torch.float32)
    card = random_card(recipe, model.network, weights.name, sha256, size)
    path = folder / "random.json"
    path.write_text(card.model_dump_json())
    return path
