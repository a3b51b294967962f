"""One scan, one object, any number of clicks."""

import numpy as np

from clickvol.errors import ClickError, ConfigError, DamagedWeightsError
from clickvol.inference.cascade import THRESHOLD, keep_clicked, run_cascade
from clickvol.inference.looks import Looker, Stopwatch, WorldClick
from clickvol.inference.organ_mask import check_organ_mask
from clickvol.inference.recognised_scan import recognise_scan
from clickvol.inference.segmentation import Segmentation
from clickvol.prompts.click import Click
from clickvol.volumes.volume import Mask, Modality, Volume
from clickvol.weights.load import LoadedModel


class InteractiveSession:
    """Clicks on one scan; image features are computed once per field of view and reused.

    The result depends on the scan, the model and the list of clicks alone, not on the way there: undo
    and replay give the same mask again.

    Args:
        volume: the scan.
        model: the model.
        modality: "CT" or "MR" where the file does not say it or says it wrongly.
        organ_mask: for a model that takes one (TAGS), on any grid that lies over the scan; values above 0
            are organ.

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
    ) -> None:
        if model.network.config.is_automatic:
            msg = f"{model.card.id} is automatic and takes no clicks; use segment() with it"
            raise ConfigError(msg)
        checked_mask, mask_warnings = check_organ_mask(organ_mask, volume.grid, model)
        stopwatch = Stopwatch()
        with stopwatch.stage("prepare"):
            recognised = recognise_scan(volume, model, modality)
        self._prepare_seconds = stopwatch.seconds
        self._volume = volume
        self._model = model
        self._modality = recognised.modality
        self._warnings = [*recognised.warnings, *mask_warnings]
        self._looker = Looker(volume, recognised.scale, model, checked_mask)
        self._clicks: list[Click] = []

    @property
    def clicks(self) -> tuple[Click, ...]:
        """The clicks so far."""
        return tuple(self._clicks)

    def add_click(self, click: Click) -> Segmentation:
        """Add a click and answer all of them.

        Raises:
            ClickError: when the click is not finite or outside the scan, or there is none inside the
                object yet; the session is unchanged then.
        """
        segmentation = self._answer([*self._clicks, click])
        self._clicks.append(click)
        return segmentation

    def set_clicks(self, clicks: list[Click]) -> Segmentation:
        """Replace all clicks and answer them.

        Raises:
            ClickError: as `add_click`.
        """
        segmentation = self._answer(clicks)
        self._clicks = list(clicks)
        return segmentation

    def undo(self) -> Segmentation | None:
        """Take back the last click; return the answer to the others, or None if none is left."""
        if self._clicks:
            self._clicks.pop()
        return self._answer(self._clicks) if self._clicks else None

    def reset(self) -> None:
        """Forget all clicks; what was computed of the scan is kept."""
        self._clicks.clear()

    def _answer(self, clicks: list[Click]) -> Segmentation:
        grid = self._volume.grid
        placed = [WorldClick(click.world(grid), click.foreground) for click in clicks]
        if not any(click.foreground for click in placed):
            msg = (
                "there is no click inside the object; give at least one (only background clicks, "
                "those ending in ':-', were given)"
                if placed
                else "there is no click; give at least one inside the object"
            )
            raise ClickError(msg)
        stopwatch = Stopwatch(dict(self._prepare_seconds))
        card, config = self._model.card, self._model.network.config
        if card.fields_of_view is None:
            msg = f"the card of {card.id} says no voxel sizes to look with; take the model again"
            raise DamagedWeightsError(msg)
        found = run_cascade(
            self._looker,
            grid,
            placed,
            card.fields_of_view,
            config.patch_shape_dhw,
            stopwatch,
        )
        with stopwatch.stage("paste"):
            start = np.array(found.box.start_dhw)
            inside = [
                grid.to_voxel(click.place).as_array() - start
                for click in placed
                if click.foreground
            ]
            kept = keep_clicked(found.probability > THRESHOLD, inside)
            array = np.zeros(grid.shape_dhw, dtype=np.uint8)
            array[found.box.slices] = kept
        return Segmentation(
            mask=Mask(array, grid, self._volume.nifti),
            clicks=tuple(clicks),
            modality=self._modality,
            model_id=card.id,
            fields_of_view=found.looks,
            seconds=stopwatch.seconds,
            warnings=(*self._warnings, *found.warnings),
            probability_box=found.box,
            probability_in_box=found.probability,
        )
