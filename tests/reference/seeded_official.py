"""Seeded weights in the layout of the official checkpoints, with patches and clicks.

The recipe is that of the golden values (tests/golden/README.md): every tensor depends only on the seed, its
part of the checkpoint, its key and its shape; scales are such that every path of the network matters.
"""

import re
import zlib
from dataclasses import dataclass, replace

import numpy as np
import torch

SEED = 20240527


@dataclass(frozen=True, kw_only=True)
class Official:
    """A published network in some size; the defaults are the golden one's: ViT-B on a patch of 64^3.

    growth: ProMISe-3D doubles its stream in every block; the weights grow along, so that late blocks still
    matter.
    """

    method: str = "promise3d"
    growth: float = 2.2
    tokens: int = 16
    window: int = 8
    table_side: int = 64
    width: int = 768
    heads: int = 12
    blocks: int = 12
    mlp: int = 3072
    local_rows: int = 27
    global_rows: int = 127
    feature_width: int = 256
    prompt_mlp: int = 2048
    decoder_width: int = 128
    stride: int = 4

    @property
    def patch_side(self):
        return self.tokens * self.stride

    @property
    def adapters(self):
        return ("adapter", "adapter_back") if self.method == "promise3d" else ("adapter",)


PROMISE = Official()
SAM3D = Official(method="sam3d_adapter", growth=1.15)
TINY = Official(
    tokens=8,
    window=4,
    table_side=16,
    width=48,
    heads=4,
    blocks=4,
    mlp=96,
    local_rows=9,
    global_rows=15,
    feature_width=32,
    prompt_mlp=64,
    decoder_width=8,
)
TINY_SAM3D = replace(TINY, method="sam3d_adapter", growth=1.15)


def make_checkpoint(official, *, prompted=True):
    """Return what the published trainer saves, without its optimisers."""
    content = {
        "epoch": 1,
        "best_val_loss": np.float32(0.5),
        "encoder_dict": make_part(official, "encoder_dict", encoder_shapes(official)),
        "decoder_dict": make_part(official, "decoder_dict", decoder_shapes(official)),
    }
    if prompted:
        shapes = prompt_shapes(official)
        content["feature_dict"] = [make_part(official, f"feature_dict{index}", shapes) for index in range(4)]
    return content


def encoder_shapes(official):
    """Return key -> shape of `encoder_dict`."""
    width, side = official.width, official.table_side
    shapes = {
        "pos_embed": (1, side, side, width),
        "depth_embed": (1, official.tokens, width),
        "patch_embed.proj.weight": (width, 3, 16, 16),
        "patch_embed.proj.bias": (width,),
        "slice_embed.weight": (width, 1, 1, 1, 16),
        "slice_embed.bias": (width,),
    }
    for index in range(official.blocks):
        block = _block_shapes(official, index)
        shapes |= {f"blocks.{index}.{key}": shape for key, shape in block.items()}
    wide = official.feature_width
    for neck in range(4):
        shapes |= {
            f"neck_3d.{neck}.0.weight": (wide, width, 1, 1, 1),
            f"neck_3d.{neck}.1.weight": (wide,),
            f"neck_3d.{neck}.1.bias": (wide,),
            f"neck_3d.{neck}.2.weight": (wide, wide, 3, 3, 3),
            f"neck_3d.{neck}.3.weight": (wide,),
            f"neck_3d.{neck}.3.bias": (wide,),
        }
    return shapes


def _block_shapes(official, index):
    width, shapes = official.width, {}
    if index % 2 == 0:
        windows, places = (official.tokens // official.window) ** 3, official.window**3
        shapes["attn_mask"] = (windows, places, places)
    shapes |= _norm("norm1", width)
    rows = official.global_rows if index % 3 == 2 else official.local_rows
    for axis in "hwd":
        shapes[f"attn.rel_pos_{axis}"] = (rows, width // official.heads)
    shapes["attn.lr"] = ()
    shapes |= _linear("attn.qkv", width, 3 * width) | _linear("attn.proj", width, width)
    shapes |= _norm("norm2", width)
    shapes |= _linear("mlp.lin1", width, official.mlp) | _linear("mlp.lin2", official.mlp, width)
    for adapter in official.adapters:
        shapes |= _linear(f"{adapter}.linear1", width, width // 2)
        shapes[f"{adapter}.conv.weight"] = (width // 2, 1, 3, 3, 3)
        shapes[f"{adapter}.conv.bias"] = (width // 2,)
        shapes |= _linear(f"{adapter}.linear2", width // 2, width)
    return shapes


def _linear(name, inputs, outputs):
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm(name, width):
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def prompt_shapes(official):
    """Return key -> shape of each of the four in `feature_dict`."""
    width, hidden = official.feature_width, official.prompt_mlp
    shapes = {"positional_encoding_gaussian_matrix": (3, width // 2)}
    for layer in ("transformer.layers.0", "transformer.layers.1"):
        shapes[f"{layer}.global_query"] = (1, 10, width)
        shapes |= _attention(f"{layer}.self_attn", width, width) | _norm(f"{layer}.norm1", width)
        shapes |= _attention(f"{layer}.cross_attn_token_to_image", width, width // 2)
        shapes |= _norm(f"{layer}.norm2", width)
        shapes |= _linear(f"{layer}.mlp.lin1", width, hidden)
        shapes |= _linear(f"{layer}.mlp.lin2", hidden, width)
        shapes |= _norm(f"{layer}.norm3", width) | _norm(f"{layer}.norm4", width)
        shapes |= _attention(f"{layer}.cross_attn_image_to_token", width, width // 2)
    return shapes


def _attention(name, width, inner):
    shapes = {}
    for projection in ("q_proj", "k_proj", "v_proj"):
        shapes |= _linear(f"{name}.{projection}", width, inner)
    return shapes | _linear(f"{name}.out_proj", inner, width)


def decoder_shapes(official):
    """Return key -> shape of `decoder_dict`."""
    width, wide, levels = official.decoder_width, official.feature_width, (2, 3, 4, 5)
    shapes = {}
    for level in levels:
        shapes[f"mlahead.head{level}.0.weight"] = (width, wide, 3, 3, 3)
        shapes[f"mlahead.head{level}.3.weight"] = (width, width, 3, 3, 3)
    if official.method == "sam3d_adapter":
        shapes["cls.0.weight"] = (width, 4 * width + 1, 3, 3, 3)
        shapes["cls.3.weight"] = (2, width, 3, 3, 3)
        return shapes
    for level in levels:
        shapes[f"mlahead.up{level}.weight"] = (width, width, 2, 2, 2)
        shapes[f"mlahead.up{level}.bias"] = (width,)
    shapes["head.0.weight"] = (width, 5 * width + 1, 3, 3, 3)
    shapes["head.3.weight"] = (2, width, 3, 3, 3)
    shapes["image_feature_extractor.0.weight"] = (width, 1, 3, 3, 3)
    shapes["image_feature_extractor.3.weight"] = (width, width, 3, 3, 3)
    return shapes


def make_part(official, part, shapes):
    """Return key -> tensor; part is "encoder_dict", "feature_dict0" to "3", or "decoder_dict"."""
    return {
        key: torch.from_numpy(np.asarray(_tensor(official, part, key, shape), dtype=np.float32).reshape(shape))
        for key, shape in shapes.items()
    }


def _noise(part, key, shape):
    seeds = np.random.SeedSequence([SEED, zlib.crc32(f"{part}/{key}".encode())])
    return np.random.Generator(np.random.PCG64(seeds)).standard_normal(shape, dtype=np.float32)


def _tensor(official, part, key, shape):
    if key.endswith("attn_mask"):
        return shift_mask(official)
    noise = _noise(part, key, shape)
    block = re.match(r"blocks\.(\d+)\.(.*)", key)
    if block:
        scale, offset = _block_scale(block[2], shape, np.float64(official.growth) ** int(block[1]))
    elif part == "encoder_dict" and not key.startswith("neck"):
        return _embedding_tensor(key, shape, noise)
    else:
        scale, offset = _other_scale(part, key, shape)
    return noise * np.float32(scale) + np.float32(offset)


def _block_scale(key, shape, growth):
    """Return standard deviation and mean of a tensor of a block."""
    rules = (
        (r"norm[12]\.weight", 0.1, 1),
        (r"norm[12]\.bias|attn\.qkv\.bias|mlp\.lin1\.bias", 0.1, 0),
        (r"attn\.rel_pos_[hwd]", 0.12, 0),
        (r"attn\.lr", 0.25, 1),
        (r"attn\.(proj|qkv)\.weight|mlp\.lin[12]\.weight|adapter.*\.linear[12]\.weight", None, 0),
        (r"adapter.*\.conv\.weight", 27**-0.5, 0),
        (r".*\.bias", 0.1 * growth, 0),
    )
    scale, offset = next((s, o) for pattern, s, o in rules if re.fullmatch(pattern, key))
    if scale is None:
        scale = shape[1] ** -0.5
        if key in ("attn.proj.weight", "mlp.lin2.weight"):
            scale = growth * scale * 0.9
        elif key.endswith("linear2.weight"):
            scale = 0.5 * scale
    return scale, offset


def _embedding_tensor(key, shape, noise):
    if key == "slice_embed.weight":
        return (noise + np.float32(0.5)) * np.float32(1 / 4)
    if key == "patch_embed.proj.weight":
        return noise * np.float32(1.5 * (shape[1] * shape[2] * shape[3]) ** -0.5)
    scale, offset = {"pos_embed": (0.8, 0), "depth_embed": (0.4, 0.2)}.get(key, (0.1, 0))
    return noise * np.float32(scale) + np.float32(offset)


def _other_scale(part, key, shape):
    """Return standard deviation and mean of a tensor of a neck, prompt encoder or decoder."""
    if key.endswith("positional_encoding_gaussian_matrix"):
        return 1, 0
    if key.endswith("global_query"):
        return 0.6, 0
    if len(shape) == 1:
        return 0.1, int(key.endswith("weight"))
    if part.startswith("feature") and re.search(r"(v_proj|out_proj)\.weight", key):
        return 1.8 * shape[1] ** -0.5, 0
    if ".up" in key:
        return shape[0] ** -0.5, 0
    return 1.4 * int(np.prod(shape[1:])) ** -0.5, 0


def shift_mask(official):
    """Return what the official checkpoints store per shifted block: 0 or -100 between two tokens."""
    tokens, k = official.tokens, official.window
    label = np.zeros(tokens, dtype=np.int64)
    label[tokens - k : tokens - k // 2] = 1
    label[tokens - k // 2 :] = 2
    region = label[:, None, None] * 9 + label[None, :, None] * 3 + label[None, None, :]
    n = tokens // k
    cut = region.reshape(n, k, n, k, n, k).transpose(0, 2, 4, 1, 3, 5).reshape(n**3, -1)
    return np.where(cut[:, :, None] == cut[:, None, :], 0.0, -100.0).astype(np.float32)


def make_patch(side=64):
    """Return a cubic float32 patch, (D, H, W), without any symmetry of the axes."""
    seeds = np.random.SeedSequence([SEED, 7, side])
    rng = np.random.Generator(np.random.PCG64(seeds))
    patch = 0.25 * rng.standard_normal((side,) * 3, dtype=np.float32)
    for cells, amplitude in ((4, 0.9), (16, 0.6)):
        coarse = rng.standard_normal((cells,) * 3, dtype=np.float32)
        ones = np.ones((side // cells,) * 3, dtype=np.float32)
        patch += np.float32(amplitude) * np.kron(coarse, ones)
    line = np.linspace(-1, 1, side, dtype=np.float32)
    d, h, w = np.meshgrid(line, line, line, indexing="ij")
    inside = ((d - 0.1) / 0.3) ** 2 + ((h + 0.2) / 0.5) ** 2 + ((w - 0.05) / 0.2) ** 2 < 1
    patch += np.where(inside, np.float32(1.5), np.float32(0))
    patch += 0.4 * d - 0.2 * h + 0.6 * w
    return np.ascontiguousarray(patch, dtype=np.float32)


def make_clicks(side=64):
    """Return name -> list of (d, h, w) voxels of a patch of that side."""
    seeds = np.random.SeedSequence([SEED, 11, side])
    rng = np.random.Generator(np.random.PCG64(seeds))
    return {
        "centre": [[side // 2] * 3],
        "offcentre": [[int(n * side / 128) for n in (20, 100, 47)]],
        "ten": rng.integers(0, side, (10, 3)).tolist(),
        "outside": [[int(n * side / 128) for n in (-30, 64, 140)]],
    }


def loss_cases():
    """Return name -> (logits (1, 2, D, H, W), label (1, 1, D, H, W)), float32."""
    cases = {}
    plans = (
        ("plain", (24, 20, 28), 0.15),
        ("no_foreground", (16, 16, 16), None),
        ("touching_border", (20, 20, 20), 0.5),
    )
    for number, (name, shape, share) in enumerate(plans):
        seeds = np.random.SeedSequence([SEED, 100 + number])
        rng = np.random.Generator(np.random.PCG64(seeds))
        logits = rng.standard_normal((1, 2, *shape)).astype(np.float32) * 2
        label = np.zeros((1, 1, *shape), np.float32)
        if share is not None:
            first = [n // 4 if name == "plain" else 0 for n in shape]
            last = [max(3, int(n * (share + 0.35))) for n in shape]
            d, h, w = (slice(a, b) for a, b in zip(first, last, strict=True))
            label[0, 0, d, h, w] = 1
        cases[name] = (torch.from_numpy(logits), torch.from_numpy(label))
    return cases
