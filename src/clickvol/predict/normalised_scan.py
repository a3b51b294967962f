"""A scan as a model sees it: its modality, its values on the scale of the training, and an organ mask."""

from dataclasses import dataclass

import numpy as np

from clickvol.errors import ConfigError
from clickvol.geometry.box import bounding_box
from clickvol.geometry.grid import VolumeGrid
from clickvol.io.in_memory import MaskLike, VolumeLike, as_mask, as_volume
from clickvol.io.volume import Mask, Modality, Volume
from clickvol.patches.field_of_view import extract
from clickvol.predict.segmentation import Array32
from clickvol.preprocessing.channels import organ_of_values, with_organ_channel
from clickvol.preprocessing.intensity import (
    IntensityScale,
    Scale,
    intensity_scale,
    recognise_modality,
    value_sample,
    wide_intensity_scale,
)
from clickvol.weights.load import LoadedModel


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NormalisedScan:
    """A scan, and what turns its values into those that a network takes.

    Attributes:
        modality: as which it is treated.
        organ_mask: 0 and 1 on a grid of its own; None where there is none.
        num_channels: 1, or 2 for a network that sees an organ mask; without a mask it sees the scan twice.
        warnings: what a person should know, one sentence each.
    """

    volume: Volume
    modality: Modality
    scale: Scale
    organ_mask: Mask | None = None
    num_channels: int = 1
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        volume: VolumeLike,
        model: LoadedModel,
        *,
        modality: Modality | None = None,
        organ_mask: MaskLike | None = None,
    ) -> "NormalisedScan":
        """Prepare a scan for a model, from a sample of its values; the card's intensity constants count.

        `modality` is what the user says the scan is; None leaves it to the file and the values. An organ mask,
        for a model that takes one (TAGS), may lie on any grid over the scan; values above 0 are organ.
        ConfigError when it is given to another model, or lies nowhere in the scan.
        """
        volume = as_volume(volume)
        mask, warnings = _checked_organ_mask(organ_mask, volume.grid, model)
        sample = value_sample(volume)
        told = Volume(volume.array, volume.grid, modality) if modality else volume
        recognised = recognise_modality(told, sample, knows_pet="PT" in model.card.modalities)
        return cls(
            volume=volume,
            modality=recognised.modality,
            scale=_scale_of(model, recognised.modality, sample),
            organ_mask=mask,
            num_channels=model.network.config.num_channels,
            warnings=(*([recognised.warning] if recognised.warning else []), *warnings),
        )

    def sample(self, grid: VolumeGrid) -> Array32:
        """Return what the network takes on a grid: (C, D, H, W), normalised; the organ mask is not."""
        values = extract(self.volume.array, self.volume.grid, grid, outside_value=self.scale.outside)
        scan = self.scale.normalise(values)
        if self.num_channels == 1:
            return scan[None]
        mask = self.organ_mask
        organ = None if mask is None else extract(mask.array, mask.grid, grid, outside_value=0.0)
        return with_organ_channel(scan, organ)


def _scale_of(model: LoadedModel, modality: Modality, sample: Array32) -> Scale:
    """Return the scale that the model was trained with."""
    plan = model.card.intensity
    if plan is None:
        return intensity_scale(modality, sample)
    if plan == "wide":
        return wide_intensity_scale(modality, sample)
    # The published networks pad with zeros after normalisation, which is the mean.
    return IntensityScale(*plan.clip, plan.mean, plan.deviation, outside=plan.mean)


def _checked_organ_mask(
    organ_mask: MaskLike | None, grid: VolumeGrid, model: LoadedModel
) -> tuple[Mask | None, list[str]]:
    """Return the mask as 0 and 1, and warnings, one sentence each."""
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
    placed = organ_mask if isinstance(organ_mask, Volume) else as_mask(organ_mask)
    mask = Mask(organ_of_values(placed.array), placed.grid)
    box = bounding_box(mask.array > 0)
    if box is None:
        return mask, ["the organ mask is empty; nothing in it is above 0"]
    low, high = mask.grid.bounds_in(grid, box)
    if (high < 0).any() or (low > np.array(grid.shape_dhw) - 1).any():
        raise ConfigError("the organ mask lies nowhere in the scan; give the mask of this scan")
    return mask, []
