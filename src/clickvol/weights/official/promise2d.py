"""ProMISe-2D checkpoints of its authors (Wang, Song et al., arXiv 2403.04164) as models of this package.

What is SAM's in such a file has SAM's names. The names of what is added are not known here: its layers are told
by kind, shape and order, a norm being that of the convolution before it. What does not fit exactly is refused.
"""

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from clickvol.errors import DamagedWeightsError
from clickvol.methods.promise2d import METHOD_ID, Mode, Promise2d, Promise2dConfig, promise2d_network
from clickvol.methods.sam2d import Sam2d, sam2d_preset
from clickvol.weights.cache import sha256_of_file
from clickvol.weights.load import network_content
from clickvol.weights.official.sam import recognise_preset
from clickvol.weights.save import save_imported

# By which SAM's part of a file is told, whatever stands before its names.
_SAM_MARKS = ("image_encoder.pos_embed", "image_encoder.patch_embed.seq.0.c.weight")

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Layer:
    """A layer: the tensors of a convolution or linear layer by their last name, and those of its norm."""

    prefix: str
    own: dict[str, Tensor]
    norm_prefix: str
    norm: dict[str, Tensor]

    @property
    def signature(self) -> tuple[Shape, Shape, bool]:
        """What layers are compared by: shapes of weight and norm, and whether there is a bias."""
        norm = self.norm["weight"].shape if self.norm else ()
        return tuple(self.own["weight"].shape), tuple(norm), "bias" in self.own


@dataclass(frozen=True, slots=True)
class _Checkpoint:
    """A file taken apart: the size of its SAM, its tensors by SAM's names, and the others in their order."""

    preset: str
    sam: dict[str, Tensor]
    added: dict[str, Tensor]


def take_apart(content: Mapping[str, object]) -> _Checkpoint | None:
    """Return the parts of a ProMISe-2D file, whose network may lie below one name; None for any other file."""
    inner = [value for value in content.values() if isinstance(value, Mapping)]
    for state in (content, *inner):
        mark = next((key for key in state if str(key).endswith(_SAM_MARKS)), None)
        if mark is None:
            continue
        start = mark[: len(mark) - len(next(m for m in _SAM_MARKS if mark.endswith(m)))]
        tensors = {str(k).removeprefix(start): v for k, v in state.items() if isinstance(v, Tensor)}
        preset = recognise_preset(tensors)
        if preset is None:
            return None
        with torch.device("meta"):
            known = Sam2d(sam2d_preset(preset)).state_dict()
        sam = {name: value for name, value in tensors.items() if name in known}
        added = {name: value for name, value in tensors.items() if name not in known}
        return _Checkpoint(preset, sam, added) if _modes(preset, added) else None
    return None


def import_promise2d(parts: _Checkpoint, path: Path, folder: Path, model_id: str | None = None) -> Path:
    """Turn a file that was taken apart into a model; return its card. DamagedWeightsError if unfit."""
    config = _config(parts)
    with torch.device("meta"):
        network = Promise2d(config)
    expected = network.state_dict()
    state, faults, dropped = _matched(parts, expected)
    if faults:
        raise DamagedWeightsError(
            f"{path} is not a checkpoint of ProMISe-2D whose layers can be told; nothing was written; "
            f"{len(faults)} faults: {'; '.join(faults)}"
        )
    notes = [
        f"imported from {path.name}, sha256 {sha256_of_file(path)}",
        "its added layers were told by shape and order: compare a mask with one of the authors' program first",
        *(f"left out: {name}, which nothing uses" for name in dropped),
    ]
    return save_imported(
        state,
        network,
        folder,
        id=model_id or f"promise2d-official-{config.mode}",
        title=f"ProMISe-2D ({config.mode}), weights of its authors",
        method=METHOD_ID,
        network=network_content(METHOD_ID, config),
        modalities=["2D images"],
        training_data=["not said in the file: endoscopy or dermoscopy"],
        training_command="by its authors; imported with clickvol models import",
        licence="weights of the authors; ask them before use",
        notes=notes,
    )


def _modes(preset: str, added: Mapping[str, Tensor]) -> list[str]:
    """Return which of the two parts are there, by the shape of the first weight of each."""
    shapes = {tuple(value.shape) for value in added.values()}
    network = promise2d_network(preset, "promise", form="resnet", last_layer="default")
    first: dict[str, Shape] = {}
    if network.auto_prompter is not None:
        mixed = network.auto_prompter.mixed_width
        first["apm"] = (mixed, sum(network.auto_prompter.tap_widths), 3, 3)
    if network.pattern is not None:
        first["ips"] = (network.pattern.hidden_width, network.pattern.width)
    return [mode for mode, shape in first.items() if shape in shapes]


def _config(parts: _Checkpoint) -> Promise2dConfig:
    """Return the network of a file; the number of points from the narrowest layer below the ResNet."""
    modes = _modes(parts.preset, parts.added)
    mode: Mode = "promise" if len(modes) == 2 else "apm" if modes == ["apm"] else "ips"
    deepest = sam2d_preset(parts.preset).image_encoder.feature_width * 2
    heads = [value.shape[0] for value in parts.added.values() if value.ndim == 2 and value.shape[1] == deepest]
    num_points = min(heads, default=32) // 2
    return promise2d_network(
        parts.preset, mode, form="resnet", last_layer="default", num_points=max(1, num_points)
    )


def _layers(state: Mapping[str, Tensor], faults: list[str]) -> Iterator[_Layer]:
    """Yield layers in the order of a state; a norm belongs to the convolution before it."""
    by_prefix: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, value in state.items():
        prefix, _, last = name.rpartition(".")
        by_prefix[prefix][last] = value
    layer: _Layer | None = None
    for prefix, tensors in by_prefix.items():
        if "running_mean" in tensors and layer is not None and not layer.norm and layer.own["weight"].ndim == 4:
            layer = _Layer(layer.prefix, layer.own, prefix, tensors)
            continue
        if layer is not None:
            yield layer
        layer = None
        if "weight" in tensors and tensors["weight"].ndim in (2, 4) and not tensors.keys() - {"weight", "bias"}:
            layer = _Layer(prefix, tensors, "", {})
        else:
            faults.append(f"{prefix} is a layer of no known kind")
    if layer is not None:
        yield layer


def _matched(
    parts: _Checkpoint, expected: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """Return the state of our network, what does not fit, and layers that nothing uses."""
    faults: list[str] = []
    state: dict[str, Tensor] = {}
    for name, value in expected.items():
        if name.startswith("sam."):
            given = parts.sam.get(name.removeprefix("sam."))
            if given is None or given.shape != value.shape:
                faults.append(f"{name.removeprefix('sam.')} is missing or of another shape")
            else:
                state[name] = given
    ours = _layers({n: v for n, v in expected.items() if not n.startswith("sam.")}, faults)
    given_layers: dict[object, deque[_Layer]] = defaultdict(deque)
    for layer in _layers(parts.added, faults):
        given_layers[layer.signature].append(layer)
    for layer in ours:
        queue = given_layers[layer.signature]
        if not queue:
            faults.append(f"no layer of weight {layer.signature[0]} is left for {layer.prefix}")
            continue
        other = queue.popleft()
        state |= {f"{layer.prefix}.{last}": value for last, value in other.own.items()}
        state |= {f"{layer.norm_prefix}.{last}": value for last, value in other.norm.items()}
    over = [layer for queue in given_layers.values() for layer in queue]
    # Released: a second head of the ResNet is computed and never used.
    deepest = sam2d_preset(parts.preset).image_encoder.feature_width * 2
    unused = [layer for layer in over if layer.signature[0] == (2 * deepest, deepest)][:1]
    faults += [f"{layer.prefix} is left over" for layer in over if layer not in unused]
    return state, faults, [layer.prefix for layer in unused]
