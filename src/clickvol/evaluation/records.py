"""One line of an evaluation: what one model answered to the first n clicks on one scan."""

from pydantic import BaseModel, ConfigDict, Field

NSD_TOLERANCES_MM = (1.0, 2.0, 5.0)
"""Tolerances of the normalised surface Dice; ProMISe-3D and 3DSAM-adapter report 5 mm (released code)."""


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
        nsd: normalised surface Dice at `NSD_TOLERANCES_MM`, in that order, 0 to 1.
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
    nsd: tuple[float, float, float]
    hd95_mm: float | None
    assd_mm: float | None
    truth_ml: float
    mask_ml: float
    lesion_recall: float | None
    seconds: float
    failure: str | None = None
