"""The published networks step by step on an official checkpoint: its own names, its own (H, W, D) order.

Written from a description in words, and sharing nothing with the package: no name is mapped, no axis turned, no
shortcut taken, and the masks are those of the file.
"""

import numpy as np
import torch
import torch.nn.functional as F

from reference.plain_attention import plain_table


def plain_official(content, patch_dhw, clicks_dhw, *, heads):
    """Checkpoint, (D, H, W) patch and (N, 3) clicks -> (2, D, H, W) logits.

    Without prompt encoders in the checkpoint it is the automatic variant, which enlarges half as much.
    """
    with torch.inference_mode():
        patch = torch.from_numpy(patch_dhw)
        automatic = "feature_dict" not in content
        maps = _encode(content["encoder_dict"], patch, 2 if automatic else 4, heads)
        if not automatic:
            clicks = torch.tensor(clicks_dhw, dtype=torch.float32)
            maps[-1] = _prompt(content["feature_dict"][3], maps[-1], clicks, patch.shape)
        return _decode(content["decoder_dict"], maps, patch).numpy()


def _encode(weights, patch, enlargement, heads):
    """(D, H, W) -> four maps (1, E, h, w, d)."""
    large = F.interpolate(patch[None, None], scale_factor=enlargement, mode="trilinear")[0, 0]
    kernel, bias = weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"]
    planes = [F.conv2d(plane.expand(1, 3, -1, -1), kernel, bias, stride=16)[0] for plane in large]
    volume = torch.stack(planes, dim=-1)[None]  # (1, E, h, w, D)
    kernel, bias = weights["slice_embed.weight"], weights["slice_embed.bias"]
    volume = F.conv3d(volume, kernel, bias, stride=(1, 1, 16), groups=volume.shape[1])
    x = volume[0].permute(1, 2, 3, 0)  # (h, w, d, E)
    table = weights["pos_embed"].permute(0, 3, 1, 2)
    planar = F.avg_pool2d(table, table.shape[-1] // x.shape[0])[0].permute(1, 2, 0)
    x = x + planar[:, :, None] + weights["depth_embed"][0][None, None]
    number = sum(key.endswith("norm1.weight") for key in weights)
    maps = []
    for index in range(number):
        prefix = f"blocks.{index}."
        block = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
        window = round(weights["blocks.0.attn_mask"].shape[-1] ** (1 / 3))
        x = _block(block, x, heads, window)
        if (index + 1) % (number // 4) == 0:
            maps.append(_neck(weights, len(maps), x))
    return maps


def _block(weights, x, heads, window):
    """(h, w, d, E) -> the same."""
    x = x + _adapter_update(weights, "adapter", x)
    y = F.layer_norm(x, x.shape[-1:], weights["norm1.weight"], weights["norm1.bias"], 1e-6)
    shift = window // 2 if "attn_mask" in weights else 0
    y = torch.roll(y, (-shift, -shift, -shift), (0, 1, 2))
    out = torch.empty_like(y)
    starts = [
        (h, w, d)
        for h in range(0, len(y), window)
        for w in range(0, len(y), window)
        for d in range(0, len(y), window)
    ]
    for number, (h, w, d) in enumerate(starts):
        place = (slice(h, h + window), slice(w, w + window), slice(d, d + window))
        mask = weights["attn_mask"][number] if shift else 0
        out[place] = _attend(weights, y[place], heads, mask)
    x = x + torch.roll(out, (shift, shift, shift), (0, 1, 2))
    y = F.layer_norm(x, x.shape[-1:], weights["norm2.weight"], weights["norm2.bias"], 1e-6)
    y = F.gelu(F.linear(y, weights["mlp.lin1.weight"], weights["mlp.lin1.bias"]))
    x = x + F.linear(y, weights["mlp.lin2.weight"], weights["mlp.lin2.bias"])
    if "adapter_back.conv.weight" not in weights:
        return x
    return x + x + _adapter_update(weights, "adapter_back", x)


def _adapter_update(weights, name, x):
    def linear(number, values):
        key = f"{name}.linear{number}"
        return F.linear(values, weights[f"{key}.weight"], weights[f"{key}.bias"]).relu()

    y = linear(1, x).permute(3, 0, 1, 2)[None]
    kernel, bias = weights[f"{name}.conv.weight"], weights[f"{name}.conv.bias"]
    y = F.conv3d(y, kernel, bias, padding=1, groups=y.shape[1]).relu()
    return linear(2, y[0].permute(1, 2, 3, 0))


def _attend(weights, x, heads, mask):
    """One window (h, w, d, E) -> the same."""
    side, width = len(x), x.shape[-1]
    tokens = x.reshape(-1, width)
    mixed = F.linear(tokens, weights["attn.qkv.weight"], weights["attn.qkv.bias"])
    mixed = mixed.view(len(tokens), 3, heads, width // heads)
    place = np.stack(np.unravel_index(np.arange(side**3), (side, side, side)), axis=1)
    offset = torch.from_numpy(place[:, None] - place[None] + side - 1)
    tables = [plain_table(weights[f"attn.rel_pos_{axis}"], side) for axis in "hwd"]
    result = []
    for head in range(heads):
        q, k, v = mixed[:, 0, head], mixed[:, 1, head], mixed[:, 2, head]
        relative = sum((q @ tables[a].T).gather(1, offset[:, :, a]) for a in range(3))
        logits = (q * (width // heads) ** -0.5) @ k.T + weights["attn.lr"] * relative + mask
        result.append(torch.softmax(logits, dim=-1) @ v)
    joined = torch.cat(result, dim=1)
    return F.linear(joined, weights["attn.proj.weight"], weights["attn.proj.bias"]).view(x.shape)


def _neck(weights, number, x):
    """(h, w, d, E) -> (1, E', h, w, d)."""
    y = x.permute(3, 0, 1, 2)[None]
    for conv, norm in ((0, 1), (2, 3)):
        key = f"neck_3d.{number}"
        y = F.conv3d(y, weights[f"{key}.{conv}.weight"], padding=conv // 2)
        scale, bias = weights[f"{key}.{norm}.weight"], weights[f"{key}.{norm}.bias"]
        y = F.layer_norm(y.movedim(1, -1), (len(scale),), scale, bias, 1e-6).movedim(-1, 1)
    return y


def _prompt(weights, feature_map, clicks_dhw, patch_shape):
    """(1, E, h, w, d) and (N, 3) -> (1, E, h, w, d)."""
    # grid_sample wants the fastest axis of the map first: d, then w, then h.
    points = clicks_dhw[:, [0, 2, 1]]
    sides = torch.tensor([patch_shape[0], patch_shape[2], patch_shape[1]])
    grid = ((points + 0.5) * 2 / sides - 1)[None, :, None, None]
    sampled = F.grid_sample(feature_map, grid, align_corners=False)[0, :, :, 0, 0].T
    image = feature_map.flatten(2)[0].T
    for layer in range(2):
        prefix = f"transformer.layers.{layer}."
        part = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
        tokens = torch.cat([part["global_query"][0], sampled])
        attended = _norm(part, 1, _token_attention(part, "self_attn", tokens, tokens))
        tokens = _norm(part, 2, tokens + attended)
        queries, sampled = tokens[:10], tokens[10:]
        hidden = F.linear(queries, part["mlp.lin1.weight"], part["mlp.lin1.bias"]).relu()
        hidden = F.linear(hidden, part["mlp.lin2.weight"], part["mlp.lin2.bias"])
        queries = _norm(part, 3, queries + hidden)
        attended = _token_attention(part, "cross_attn_image_to_token", image, queries)
        image = _norm(part, 4, image + attended)
    return image.T.reshape(feature_map.shape)


def _norm(weights, number, x):
    scale, bias = weights[f"norm{number}.weight"], weights[f"norm{number}.bias"]
    return F.layer_norm(x, x.shape[-1:], scale, bias, 1e-5)


def _token_attention(weights, name, queries, keys):
    def project(kind, values):
        key = f"{name}.{kind}_proj"
        return F.linear(values, weights[f"{key}.weight"], weights[f"{key}.bias"])

    q, k, v = (project(*pair).chunk(8, dim=1) for pair in (("q", queries), ("k", keys), ("v", keys)))
    mixed = [torch.softmax(a @ b.T / a.shape[1] ** 0.5, dim=1) @ c for a, b, c in zip(q, k, v, strict=True)]
    return project("out", torch.cat(mixed, dim=1))


def _decode(weights, maps, patch):
    """Four maps (1, E, h, w, d), shallow to deep, and the (D, H, W) patch -> (2, D, H, W)."""
    grid = 2 * maps[0].shape[-1]
    image = patch.permute(1, 2, 0)[None, None]
    image = F.interpolate(image, scale_factor=grid / image.shape[-1], mode="trilinear")
    joined = []
    for number, fmap in zip((2, 3, 4, 5), maps, strict=True):
        y = _conv_norm_relu(fmap, weights[f"mlahead.head{number}.0.weight"])
        y = _conv_norm_relu(y, weights[f"mlahead.head{number}.3.weight"])
        if f"mlahead.up{number}.weight" in weights:
            kernel, bias = (
                weights[f"mlahead.up{number}.weight"],
                weights[f"mlahead.up{number}.bias"],
            )
            y = F.conv_transpose3d(y, kernel, bias, stride=2)
        else:
            y = F.interpolate(y, scale_factor=2, mode="trilinear", align_corners=True)
        joined.append(y)
    last = "cls"
    if "image_feature_extractor.0.weight" in weights:
        y = _conv_norm_relu(image, weights["image_feature_extractor.0.weight"])
        joined.append(_conv_norm_relu(y, weights["image_feature_extractor.3.weight"]))
        last = "head"
    y = _conv_norm_relu(torch.cat([*joined, image], dim=1), weights[f"{last}.0.weight"])
    y = F.conv3d(y, weights[f"{last}.3.weight"], padding=1)
    factor = len(patch) / grid
    y = F.interpolate(y, scale_factor=factor, mode="trilinear", align_corners=True)
    return y[0].permute(0, 3, 1, 2)


def _conv_norm_relu(x, kernel):
    return F.instance_norm(F.conv3d(x, kernel, padding=1), eps=1e-5).relu()
