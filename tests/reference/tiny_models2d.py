"""Tiny 2D networks, and how they are saved with their card."""

from dataclasses import replace

import torch

from clickvol.methods.promise2d import promise2d_network
from clickvol.version import __version__
from clickvol.weights.card import ModelCard
from clickvol.weights.load import network_content
from clickvol.weights.safe_file import write_weights


def tiny_promise2d_config(mode):
    """The tiny network with a ResNet of two blocks and four points."""
    config = promise2d_network("tiny", mode, form="resnet", last_layer="default", num_points=4)
    if config.auto_prompter is None:
        return config
    smaller = replace(config.auto_prompter, mixed_width=12, stage_widths=(8, 16), stage_depths=(1, 1))
    return replace(config, auto_prompter=smaller)


def write_model2d(folder, network, method):
    """Write weights and card of a 2D network; return the card's path."""
    weights = folder / f"{method}.safetensors"
    sha256, size = write_weights(network.state_dict(), weights, dtype=torch.float32)
    card = ModelCard(
        id=f"tiny-{method}",
        title="random weights",
        method=method,
        network=network_content(method, network.config),
        modalities=[],
        training_data=["none: random weights"],
        training_command="none",
        licence="Apache-2.0",
        num_parameters=sum(p.numel() for p in network.parameters()),
        dtype="float32",
        bytes=size,
        sha256=sha256,
        weights_file=weights.name,
        clickvol_version=__version__,
    )
    path = folder / f"{method}.json"
    path.write_text(card.model_dump_json(), encoding="utf-8")
    return path
