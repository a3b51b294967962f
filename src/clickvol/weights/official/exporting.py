"""Models of this package as files that the published code reads with its strict loading."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from clickvol.errors import ConfigError, OutputError
from clickvol.files.atomic import atomic_path
from clickvol.layers.attention import TokenAttention
from clickvol.methods.lifted_segmenter import LiftedSegmenter, LiftedSegmenterConfig
from clickvol.methods.sam2d import Sam2d
from clickvol.prompt_encoders.feature_sampling import FeatureSampling, FeatureSamplingConfig
from clickvol.weights.card import read_card
from clickvol.weights.load import load_network, network_content
from clickvol.weights.official.layout import (
    GAUSSIAN_MATRIX,
    NUM_PROMPT_ENCODERS,
    TOKEN_TO_IMAGE,
    OfficialTensor,
    official_layout,
    shift_mask,
    to_hwd,
)
from clickvol.weights.official.sizes import OfficialMethod, official_config, sizes_of_network

# Any number will do, as what is drawn with it is never used; the same model gives the same file.
_SEED = 0

# How a network starts its training does not matter to one that is trained.
_STARTING_VALUES = ("encoder.adapter_initialisation", "encoder.depth_position_start")


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """What an export made: the file, whose layout it has, and what a user should know, one clause each."""

    path: Path
    method: str
    notes: tuple[str, ...]


def export_checkpoint(id_or_path: str | Path, target: Path, *, method: str | None = None) -> ExportedFile:
    """Write a model in the layout of its method's authors.

    Args:
        id_or_path: as for `load_model`; a model of ProMISe-3D, 3DSAM-adapter or SAM.
        target: the `.pth.tar` or `.pth` to write; replaced when it is there.
        method: whose layout; the model's own method when not given. A network trained as a row of
            ProMISe-3D's Table 2 may be one of 3DSAM-adapter.

    Raises:
        ConfigError: when the network has an option that the layout cannot hold; the message names all.
        ModelNotFoundError, DamagedWeightsError: as `load_model`.
        OutputError: when the file cannot be written.
    """
    own = read_card(id_or_path).method
    wanted = method or own
    layouts: dict[str, OfficialMethod] = {name: name for name in get_args(OfficialMethod)}
    if wanted in layouts:
        _, network = load_network(id_or_path, LiftedSegmenter)
        _write(official_content(network, layouts[wanted]), target)
        return ExportedFile(target, wanted, _notes(network.config))
    if wanted == "sam2d":
        _, sam = load_network(id_or_path, Sam2d)
        _write(dict(sam.state_dict()), target)
        return ExportedFile(target, wanted, ())
    raise ConfigError(
        f"{wanted} has no official layout; models of promise3d, sam3d_adapter and sam2d can be exported"
    )


def official_content(network: LiftedSegmenter, method: OfficialMethod) -> dict[str, Any]:
    """Return a network as an official checkpoint, float32; ConfigError naming the options it cannot hold.

    It is `encoder_dict`, `decoder_dict`, `feature_dict` (but for the automatic variant), `epoch` and
    `best_val_loss`. What the published code stores but never uses is drawn as that code would start it, from a
    fixed seed.
    """
    config = network.config
    _require_published(config, method)
    layout = official_layout(method, config)
    ours = network.state_dict()
    sizes = sizes_of_network(config)
    mask = shift_mask(sizes.tokens, sizes.window)
    # One mask for all blocks: torch.save stores it once.
    content: dict[str, Any] = {
        "epoch": 0,
        "best_val_loss": 0.0,
        "encoder_dict": {
            entry.key: mask if entry.ours is None else _official(ours[entry.ours]) for entry in layout.encoder
        },
        "decoder_dict": {entry.key: _official(ours[entry.ours]) for entry in layout.decoder if entry.ours},
    }
    if config.prompt is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_SEED)
            unused = [_fresh_prompt_encoder(config.prompt, layout.prompt) for _ in range(NUM_PROMPT_ENCODERS)]
        called = {entry.key: _official(ours[entry.ours]) for entry in layout.prompt if entry.ours}
        content["feature_dict"] = [*unused[:-1], unused[-1] | called]
    return content


def _require_published(config: LiftedSegmenterConfig, method: OfficialMethod) -> None:
    """Refuse a network that the published one in its sizes is not."""
    sizes = sizes_of_network(config)
    automatic = config.prompt is None and method == "sam3d_adapter"
    try:
        expected = official_config(method, sizes, automatic=automatic)
    except ConfigError as error:
        raise ConfigError(f"the layout of {method} cannot hold a network of these sizes: {error}") from error
    differing = _differences(network_content(method, config), network_content(method, expected))
    options = [name for name in differing if name not in _STARTING_VALUES]
    if sizes.tokens % sizes.window or sizes.tokens <= sizes.window:
        # The masks of the published code are made for windows that divide the grid and move in it.
        options.append("encoder.window")
    if options:
        raise ConfigError(
            f"the layout of {method} cannot hold this network; it differs from the published one in: "
            f"{', '.join(options)}"
        )


def _differences(actual: Mapping[str, Any], expected: Mapping[str, Any], prefix: str = "") -> list[str]:
    names = []
    for name in dict.fromkeys([*actual, *expected]):
        one, other = actual.get(name), expected.get(name)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            names += _differences(one, other, f"{prefix}{name}.")
        elif one != other:
            names.append(f"{prefix}{name}")
    return names


def _fresh_prompt_encoder(
    config: FeatureSamplingConfig, table: tuple[OfficialTensor, ...]
) -> dict[str, Tensor]:
    """Return an untrained prompt encoder under its official names, in the official order."""
    state = FeatureSampling(config).state_dict()
    prefix = "prompt_encoder."
    tensors: dict[str, Tensor] = {}
    attention: dict[str, Tensor] = {}
    for entry in table:
        name = entry.key.partition(f".{TOKEN_TO_IMAGE}.")[2]
        if entry.ours is not None:
            tensors[entry.key] = state[entry.ours.removeprefix(prefix)]
        elif entry.key == GAUSSIAN_MATRIX:
            tensors[entry.key] = torch.randn(entry.shape)
        else:
            if name == "q_proj.weight":
                inner = config.width // 2
                attention = TokenAttention(config.width, inner, config.num_heads).state_dict()
            tensors[entry.key] = attention[name]
    return tensors


def _official(tensor: Tensor) -> Tensor:
    return to_hwd(tensor).to("cpu", torch.float32).contiguous()


def _notes(config: LiftedSegmenterConfig) -> tuple[str, ...]:
    notes = ["shift masks made from the sizes; epoch and best_val_loss are 0; no states of optimisers"]
    if config.prompt is not None:
        notes.append(
            "what the published code stores but never uses is random, from a fixed seed: prompt encoders 0 "
            "to 2, Fourier matrices, token-to-image attention"
        )
    return tuple(notes)


def _write(content: Mapping[str, Any], target: Path) -> None:
    if target.is_dir():
        raise OutputError(
            f"{target} is a folder, but a file is to be written; give its name, such as model.pth.tar"
        )
    try:
        with atomic_path(target, ".pth.tar") as temporary, temporary.open("wb") as stream:
            torch.save(dict(content), stream)
    except RuntimeError as error:  # what its writer makes of a full disk
        raise OutputError(
            f"cannot write {target}: not all of it fits; make room or choose another place"
        ) from error
