"""From a finished evaluation to its page: where the numbers come from, the tables, and pictures of cases."""

import platform
import shlex
from dataclasses import replace
from pathlib import Path

import torch

from clickvol.evaluation.contestants import Contestant
from clickvol.evaluation.plan import EvaluationRequest, mask_file
from clickvol.evaluation.records import ClickScore
from clickvol.evaluation.result_log import RunKey, read_audit
from clickvol.evaluation.runner import Evaluated
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.io.mask_files import read_mask
from clickvol.predict.installation import describe_installation
from clickvol.prompts.click import Click
from clickvol.report.pictures import case_picture, choose_cases
from clickvol.report.report import write_report
from clickvol.report.summary import Summary

PICTURES_NAME = "pictures"

# Contestants whose cases are shown, the first ones named. Chosen: a page that can still be looked through.
_SHOWN_CONTESTANTS = 4


def report_evaluation(evaluated: Evaluated) -> Summary:
    """Write the report into the folder of the evaluation.

    Raises:
        ConfigError: when nothing was evaluated, or without matplotlib.
        OutputError: when a file cannot be written.
        UnreadableVolumeError: when a scan can no longer be read for its picture.
    """
    request = evaluated.request
    notes = [f"Not evaluated: {case.data} {case.case_id}: {case.reason}." for case in evaluated.skipped]
    return write_report(
        evaluated.records,
        request.folder,
        reference=request.reference,
        provenance=_provenance(evaluated),
        nsd_tolerance_mm=request.protocol.nsd_tolerance_mm,
        notes=notes,
        pictures=_pictures(evaluated),
    )


def command_of(request: EvaluationRequest) -> str:
    """Return the command that does this evaluation."""
    protocol = request.protocol
    words = ["clickvol", "evaluate", *request.contestants]
    for data in request.data:
        words += ["--data", data]
    words += ["--split", request.split, "--fold", str(request.fold)]
    words += ["--protocol", protocol.name, "--clicks", ",".join(map(str, protocol.num_clicks))]
    words += ["--seeds", str(protocol.seeds), "--tolerance", f"{protocol.nsd_tolerance_mm:g}"]
    words += ["--nsd-tolerances", ",".join(f"{mm:g}" for mm in protocol.nsd_tolerances_mm)]
    if request.limit is not None:
        words += ["--limit", str(request.limit)]
    if request.robustness:
        words.append("--robustness")
    if request.organ_mask != "none":
        words += ["--organ-mask", request.organ_mask]
    if request.reference is not None:
        words += ["--reference", request.reference]
    return shlex.join([*words, "-o", str(request.folder)])


def _provenance(evaluated: Evaluated) -> dict[str, str]:
    request, installation = evaluated.request, describe_installation()
    protocol = request.protocol
    libraries = ", ".join(f"{name} {text}" for name, text in installation["libraries"].items())
    data = (f"{one.name} ({len(one.cases)} cases, sha256 {one.content_hash[:12]})" for one in evaluated.data)
    return {
        "Command": f"`{command_of(request)}`",
        "Protocol": f"{protocol.name}: {protocol.title}",
        "Users": f"{protocol.seeds} per scan, seeds 0 to {protocol.seeds - 1}",
        "Data": "; ".join(data),
        "Contestants": "; ".join(_named(contestant) for contestant in evaluated.contestants),
        **_organ_masks(evaluated),
        "Versions": f"clickvol {installation['clickvol']}, Python {installation['python']}, {libraries}",
        "Machine": (
            f"{_device_name(evaluated.device)}, {installation['cpu_cores']} CPU cores, "
            f"{installation['threads']} threads, {platform.machine()}, {platform.system()}"
        ),
    }


def _organ_masks(evaluated: Evaluated) -> dict[str, str]:
    """Say what stood in the place of organ masks, where anybody looks at one."""
    names = ", ".join(one.name for one in evaluated.contestants if one.takes_organ_mask)
    if not names:
        return {}
    if evaluated.request.organ_mask == "none":
        return {"Organ masks": f"none; {names} saw the scan in their place"}
    return {
        "Organ masks": (
            f"FROM THE LABELS, AN ORACLE: {names} saw organ and tumour as one mask, which no user has and "
            "which can give the tumour's outline away"
        )
    }


def _named(contestant: Contestant) -> str:
    mark = contestant.fingerprint
    is_hash = len(mark) == 64 and " " not in mark
    return f"{contestant.name} (sha256 {mark[:12]})" if is_hash else f"{contestant.name} ({mark})"


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def _pictures(evaluated: Evaluated) -> dict[str, Path]:
    """Draw the worst, the median and the best case of the first contestants; return files by caption."""
    folder = evaluated.request.folder
    clicks: dict[RunKey, list[Click]] = {}
    for audit in read_audit(folder):
        key = RunKey(audit.model, audit.data, audit.case_id, audit.seed, audit.placement)
        i, j, k = audit.voxel_ijk
        place = VoxelPoint.from_ijk(i, j, k)
        clicks.setdefault(key, []).append(Click(place, audit.foreground))
    pictures = {}
    for contestant in evaluated.contestants[:_SHOWN_CONTESTANTS]:
        for one_set in evaluated.data:
            cases = {case.case_id: case for case in one_set.cases}
            chosen = choose_cases(evaluated.records, model=contestant.name, data=one_set.name)
            for rank, score in chosen.items():
                key = RunKey(score.model, score.data, score.case_id, score.seed, score.placement)
                mask = mask_file(folder, key)
                if not mask.is_file():
                    continue
                volume, truth = cases[score.case_id].read()
                path = _picture_file(folder, mask, rank)
                title = _title(score, rank)
                case_picture(
                    replace(volume, modality=cases[score.case_id].modality),
                    truth,
                    read_mask(mask).array,
                    path,
                    title,
                    clicks.get(key, ()),
                )
                pictures[title] = path
    return pictures


def _picture_file(folder: Path, mask: Path, rank: str) -> Path:
    model, data = mask.parent.parent.name, mask.parent.name
    picture_folder = folder / PICTURES_NAME
    picture_folder.mkdir(exist_ok=True)
    return picture_folder / f"{model}-{data}-{rank}.png".replace(" ", "-")


def _title(score: ClickScore, rank: str) -> str:
    return (
        f"{score.model}, {score.data} {score.case_id} ({rank}): Dice {score.dice:.3f} "
        f"after {score.num_clicks} clicks"
    )
