"""The decoder with one convolution over the whole concatenation, in the published channel order."""

import torch
import torch.nn.functional as F
from torch import nn


def plain_decoder(decoder, maps, patch, prompt_maps=None):
    """Feature maps (the deepest after the prompt), (B, 1, D, H, W) patch -> (B, 2, D, H, W)."""
    config = decoder.config
    shrink = 1 / config.decoder_stride
    image = F.interpolate(patch, scale_factor=shrink, mode="trilinear", align_corners=False)
    levels = [
        up(_double_conv(convs, fmap))
        for convs, up, fmap in zip(decoder.level_convs, decoder.level_ups, maps, strict=True)
    ]
    branch = None if decoder.image_branch is None else _double_conv(decoder.image_branch, image)
    if config.image_fusion == "added":
        levels = [level + branch for level in levels]
    joined = [*levels, branch] if config.image_fusion == "concatenated" else levels
    joined = [*joined, image]
    if prompt_maps is not None:
        joined.append(prompt_maps)
    together = F.conv3d(torch.cat(joined, dim=1), decoder.join.weight, padding=1)
    together = decoder.joined_scales(_norm_relu(together))
    logits = F.conv3d(together, decoder.classify.weight, padding=1)
    return F.interpolate(logits, size=tuple(patch.shape[2:]), mode="trilinear", align_corners=True)


def _double_conv(block, x):
    first, second = (layer for layer in block if isinstance(layer, nn.Conv3d))
    x = _norm_relu(F.conv3d(x, first.weight, padding=1))
    return _norm_relu(F.conv3d(x, second.weight, padding=1))


def _norm_relu(x):
    """InstanceNorm by hand: mean and biased variance over the places of each channel, eps 1e-5."""
    places = (2, 3, 4)
    mean = x.mean(places, keepdim=True)
    variance = ((x - mean) ** 2).mean(places, keepdim=True)
    return ((x - mean) / (variance + 1e-5).sqrt()).clamp(min=0)
