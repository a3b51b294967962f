"""One line of an evaluation: what one model answered to the first n clicks on one scan."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

NSD_TOLERANCES_MM = (1.0, 2.0, 5.0)
"""Tolerances of the normalised surface Dice where no others are chosen; ProMISe-3D and 3DSAM-adapter report
5 mm (released code)."""


class ClickScore(BaseModel):
    """Scores after the first `num_clicks` clicks of a simulated user.

    A run of one user on one scan with one model is named by `model`, `data`, `case_id`, `seed` and
    `placement`; its records have num_clicks 1, 2, ... (0 for an automatic model that was not clicked).

    Attributes:
        model: name of the contestant in the report.
        data: name of the data set.
        case_id: of the scan in its data set.
        group: what statistics resample together, one patient's scans.
        modality: of the scan.
        seed: of the simulated user.
        placement: where the first click was put, see `evaluation.protocol`.
        num_clicks: clicks given so far; 0 for none.
        dice, iou: 0 to 1.
        nsd: normalised surface Dice at `nsd_tolerances_mm`, in that order, 0 to 1.
        nsd_tolerances_mm: rising. Records of earlier versions do not say them, and have the usual ones.
        hd95_mm, assd_mm: surface distances; None where one of the masks is empty.
        truth_ml, mask_ml: volumes.
        lesion_recall: part of the truth's connected lesions that the mask hits; None without lesions.
        seconds: from the click to the mask.
        failure: why there was no answer, one line; the scores are then those of an empty mask.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    data: str
    case_id: str
    group: str
    modality: str
    seed: int
    placement: str
    num_clicks: int = Field(ge=0)
    dice: float
    iou: float
    nsd: tuple[float, ...]
    nsd_tolerances_mm: tuple[float, ...] = NSD_TOLERANCES_MM
    hd95_mm: float | None
    assd_mm: float | None
    truth_ml: float
    mask_ml: float
    lesion_recall: float | None
    seconds: float
    failure: str | None = None

    @model_validator(mode="after")
    def _one_surface_dice_per_tolerance(self) -> Self:
        if len(self.nsd) != len(self.nsd_tolerances_mm):
            raise ValueError(
                f"{len(self.nsd)} surface Dice were given for {len(self.nsd_tolerances_mm)} tolerances"
            )
        return self

    def nsd_at(self, tolerance_mm: float) -> float:
        """Return the surface Dice at a tolerance of `nsd_tolerances_mm`; ValueError for another one."""
        return self.nsd[self.nsd_tolerances_mm.index(tolerance_mm)]
