"""The claims of a study decided: one row each, from the scores of all its folds and trainings."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clickvol.evaluation.records import write_csv
from clickvol.files.atomic import write_text
from clickvol.report.statistics import bootstrap_interval, holm, paired_tests, random_effects_mean
from clickvol.report.tables import MISSING, Table, number, p_value, whole_numbers, with_interval
from clickvol.reproduction.scoring import progress, scored_rows
from clickvol.reproduction.study import Claim
from clickvol.reproduction.workspace import Reproduction

CLAIMS_NAME = "claims.md"
CLAIMS_CSV_NAME = "claims.csv"

# Below this corrected p value a claim is decided.
_DECIDING_P = 0.05

# Quantiles of the normal distribution: what is found with a chance of .8 at a level of .05 is 2.8 errors away.
_DETECTABLE_ERRORS = 2.8

_HOW_TO_READ = f"""\
Claims were named in the study file before anything was scored. A patient's difference is the mean over data
sets, trainings, scans and users that both arms have. Brackets behind the difference: bootstrap over patients.
With trainings at random: patients and trainings (a fold and a seed) as random effects, REML, Satterthwaite's
degrees of freedom; it decides, where its p, corrected by Holm for all claims, is below {_DECIDING_P:g}.
Claims without scores count in that correction, too, so that those still to come change no p. Scored: the
evaluations of both arms that are there, of all; before all are, a decision is one "so far".
Detectable: a true difference that this number of patients and trainings shows with a chance of .8, before
correction.

For research use only, not a medical device."""

_NUMBERS = ("difference", "low", "high", "t_p", "model_low", "model_high", "model_p", "detectable")


def claim_rows(job: Reproduction) -> pd.DataFrame:
    """Return one row per claim of the study.

    `difference` is the mean over patients of the difference in Dice, a patient's being the mean over data
    sets, trainings, scans and users that both arms have; `low` and `high` its bootstrap interval over patients;
    `t_p` of the paired t-test over patients. `model_...`: patients and trainings (a fold and a seed) as random
    effects, see `random_effects_mean`. `..._holm`: corrected for all claims of the study, as if those without
    scores had a p of 1. `detectable`: the difference that so many patients and trainings show with a chance of
    .8. `scored` of `wanted` evaluations of its arms are there. Missing where an arm has no scores.
    """
    scores = scored_rows(job, *job.study.tasks)
    untrained = {arm.name for arm in job.study.arms if job.repeats(arm)[0].seed is None}
    rows = []
    for claim in job.study.claims:
        scored, wanted = progress(job, scores, claim.arm, claim.against)
        rows.append(_row(claim, scores, untrained) | {"scored": scored, "wanted": wanted})
    for name in ("t_p", "model_p"):
        for row, corrected in zip(rows, holm([row.get(name, 1.0) for row in rows]), strict=True):
            row[f"{name}_holm"] = corrected if name in row else None
    kinds = dict.fromkeys((*_NUMBERS, "t_p_holm", "model_p_holm"), "float")
    counts = dict.fromkeys(("patients", "trainings", "scored", "wanted"), "Int64")
    columns = ["claim", "title", "patients", "trainings", *kinds, "scored", "wanted"]
    return pd.DataFrame(rows, columns=columns).astype(kinds | counts)


def write_claims(job: Reproduction) -> Path | None:
    """Write claims.md and claims.csv; None for a study without claims."""
    if not job.study.claims:
        return None
    rows = claim_rows(job)
    write_csv(rows, job.results / CLAIMS_CSV_NAME)
    cells = pd.DataFrame(
        {
            "Claim": rows["title"],
            "Patients": whole_numbers(rows["patients"]),
            "Trainings": whole_numbers(rows["trainings"]),
            "Difference in Dice": [
                with_interval(3, *row) for row in rows[["difference", "low", "high"]].itertuples(index=False)
            ],
            "t-test p (Holm)": _p_values(rows, "t_p"),
            "with trainings at random [95 %]": [
                MISSING if np.isnan(low) else f"[{low:.3f}, {high:.3f}]"
                for low, high in rows[["model_low", "model_high"]].itertuples(index=False)
            ],
            "p (Holm)": _p_values(rows, "model_p"),
            "Detectable": [number(value, 3) for value in rows["detectable"]],
            "Scored": [f"{row.scored} of {row.wanted}" for row in rows.itertuples()],
            "Decided": [
                _decision(row.difference, row.model_p_holm, is_whole=row.scored == row.wanted)
                for row in rows.itertuples()
            ],
        }
    )
    lines = [Table(f"{job.study.title}: claims", cells).markdown(), _HOW_TO_READ, ""]
    if job.steps is not None:
        lines.insert(0, f"**A REHEARSAL: every training was ended after {job.steps} steps.**\n")
    write_text(job.results / CLAIMS_NAME, "\n".join(lines))
    return job.results / CLAIMS_NAME


def _row(claim: Claim, scores: pd.DataFrame, untrained: set[str]) -> dict[str, Any]:
    row: dict[str, Any] = {"claim": claim.name, "title": claim.title}
    if scores.empty:
        return row
    differences = _differences(claim, scores, untrained)
    per_patient = differences.groupby("group")["difference"].mean()
    if per_patient.empty:
        return row
    training = differences["fold"].astype(str) + " " + differences["training"].astype(str)
    model = random_effects_mean(differences["difference"].to_numpy(), differences["group"], training)
    low, high = (
        bootstrap_interval(per_patient.to_numpy(), [str(name) for name in per_patient.index]) or (None,) * 2
    )
    row |= {"patients": len(per_patient), "trainings": training.nunique(), "difference": per_patient.mean()}
    row |= {"low": low, "high": high, "t_p": paired_tests(per_patient.to_numpy()).t_p}
    if model is not None:
        row |= dict(zip(("model_low", "model_high"), model.interval, strict=True))
        row |= {"model_p": model.p, "detectable": _DETECTABLE_ERRORS * model.error}
    return row


def _differences(claim: Claim, scores: pd.DataFrame, untrained: set[str]) -> pd.DataFrame:
    """Return the difference of each patient in each training that both arms have: group, fold, training."""
    sides = []
    for name in (claim.arm, claim.against):
        rows = scores[scores["arm"].eq(name) & scores["model"].astype(str).eq(name)]
        rows = rows[rows["num_clicks"].isin((0, claim.clicks))]
        means = rows.groupby(["group", "fold", "training", "data"], observed=True)["dice"].mean().reset_index()
        sides.append(means)
    keys = ["group", "fold", "training", "data"]
    for n, name in enumerate((claim.arm, claim.against)):
        if name in untrained and "training" in keys:  # it goes with every training
            keys.remove("training")
            sides[n] = sides[n].drop(columns="training")
    both = sides[0].merge(sides[1], on=keys, suffixes=("", "_against"))
    both["difference"] = both["dice"] - both["dice_against"]
    return both.groupby(["group", "fold", "training"])["difference"].mean().reset_index()


def _p_values(rows: pd.DataFrame, name: str) -> list[str]:
    return [
        f"{p_value(p)} ({p_value(corrected)})"
        for p, corrected in rows[[name, f"{name}_holm"]].itertuples(index=False)
    ]


def _decision(difference: float, p: float, *, is_whole: bool) -> str:
    if np.isnan(p):
        return MISSING
    answer = "yes" if difference > 0 else "no: the other way round"
    answer = answer if p < _DECIDING_P else "not decided"
    return answer if is_whole else f"so far: {answer}"
