"""The bare network on one patch: no scan, no voxel sizes, no post-processing."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from clickvol.errors import ClickError, ConfigError
from clickvol.prompt_encoders.feature_sampling import PointPrompts
from clickvol.shapes import BACKGROUND_LABEL, FOREGROUND_LABEL
from clickvol.weights.load import LoadedModel


def patch_logits(
    model: LoadedModel,
    patch_dhw: NDArray[np.floating[Any]],
    clicks_dhw: ArrayLike,
    *,
    labels: Sequence[int] | NDArray[np.integer[Any]] | None = None,
) -> NDArray[np.float32]:
    """Return what the network says of a patch and clicks, before any softmax.

    Everything is computed in float32, whatever `model.precision` says: that one is for interactive work,
    while this function is for comparing with a published implementation, number by number.

    Args:
        model: from `load_model`.
        patch_dhw: (D, H, W), normalised as the model was trained (see `intensity` in its card); every side a
            multiple of `patch_step_dhw` in the network's configuration. (C, D, H, W) for a model with further
            channels: TAGS takes the scan and an organ mask of 0 and 1.
        clicks_dhw: (N, 3) patch voxels in the order (d, h, w), centres at integers. Clicks outside the
            patch are allowed, as in the published networks. (0, 3) for an automatic network.
        labels: (N,) of 1 inside the object and 0 beside it; all inside when not given. The published
            networks treat both alike.

    Returns:
        (2, D, H, W) logits, background first.

    Raises:
        ConfigError: when the patch has another shape, or values that are not finite.
        ClickError: when clicks or labels have another shape or other values, or the number of clicks does
            not suit the network.
    """
    patch = _checked_patch(model, patch_dhw)
    points = _checked_clicks(model, clicks_dhw)
    signs = _checked_labels(labels, len(points))
    prompts = PointPrompts(
        torch.from_numpy(points)[None].to(model.device),
        torch.from_numpy(signs)[None].to(model.device),
    )
    image = torch.from_numpy(patch)[None].to(model.device)
    with (
        torch.inference_mode(),
        torch.autocast(model.device.type, enabled=False),
        # On a GPU, convolutions would otherwise round their inputs to ten bits of mantissa.
        torch.backends.cudnn.flags(allow_tf32=False),
    ):
        logits: NDArray[np.float32] = model.network(image, prompts)[0].float().cpu().numpy()
    return logits


def _checked_patch(model: LoadedModel, patch_dhw: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Return the patch with its channels, (C, D, H, W)."""
    config = model.network.config
    step = config.patch_step_dhw
    shape = np.shape(patch_dhw)
    if len(shape) == 3:
        shape = (1, *shape)
    wanted = f"{config.num_channels} x (D, H, W)" if config.num_channels > 1 else "(D, H, W)"
    if (
        len(shape) != 4
        or shape[0] != config.num_channels
        or any(n < k or n % k for n, k in zip(shape[1:], step, strict=True))
    ):
        raise ConfigError(
            f"the patch has shape {np.shape(patch_dhw)}, but {wanted} is expected, every side a multiple "
            f"of {step[0] if len(set(step)) == 1 else step}"
        )
    patch = _as_float32(patch_dhw)
    if patch is None or not np.isfinite(patch).all():
        raise ConfigError("the patch has values that are no finite float32 numbers; normalise it first")
    return patch.reshape(shape)


def _checked_clicks(model: LoadedModel, clicks_dhw: ArrayLike) -> NDArray[np.float32]:
    points = _as_float32(clicks_dhw)
    if points is None or points.ndim != 2 or points.shape[1] != 3 or not np.isfinite(points).all():
        raise ClickError(
            "clicks_dhw must be finite numbers of shape (N, 3), the patch voxels (d, h, w) of each click"
        )
    if model.network.config.is_automatic and len(points):
        raise ClickError(f"{model.card.id} is automatic and takes no clicks; give an array of shape (0, 3)")
    if not model.network.config.is_automatic and not len(points):
        raise ClickError(f"{model.card.id} needs at least one click, but clicks_dhw is empty")
    return points


def _checked_labels(
    labels: Sequence[int] | NDArray[np.integer[Any]] | None, num_clicks: int
) -> NDArray[np.int64]:
    if labels is None:
        return np.full(num_clicks, FOREGROUND_LABEL, dtype=np.int64)
    given = np.asarray(labels)
    known = np.isin(given, (BACKGROUND_LABEL, FOREGROUND_LABEL)).all()
    if given.shape != (num_clicks,) or not known:
        raise ClickError(
            f"labels must be {num_clicks} numbers, one per click: 1 inside the object, 0 beside it"
        )
    return given.astype(np.int64)


def _as_float32(values: ArrayLike) -> NDArray[np.float32] | None:
    """Return a writable array in native order, or None where the values are no numbers of that size."""
    try:
        with np.errstate(over="ignore"):
            return np.array(values, dtype=np.float32)
    except (TypeError, ValueError):
        return None
