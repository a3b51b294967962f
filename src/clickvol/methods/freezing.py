"""Which parameters are trained."""

from torch import nn

from clickvol.methods.lifted_segmenter import LiftedSegmenter


def freeze_foundation(network: LiftedSegmenter) -> None:
    """Freeze what comes from the 2D foundation; everything else is trained.

    With SAM's ViT this is the published choice (ProMISe-3D, 3DSAM-adapter and TAGS alike): patch embedding,
    in-plane positions, qkv, projections, MLPs, the relative tables of h and w, and the attention's scalar are
    frozen; the norms, which also come from SAM, are trained, and so are adapters, positions along d, slice
    embedding, necks, prompt encoder and decoder.
    """
    frozen = set(network.image_encoder.foundation_parameter_names())
    for name, parameter in network.image_encoder.named_parameters():
        parameter.requires_grad_(name not in frozen)


def num_parameters(network: nn.Module) -> tuple[int, int]:
    """Return how many values a network has, and how many of them are trained."""
    sizes = [(p.numel(), p.requires_grad) for p in network.parameters()]
    return sum(n for n, _ in sizes), sum(n for n, trained in sizes if trained)
