"""The whole flow in one call."""

from collections.abc import Sequence

from clickvol.inference.segmentation import Segmentation
from clickvol.inference.session import InteractiveSession
from clickvol.prompts.click import Click
from clickvol.volumes.volume import Modality, Volume
from clickvol.weights.load import LoadedModel, load_model


def segment(
    volume: Volume,
    clicks: Sequence[Click],
    model: LoadedModel | None = None,
    *,
    modality: Modality | None = None,
) -> Segmentation:
    """Segment the clicked object.

    Args:
        volume: the scan, from `read_volume`.
        clicks: at least one inside the object; others inside or beside it refine the answer.
        model: from `load_model`; None loads the default one (load it once for many scans).
        modality: "CT" or "MR" where the file does not say it or says it wrongly.

    Returns:
        The mask on the scan's grid, probabilities, and how they came about.

    Raises:
        ClickError: for a click that is not finite or outside the scan, or without any click inside.
    """
    session = InteractiveSession(volume, model or load_model(), modality=modality)
    return session.set_clicks(list(clicks))
