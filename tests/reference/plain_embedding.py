"""The embedding step by step: enlarge, make three channels, embed every slice, join 16 slices."""

import torch
import torch.nn.functional as F


def plain_embedding(embedding, patch):
    """(B, C, D, H, W) -> (B, d, h, w, E) with the parameters of a FoldedEmbedding."""
    ratio = embedding.enlargement
    large = F.interpolate(patch, scale_factor=ratio, mode="trilinear", align_corners=False)
    samples = []
    for sample in large:
        slices = torch.stack([sample[source] for source in embedding.channel_sources], dim=1)
        planar = F.conv2d(slices, embedding.patch_embed.weight, embedding.patch_embed.bias, stride=16)
        volume = planar.permute(1, 0, 2, 3)[None]
        joined = F.conv3d(
            volume,
            embedding.slice_embed.weight,
            embedding.slice_embed.bias,
            stride=(16, 1, 1),
            groups=planar.shape[1],
        )
        samples.append(joined[0].permute(1, 2, 3, 0))
    return torch.stack(samples)
