"""TinyViT window by window, head by head and pair by pair, from the state dict of ours."""

import itertools
import math

import torch
import torch.nn.functional as F

from reference.compare import randomise


def randomise_norms(module, seed=1):
    """Randomise all parameters and running statistics; return the module in eval mode.

    The variances are small, so that an untrained network does not fade its input away.
    """
    randomise(module)
    generator = torch.Generator().manual_seed(seed)
    for _, part in sorted(module.named_modules()):
        if isinstance(part, torch.nn.BatchNorm2d):
            shape = part.running_mean.shape
            part.running_mean.copy_(0.3 * torch.randn(shape, generator=generator))
            part.running_var.copy_(0.15 + 0.15 * torch.rand(shape, generator=generator))
    return module.eval()


def numbered_offsets(window):
    """Number the distinct (|dy|, |dx|) as they first appear among all pairs of places of a window."""
    places = list(itertools.product(range(window), range(window)))
    numbers = {}
    for first, second in itertools.product(places, places):
        offset = (abs(first[0] - second[0]), abs(first[1] - second[1]))
        numbers.setdefault(offset, len(numbers))
    return numbers


def plain_window_attention_2d(attention, window_tokens):
    """(h, w, E) -> (h, w, E) of one window."""
    h, w, e = window_tokens.shape
    width = e // attention.num_heads
    numbers = numbered_offsets(attention.window)
    places = list(itertools.product(range(h), range(w)))
    normed = F.layer_norm(window_tokens, (e,), attention.norm.weight, attention.norm.bias, attention.norm.eps)
    mixed = torch.zeros(h, w, e)
    for head in range(attention.num_heads):
        q, k, v = (
            F.linear(normed, attention.qkv.weight[rows], attention.qkv.bias[rows])
            for rows in (torch.arange(width) + (3 * head + part) * width for part in range(3))
        )
        for y, x in places:
            logits = torch.stack(
                [
                    q[y, x] @ k[place] / math.sqrt(width)
                    + attention.attention_biases[head, numbers[(abs(y - place[0]), abs(x - place[1]))]]
                    for place in places
                ]
            )
            values = torch.stack([v[place] for place in places])
            mixed[y, x, head * width : (head + 1) * width] = torch.softmax(logits, 0) @ values
    return F.linear(mixed, attention.proj.weight, attention.proj.bias)


def plain_conv_norm(part, x):
    """Convolution, then (x - mean) / sqrt(var + 1e-5) * weight + bias."""
    y = F.conv2d(x, part.c.weight, None, part.c.stride, part.c.padding, 1, part.c.groups)
    mean, variance, weight, bias = (
        values[:, None, None]
        for values in (part.bn.running_mean, part.bn.running_var, part.bn.weight, part.bn.bias)
    )
    return (y - mean) / torch.sqrt(variance + 1e-5) * weight + bias


def plain_bottleneck(block, x):
    """gelu(x + project(gelu(depth-wise(gelu(expand(x))))))."""
    return F.gelu(x + plain_merging(block, x))


def plain_merging(part, x):
    """Three normalised convolutions with GELU between."""
    x = F.gelu(plain_conv_norm(part.conv1, x))
    return plain_conv_norm(part.conv3, F.gelu(plain_conv_norm(part.conv2, x)))


def plain_block(block, x):
    """(B, E, h, w) -> (B, E, h, w), every window cut out and padded on its own."""
    b, e, h, w = x.shape
    kh, kw = min(block.attn.window, h), min(block.attn.window, w)
    attended = torch.zeros_like(x)
    for sample in range(b):
        for top, left in itertools.product(range(0, h, kh), range(0, w, kw)):
            real = x[sample, :, top : top + kh, left : left + kw].permute(1, 2, 0)
            window = torch.zeros(kh, kw, e)
            window[: real.shape[0], : real.shape[1]] = real
            mixed = plain_window_attention_2d(block.attn, window)
            attended[sample, :, top : top + kh, left : left + kw] = mixed[
                : real.shape[0], : real.shape[1]
            ].permute(2, 0, 1)
    x = plain_conv_norm(block.local_conv, x + attended)
    tokens, mlp = x.permute(0, 2, 3, 1), block.mlp
    hidden = F.layer_norm(tokens, (e,), mlp.norm.weight, mlp.norm.bias, 1e-5)
    hidden = F.gelu(F.linear(hidden, mlp.fc1.weight, mlp.fc1.bias))
    return x + F.linear(hidden, mlp.fc2.weight, mlp.fc2.bias).permute(0, 3, 1, 2)


def plain_stages(network, image):
    """Return the output of every stage, before the step to the next: a list of (B, E_i, h_i, w_i)."""
    embed = network.patch_embed.seq
    x = plain_conv_norm(embed[2], F.gelu(plain_conv_norm(embed[0], image)))
    taps = []
    for index, stage in enumerate(network.layers):
        for block in stage.blocks:
            x = plain_bottleneck(block, x) if index == 0 else plain_block(block, x)
        taps.append(x)
        if stage.downsample is not None:
            x = plain_merging(stage.downsample, x)
    return taps
