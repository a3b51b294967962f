"""The page of a report: where the numbers come from, the tables, the figures, and pictures of cases."""

import platform
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch

from clickvol.evaluation.methods import Method
from clickvol.evaluation.records import RunKey, write_csv
from clickvol.evaluation.result_log import read_audit
from clickvol.evaluation.run import Evaluated, EvaluationRequest, mask_file
from clickvol.files.atomic import write_text
from clickvol.geometry.coordinates import VoxelPoint
from clickvol.io.mask_files import read_mask
from clickvol.io.pictures import Picture, read_mask_values
from clickvol.metrics.click_curve import DICE_TO_REACH
from clickvol.metrics.scores import NSD_TOLERANCES_MM
from clickvol.prompts.click import Click
from clickvol.report.figures import case_picture, choose_cases, drawn_picture, write_figures
from clickvol.report.statistics import RESAMPLES
from clickvol.report.summary import Summary, case_means, summarise
from clickvol.report.tables import markdown_cell, report_tables
from clickvol.weights.installation import describe_installation

PICTURES_NAME = "pictures"

# Methods whose cases are shown, the first ones named. Chosen: a page that can still be looked through.
_SHOWN_METHODS = 4

_SHOWN_FAILURES = 20

_HOW_TO_READ = Path(__file__).with_name("how_to_read.txt").read_text(encoding="utf-8")
_PICTURE_POLICY = (
    "Pictures: first click points is N points drawn from the truth, N / 2 rounded down inside; centre is a "
    "user who begins there and corrects; none is a model that predicts its points. MAE is the part of the "
    "pixels that are wrong; boundary F is that of DAVIS (tolerance .008 of the diagonal)."
)


def write_report(
    table: pd.DataFrame,
    folder: Path,
    *,
    reference: str | None = None,
    provenance: Mapping[str, str] | None = None,
    nsd_tolerance_mm: float = NSD_TOLERANCES_MM[-1],
    notes: Sequence[str] = (),
    pictures: Mapping[str, Path] | None = None,
    resamples: int = RESAMPLES,
) -> Summary:
    """Write the report of an evaluation; the same rows and words give the same bytes.

    The folder then has report.md, cases.csv (scans, means over users), summary.csv, summary.json, tables.tex,
    click_curve.png, box_plot.png and volume_bland_altman.png, replaced where there.

    Args:
        table: of the evaluation, as `evaluation.records.score_table` returns it.
        folder: where to; made if need be.
        reference: model that the others are compared with; None for no comparison.
        provenance: what the numbers come from, such as command, seeds, versions, hardware: name and words.
        nsd_tolerance_mm: of the surface Dice that is compared with the reference.
        notes: further sentences for the page, such as cases that were left out.
        pictures: files of cases by caption, in the folder or below.
        resamples: of the bootstrap.

    Raises:
        ConfigError: for an unknown reference or tolerance, see `summarise`.
        OutputError: when a file cannot be written.
    """
    summary = summarise(table, reference=reference, nsd_tolerance_mm=nsd_tolerance_mm, resamples=resamples)
    folder.mkdir(parents=True, exist_ok=True)
    figures = write_figures(table, summary, folder)
    cases = case_means(table)
    tables = report_tables(table, summary, cases)
    write_csv(cases.drop(columns="mask_ml", errors="ignore"), folder / "cases.csv")
    write_csv(summary.scores, folder / "summary.csv")
    summary.write_json(folder / "summary.json")
    write_text(folder / "tables.tex", "\n".join(one.latex() for one in tables))
    sections = [
        "# Evaluation\n",
        *(f"- {name}: {' '.join(words.split())}" for name, words in (provenance or {}).items()),
        "- For research use only, not a medical device\n",
        "## Tables\n",
        *(one.markdown() for one in tables),
        *_policies(summary, notes),
        *_failures(table),
        "## Figures\n",
        *(_picture(caption, path, folder) for caption, path in figures.items()),
        *(["## Cases\n"] if pictures else []),
        *(_picture(caption, path, folder) for caption, path in (pictures or {}).items()),
    ]
    write_text(folder / "report.md", "\n".join(sections))
    return summary


def _policies(summary: Summary, notes: Sequence[str]) -> list[str]:
    known = {"resamples": summary.resamples, "seed": summary.seed, "dice_to_reach": DICE_TO_REACH}
    lines = _HOW_TO_READ.format(**known).splitlines()
    return ["## How to read them\n", *(f"- {line}" for line in [*lines, *notes]), ""]


def _failures(table: pd.DataFrame) -> list[str]:
    failed = table.dropna(subset="failure")
    if failed.empty:
        return []
    lines = [
        f"- {markdown_cell(f'{r.model}, {r.data} {r.case_id}')}, seed {r.seed}, first click {r.placement}, "
        f"{r.num_clicks} clicks: {markdown_cell(r.failure)}"
        for r in failed.head(_SHOWN_FAILURES).itertuples()
    ]
    if len(failed) > len(lines):
        lines.append(f"- and {len(failed) - len(lines)} more, in scores.csv")
    return [f"## Failures ({len(failed)})\n", *lines, ""]


def _picture(caption: str, path: Path, folder: Path) -> str:
    place = path.relative_to(folder) if path.is_relative_to(folder) else path
    return f"![{markdown_cell(caption)}](<{place.as_posix()}>)\n"


def report_evaluation(evaluated: Evaluated) -> Summary:
    """Write the report into the folder of the evaluation.

    ConfigError when nothing was evaluated, or without matplotlib; UnreadableVolumeError when a scan can no
    longer be read for its picture.
    """
    request = evaluated.request
    notes = [f"WARNING: {warning}." for warning in evaluated.warnings]
    notes += [f"Not evaluated: {case.data} {case.case_id}: {case.reason}." for case in evaluated.skipped]
    if "mae" in evaluated.table:
        notes.insert(0, _PICTURE_POLICY)
    return write_report(
        evaluated.table,
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
    options = {
        "--data": request.data,
        "--split": request.split,
        "--fold": request.fold,
        "--protocol": protocol.name,
        "--clicks": ",".join(map(str, protocol.num_clicks)),
        "--seeds": protocol.seeds,
        "--tolerance": protocol.nsd_tolerance_mm,
        "--nsd-tolerances": ",".join(f"{mm:g}" for mm in protocol.nsd_tolerances_mm),
        "--procedure": protocol.procedure,
        "--limit": request.limit,
        "--robustness": request.robustness,
        "--organ-mask": None if request.organ_mask == "none" else request.organ_mask,
        "--reference": request.reference,
        "-o": request.folder,
    }
    return command_line("evaluate", *request.methods, options)


def command_line(*words_and_options: str | Mapping[str, object]) -> str:
    """Return a command of `clickvol`, words and options with their values, as a shell takes it.

    A tuple repeats its option, True is a flag, and None and False leave it out.
    """
    words = ["clickvol"]
    for part in words_and_options:
        if isinstance(part, str):
            words.append(part)
            continue
        for option, value in part.items():
            for one in value if isinstance(value, tuple) else (value,):
                if one is True:
                    words.append(option)
                elif one is not None and one is not False:
                    words += [option, f"{one:g}" if isinstance(one, float) else str(one)]
    return shlex.join(words)


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
        "Methods": "; ".join(_named(method) for method in evaluated.methods),
        **_organ_masks(evaluated),
        "Versions": f"clickvol {installation['clickvol']}, Python {installation['python']}, {libraries}",
        "Machine": (
            f"{_device_name(evaluated.device)}, {installation['cpu_cores']} CPU cores, "
            f"{installation['threads']} threads, {platform.machine()}, {platform.system()}"
        ),
    }


def _organ_masks(evaluated: Evaluated) -> dict[str, str]:
    """Say what stood in the place of organ masks, where anybody looks at one."""
    names = ", ".join(one.name for one in evaluated.methods if one.takes_organ_mask)
    if not names:
        return {}
    if evaluated.request.organ_mask == "file":
        return {"Organ masks": f"{names} saw those that the set was prepared with"}
    if evaluated.request.organ_mask == "none":
        return {"Organ masks": f"none; {names} saw the scan in their place"}
    return {
        "Organ masks": (
            f"FROM THE LABELS, AN ORACLE: {names} saw organ and tumour as one mask, which no user has and "
            "which can give the tumour's outline away"
        )
    }


def _named(method: Method) -> str:
    mark = method.fingerprint
    is_hash = len(mark) == 64 and " " not in mark
    return f"{method.name} (sha256 {mark[:12]})" if is_hash else f"{method.name} ({mark})"


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def _pictures(evaluated: Evaluated) -> dict[str, Path]:
    """Draw the worst, the median and the best case of the first methods; return files by caption."""
    folder = evaluated.request.folder
    clicks: dict[RunKey, list[Click]] = {}
    for audit in read_audit(folder):
        click = Click(VoxelPoint.from_ijk(*audit["voxel_ijk"]), audit["foreground"])
        clicks.setdefault(RunKey.of(audit), []).append(click)
    pictures = {}
    for method in evaluated.methods[:_SHOWN_METHODS]:
        for one_set in evaluated.data:
            cases = {case.case_id: case for case in one_set.cases}
            chosen = choose_cases(evaluated.table, model=method.name, data=one_set.name)
            for rank, row in chosen.items():
                key = RunKey.of(row)
                volume, truth = cases[row.case_id].read_native()
                is_picture = isinstance(volume, Picture)
                mask = mask_file(folder, key, ".png" if is_picture else ".nii.gz")
                if not mask.is_file():
                    continue
                path = folder / PICTURES_NAME / f"{mask.parent.parent.name}-{mask.parent.name}-{rank}.png"
                path = path.with_name(path.name.replace(" ", "-"))
                path.parent.mkdir(exist_ok=True)
                title = (
                    f"{row.model}, {row.data} {row.case_id} ({rank}): Dice {row.dice:.3f} "
                    f"after {row.num_clicks} clicks"
                )
                if isinstance(volume, Picture):
                    own_mask = read_mask_values(mask) > 0
                    drawn_picture(volume, truth[0] > 0, own_mask, path, clicks.get(key, ()))
                else:
                    case_picture(volume, truth, read_mask(mask).array, path, title, clicks.get(key, ()))
                pictures[title] = path
    return pictures
