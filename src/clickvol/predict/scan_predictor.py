"""One scan and one model: a list of clicks in, the clicked object out."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from clickvol.errors import ConfigError, DamagedWeightsError
from clickvol.io.volume import Mask, Modality, Volume
from clickvol.predict.automatic import segment_automatically
from clickvol.predict.features import ScanFeatures
from clickvol.predict.organ_mask import check_organ_mask
from clickvol.predict.patch_predictor import PatchPredictor, Stopwatch, WorldClick, never
from clickvol.predict.recognised_scan import recognise_scan
from clickvol.predict.segmentation import Segmentation
from clickvol.predict.zoom_refinement import THRESHOLD, keep_clicked, run_cascade
from clickvol.prompts.click import Click, check_any_inside
from clickvol.weights.load import LoadedModel, load_model

# A field of view takes 8 MB with the shipped model and some 300 MB with a ViT-B; an answer needs up to 16.
FEATURE_MEMORY_MB = 1024.0
"""Memory for encoded fields of view where nobody says another."""


class ScanPredictor:
    """Answers lists of clicks on one scan; image features are computed once per field of view.

    An answer depends on the scan, the model and what is asked alone, not on what was asked before.

    Args:
        volume: the scan.
        model: the model.
        modality: "CT" or "MR" where the file does not say it or says it wrongly.
        organ_mask: for a model that takes one (TAGS), on any grid that lies over the scan; values above 0
            are organ.
        feature_memory_mb: memory for features (10^6 bytes); the ones used last are kept.

    Raises:
        ConfigError: when an organ mask is given to a model that takes none, or lies nowhere in the scan; or
            when the model takes no clicks.
    """

    def __init__(
        self,
        volume: Volume,
        model: LoadedModel,
        *,
        modality: Modality | None = None,
        organ_mask: Mask | Volume | None = None,
        feature_memory_mb: float = FEATURE_MEMORY_MB,
    ) -> None:
        if model.network.config.is_automatic:
            raise ConfigError(f"{model.card.id} is automatic and takes no clicks; use segment() with it")
        checked_mask, mask_warnings = check_organ_mask(organ_mask, volume.grid, model)
        stopwatch = Stopwatch()
        with stopwatch.stage("prepare"):
            recognised = recognise_scan(volume, model, modality)
        self._prepare_seconds = stopwatch.seconds
        self._modality = recognised.modality
        self._warnings = [*recognised.warnings, *mask_warnings]
        self._features = ScanFeatures(
            volume, recognised.scale, model, checked_mask, max_bytes=int(feature_memory_mb * 1e6)
        )

    @property
    def volume(self) -> Volume:
        """The scan."""
        return self._features.volume

    @property
    def feature_bytes(self) -> int:
        """Memory of the features that are kept."""
        return self._features.num_bytes

    def predict(
        self,
        clicks: Sequence[Click],
        *,
        exclude_mask: NDArray[np.bool_] | None = None,
        background_clicks: Sequence[Click] = (),
        cancelled: Callable[[], bool] = never,
    ) -> Segmentation:
        """Return the object that was clicked.

        Args:
            clicks: at least one inside the object.
            exclude_mask: (D, H, W), voxels of other objects, which the mask leaves out; None for none.
            background_clicks: further ones, which the segmentation does not list.
            cancelled: called before every call of the network; True ends the prediction.

        Raises:
            ClickError: when a click is not finite or outside the scan, or there is none inside the object.
            CancelledError: when `cancelled` said so.
        """
        grid = self.volume.grid
        placed = [WorldClick(c.world(grid), c.foreground) for c in (*clicks, *background_clicks)]
        check_any_inside(clicks)
        stopwatch = Stopwatch(dict(self._prepare_seconds))
        model = self._features.model
        card = model.card
        if card.fields_of_view is None:
            raise DamagedWeightsError(
                f"the card of {card.id} says no voxel sizes to look with; take the model again"
            )
        found = run_cascade(
            PatchPredictor(self._features, exclude_mask, cancelled),
            grid,
            placed,
            card.fields_of_view,
            model.network.config.patch_shape_dhw,
            stopwatch,
        )
        with stopwatch.stage("paste"):
            probability = found.probability
            if exclude_mask is not None:
                probability = np.where(exclude_mask[found.box.slices], np.float32(0), probability)
            start = np.array(found.box.start_dhw)
            inside = [grid.to_voxel(click.place).as_array() - start for click in placed if click.foreground]
            array = np.zeros(grid.shape_dhw, dtype=np.uint8)
            array[found.box.slices] = keep_clicked(probability > THRESHOLD, inside)
        return Segmentation(
            mask=Mask(array, grid),
            clicks=tuple(clicks),
            modality=self._modality,
            model_id=card.id,
            fields_of_view=found.looks,
            seconds=stopwatch.seconds,
            warnings=(*self._warnings, *found.warnings),
            probability_box=found.box,
            probability_in_box=probability,
        )


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
    scan = ScanPredictor(volume, loaded, modality=modality, organ_mask=organ_mask)
    return scan.predict(clicks)
