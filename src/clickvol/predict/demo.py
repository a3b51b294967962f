"""The main job on a synthetic scan, compared with the truth."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clickvol.errors import OutputError
from clickvol.io.formats import write_mask, write_volume
from clickvol.metrics.overlap import dice
from clickvol.phantoms.painting import PhantomModality
from clickvol.phantoms.phantom import make_phantom
from clickvol.predict.scan_job import ScanJob, ScanJobResult, run_scan_job
from clickvol.prompts.click import Click

_TUMOUR_DIAMETER_MM = 100.0


@dataclass(frozen=True, slots=True, eq=False)
class DemoResult:
    """What came of the demo.

    Attributes:
        job_result: of the segmentation of the scan on disk.
        truth: file with the true mask.
        truth_ml: volume of the true tumour.
        click_ijk: voxel of the click, in the file's order.
        dice: agreement of the mask with the truth, 0 to 1.
    """

    job_result: ScanJobResult
    truth: Path
    truth_ml: float
    click_ijk: tuple[float, float, float]
    dice: float


def run_demo(
    folder: Path,
    *,
    modality: PhantomModality,
    seed: int,
    model: str | None,
    device: str,
    on_stage: Callable[[str], None],
) -> DemoResult:
    """Write a synthetic scan and its truth, and segment the scan from its file.

    Args:
        folder: where scan.nii.gz, truth.nii.gz, mask.nii.gz and preview.png go; files of an
            earlier demo are replaced.
        modality: of the synthetic scan.
        seed: which synthetic patient.
        model: id or path; None takes the default model.
        device: "auto", "cpu", "cuda" or "mps".
        on_stage: told the name of each stage when it begins.

    Raises:
        OutputError: when the folder cannot be made or written.
        ClickvolError: as `run_scan_job`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot make the folder {folder}: {error.strerror}; choose another with --out"
        ) from error
    on_stage("making a synthetic scan")
    phantom = make_phantom(seed, modality=modality, tumour_diameter_mm=_TUMOUR_DIAMETER_MM)
    grid = phantom.volume.grid
    scan, truth = folder / "scan.nii.gz", folder / "truth.nii.gz"
    write_volume(phantom.volume.array, grid, scan)
    write_mask(phantom.truth, truth)
    job = ScanJob(
        scan=scan,
        clicks=(Click(phantom.inside),),
        mask=folder / "mask.nii.gz",
        modality=modality,
        model=model,
        device=device,
        preview=folder / "preview.png",
    )
    result = run_scan_job(job, on_stage=on_stage)
    return DemoResult(
        job_result=result,
        truth=truth,
        truth_ml=phantom.truth.volume_ml,
        click_ijk=phantom.inside.to_ijk(),
        dice=dice(result.segmentation.mask.array, phantom.truth.array),
    )
