"""The organ mask that a user gives beside the scan, checked against what the model takes."""

import itertools

import numpy as np

from clickvol.errors import ConfigError
from clickvol.geometry.box import bounding_box
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.volume import Mask, Volume
from clickvol.preprocessing.channels import organ_of_values
from clickvol.weights.load import LoadedModel


def check_organ_mask(
    organ_mask: Mask | Volume | None, grid: VolumeGrid, model: LoadedModel
) -> tuple[Mask | None, list[str]]:
    """Return the mask as 0 and 1, and what a person should know about it.

    Args:
        organ_mask: on any grid that lies over the scan; values above 0 are organ. None for none.
        grid: of the scan.
        model: the model that will see it.

    Returns:
        The mask, or None; and warnings, one sentence each.

    Raises:
        ConfigError: when a mask is given to a model that takes none, or lies nowhere in the scan.
    """
    takes_mask = model.network.config.num_channels > 1
    if organ_mask is None:
        warning = (
            f"{model.card.id} was made to see an organ mask and got none; it saw the scan in its place, so "
            "check the mask with care (--organ-mask FILE gives one)"
        )
        return None, [warning] if takes_mask else []
    if not takes_mask:
        raise ConfigError(
            f"the model {model.card.id} takes no organ mask; leave the mask out, or use a model of the "
            "method tags"
        )
    mask = Mask(organ_of_values(organ_mask.array), organ_mask.grid)
    box = bounding_box(mask.array > 0)
    if box is None:
        return mask, ["the organ mask is empty; nothing in it is above 0"]
    faces = zip(np.array(box.start_dhw) - 0.5, np.array(box.stop_dhw) - 0.5, strict=True)
    corners = np.array(list(itertools.product(*faces)))
    to_scan = np.linalg.inv(grid.affine_ras_mm) @ mask.grid.affine_ras_mm
    places = corners @ to_scan[:3, :3].T + to_scan[:3, 3]
    last = np.array(grid.shape_dhw) - 1
    if (places.max(axis=0) < 0).any() or (places.min(axis=0) > last).any():
        raise ConfigError("the organ mask lies nowhere in the scan; give the mask of this scan")
    return mask, []
