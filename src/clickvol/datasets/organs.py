"""Where the organ masks of training scans come from."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clickvol.datasets.msd import CaseRecord
from clickvol.errors import ConfigError
from clickvol.io.mask_files import read_label
from clickvol.io.volume import Volume
from clickvol.preprocessing.channels import OrganMaskSource, organ_of_label, organ_of_values


@dataclass(frozen=True, kw_only=True)
class OrganPlan:
    """Where organ masks come from.

    Attributes:
        source: see `OrganMaskSource`.
        path: for "file": the mask of a scan, relative to the folder of the scan; {case_id} stands for the
            scan's file name without suffix, as in "../organs/{case_id}.nii.gz".
    """

    source: OrganMaskSource
    path: str = ""

    def __post_init__(self) -> None:
        if self.source != "file":
            return
        try:
            has_case = self.path.format(case_id="a") != self.path.format(case_id="b")
        except (KeyError, IndexError, ValueError) as error:
            raise ConfigError(
                f"the organ path {self.path!r} has a field other than {{case_id}}; mend it"
            ) from error
        if not has_case:
            raise ConfigError(
                f"the organ path {self.path!r} is the same for every scan; write {{case_id}} into it"
            )


def read_organ(
    plan: OrganPlan, record: CaseRecord, image: Volume, label: Volume, tumour: NDArray[np.uint8]
) -> NDArray[np.uint8] | None:
    """Return the organ mask of a scan on its grid: (D, H, W), 0 or 1; None for the source "none".

    Args:
        plan: where it comes from.
        record: the case.
        image: the scan.
        label: its label as read, on the same grid.
        tumour: (D, H, W), 0 or 1.

    Raises:
        UnreadableVolumeError: when the file is missing or cannot be read.
        ConfigError: when the file is not on the grid of the scan, or a label has nothing but the tumour.
    """
    if plan.source == "none":
        return None
    if plan.source == "gt":
        return organ_of_label(label.array, tumour)
    organ = read_label(record.image.parent / plan.path.format(case_id=record.case_id), image)
    check_one_grid(image, organ)
    return organ_of_values(organ.array)


def check_one_grid(image: Volume, other: Volume) -> None:
    """Check that a label or a mask lies on the grid of its scan.

    Raises:
        ConfigError: when it does not.
    """
    if not other.grid.same_place(image.grid):
        raise ConfigError(
            f"{other.source} is not on the grid of {image.source}: {other.grid.difference_from(image.grid)}; "
            "resample it to that grid"
        )
