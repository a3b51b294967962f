"""Seeded weights in the layout of the official ProMISe-3D checkpoints, with a patch and clicks.

The recipe is that of the golden values (tests/golden/README.md): every tensor depends only on the seed, its
part of the checkpoint, its key and its shape; scales are such that every path of the network matters.
"""

import re
import zlib

import numpy as np
import torch

SEED = 20240527
TOKENS = 16
PATCH_SIDE = 64
WIDTH, HEADS, BLOCKS = 768, 12, 12
MASKED_WINDOW, MASKED_SHIFT = 8, 4

# The published network doubles its stream in every block; the weights grow along, so that late
# blocks still matter.
GROWTH = 2.2


def encoder_shapes():
    """Return key -> shape of `encoder_dict`."""
    shapes = {
        "pos_embed": (1, 64, 64, WIDTH),
        "depth_embed": (1, TOKENS, WIDTH),
        "patch_embed.proj.weight": (WIDTH, 3, 16, 16),
        "patch_embed.proj.bias": (WIDTH,),
        "slice_embed.weight": (WIDTH, 1, 1, 1, 16),
        "slice_embed.bias": (WIDTH,),
    }
    for index in range(BLOCKS):
        block = _block_shapes(table_rows=127 if index % 3 == 2 else 27, shifted=index % 2 == 0)
        shapes |= {f"blocks.{index}.{key}": shape for key, shape in block.items()}
    for neck in range(4):
        shapes |= {
            f"neck_3d.{neck}.0.weight": (256, WIDTH, 1, 1, 1),
            f"neck_3d.{neck}.1.weight": (256,),
            f"neck_3d.{neck}.1.bias": (256,),
            f"neck_3d.{neck}.2.weight": (256, 256, 3, 3, 3),
            f"neck_3d.{neck}.3.weight": (256,),
            f"neck_3d.{neck}.3.bias": (256,),
        }
    return shapes


def _block_shapes(*, table_rows, shifted):
    shapes = {}
    if shifted:
        windows, places = (TOKENS // MASKED_WINDOW) ** 3, MASKED_WINDOW**3
        shapes["attn_mask"] = (windows, places, places)
    for axis in "hwd":
        shapes[f"attn.rel_pos_{axis}"] = (table_rows, WIDTH // HEADS)
    shapes["attn.lr"] = ()
    for norm in ("norm1", "norm2"):
        shapes |= {f"{norm}.weight": (WIDTH,), f"{norm}.bias": (WIDTH,)}
    shapes |= _linear("attn.qkv", WIDTH, 3 * WIDTH) | _linear("attn.proj", WIDTH, WIDTH)
    shapes |= _linear("mlp.lin1", WIDTH, 4 * WIDTH) | _linear("mlp.lin2", 4 * WIDTH, WIDTH)
    for adapter in ("adapter", "adapter_back"):
        shapes |= _linear(f"{adapter}.linear1", WIDTH, WIDTH // 2)
        shapes[f"{adapter}.conv.weight"] = (WIDTH // 2, 1, 3, 3, 3)
        shapes[f"{adapter}.conv.bias"] = (WIDTH // 2,)
        shapes |= _linear(f"{adapter}.linear2", WIDTH // 2, WIDTH)
    return shapes


def _linear(name, inputs, outputs):
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def prompt_shapes():
    """Return key -> shape of each of the four in `feature_dict`."""
    shapes = {"positional_encoding_gaussian_matrix": (3, 128)}
    for layer in ("transformer.layers.0", "transformer.layers.1"):
        shapes[f"{layer}.global_query"] = (1, 10, 256)
        attentions = (
            ("self_attn", 256),
            ("cross_attn_token_to_image", 128),
            ("cross_attn_image_to_token", 128),
        )
        for name, inner in attentions:
            for projection in ("q_proj", "k_proj", "v_proj"):
                shapes |= _linear(f"{layer}.{name}.{projection}", 256, inner)
            shapes |= _linear(f"{layer}.{name}.out_proj", inner, 256)
        for number in (1, 2, 3, 4):
            shapes |= {f"{layer}.norm{number}.{kind}": (256,) for kind in ("weight", "bias")}
        shapes |= _linear(f"{layer}.mlp.lin1", 256, 2048) | _linear(f"{layer}.mlp.lin2", 2048, 256)
    return shapes


def decoder_shapes():
    """Return key -> shape of `decoder_dict`."""
    shapes = {}
    for level in (2, 3, 4, 5):
        shapes[f"mlahead.head{level}.0.weight"] = (128, 256, 3, 3, 3)
        shapes[f"mlahead.head{level}.3.weight"] = (128, 128, 3, 3, 3)
        shapes[f"mlahead.up{level}.weight"] = (128, 128, 2, 2, 2)
        shapes[f"mlahead.up{level}.bias"] = (128,)
    shapes["head.0.weight"] = (128, 641, 3, 3, 3)
    shapes["head.3.weight"] = (2, 128, 3, 3, 3)
    shapes["image_feature_extractor.0.weight"] = (128, 1, 3, 3, 3)
    shapes["image_feature_extractor.3.weight"] = (128, 128, 3, 3, 3)
    return shapes


def make_part(part, shapes):
    """Return key -> tensor; part is "encoder_dict", "feature_dict0" to "3", or "decoder_dict"."""
    return {
        key: torch.from_numpy(
            np.asarray(_tensor(part, key, shape), dtype=np.float32).reshape(shape)
        )
        for key, shape in shapes.items()
    }


def _noise(part, key, shape):
    seeds = np.random.SeedSequence([SEED, zlib.crc32(f"{part}/{key}".encode())])
    return np.random.Generator(np.random.PCG64(seeds)).standard_normal(shape, dtype=np.float32)


def _tensor(part, key, shape):
    if key.endswith("attn_mask"):
        return shift_mask()
    noise = _noise(part, key, shape)
    block = re.match(r"blocks\.(\d+)\.(.*)", key)
    if block:
        scale, offset = _block_scale(block[2], shape, np.float64(GROWTH) ** int(block[1]))
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


def shift_mask():
    """Return what the official checkpoints store per shifted block: 0 or -100 between two tokens."""
    label = np.zeros(TOKENS, dtype=np.int64)
    label[TOKENS - MASKED_WINDOW : TOKENS - MASKED_SHIFT] = 1
    label[TOKENS - MASKED_SHIFT :] = 2
    region = label[:, None, None] * 9 + label[None, :, None] * 3 + label[None, None, :]
    n, k = TOKENS // MASKED_WINDOW, MASKED_WINDOW
    cut = region.reshape(n, k, n, k, n, k).transpose(0, 2, 4, 1, 3, 5).reshape(n**3, -1)
    return np.where(cut[:, :, None] == cut[:, None, :], 0.0, -100.0).astype(np.float32)


def make_patch():
    """Return a (64, 64, 64) float32 patch, (D, H, W), without any symmetry of the axes."""
    seeds = np.random.SeedSequence([SEED, 7, PATCH_SIDE])
    rng = np.random.Generator(np.random.PCG64(seeds))
    patch = 0.25 * rng.standard_normal((PATCH_SIDE,) * 3, dtype=np.float32)
    for cells, amplitude in ((4, 0.9), (16, 0.6)):
        coarse = rng.standard_normal((cells,) * 3, dtype=np.float32)
        ones = np.ones((PATCH_SIDE // cells,) * 3, dtype=np.float32)
        patch += np.float32(amplitude) * np.kron(coarse, ones)
    line = np.linspace(-1, 1, PATCH_SIDE, dtype=np.float32)
    d, h, w = np.meshgrid(line, line, line, indexing="ij")
    inside = ((d - 0.1) / 0.3) ** 2 + ((h + 0.2) / 0.5) ** 2 + ((w - 0.05) / 0.2) ** 2 < 1
    patch += np.where(inside, np.float32(1.5), np.float32(0))
    patch += 0.4 * d - 0.2 * h + 0.6 * w
    return np.ascontiguousarray(patch, dtype=np.float32)


def make_clicks():
    """Return name -> list of (d, h, w) voxels of the patch."""
    seeds = np.random.SeedSequence([SEED, 11, PATCH_SIDE])
    rng = np.random.Generator(np.random.PCG64(seeds))
    return {
        "centre": [[32, 32, 32]],
        "offcentre": [[10, 50, 23]],
        "ten": rng.integers(0, PATCH_SIDE, (10, 3)).tolist(),
        "outside": [[-15, 32, 70]],
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
