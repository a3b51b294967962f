"""The whole flow in one call."""

from collections.abc import Sequence

from clickvol.io.volume import Mask, Modality, Volume
from clickvol.predict.automatic import segment_automatically
from clickvol.predict.clickable_scan import ClickableScan
from clickvol.predict.segmentation import Segmentation
from clickvol.prompts.click import Click
from clickvol.weights.load import LoadedModel, load_model


def segment(
    volume: Volume,
    clicks: Sequence[Click],
    model: LoadedModel | None = None,
    *,
    modality: Modality | None = None,
    organ_mask: Mask | Volume | None = None,
) -> Segmentation:
    """Segment the clicked object; with an automatic model, whatever it finds in the scan.

    Args:
        volume: the scan, from `read_volume`.
        clicks: at least one inside the object; others inside or beside it refine the answer. None are
            needed for an automatic model, of whose answer they choose the clicked parts.
        model: from `load_model`; None loads the default one (load it once for many scans).
        modality: "CT" or "MR" where the file does not say it or says it wrongly.
        organ_mask: for a model that takes one (TAGS), on any grid that lies over the scan; values above 0
            are organ. Without it such a model sees the scan in its place, and the result has a warning.

    Returns:
        The mask on the scan's grid, probabilities, and how they came about.

    Raises:
        ClickError: for a click that is not finite or outside the scan, or without any click inside.
        ConfigError: when an organ mask is given to a model that takes none, or lies nowhere in the scan.
    """
    loaded = model or load_model()
    if loaded.network.config.is_automatic:
        return segment_automatically(volume, list(clicks), loaded, modality=modality, organ_mask=organ_mask)
    scan = ClickableScan(volume, loaded, modality=modality, organ_mask=organ_mask)
    return scan.answer(clicks)
