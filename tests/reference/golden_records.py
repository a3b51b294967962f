"""A small set of records with every irregularity, whose report is written down in tests/report/golden."""

from reference.click_scores import click_score, plausible_scores


def golden_scores():
    """Return records of four models: clicked, not clicked, failing, and one that lacks scans and users."""
    scores = list(plausible_scores(num_cases=5, clicks=(1, 3), placements=("random", "edge")))
    for case, dice in enumerate((0.15, 0.62, 0.62, 0.91)):
        missing = {"hd95_mm": None, "assd_mm": None, "failure": "no | memory"} if case == 0 else {}
        for clicks in (1, 3) if case < 3 else (1,):
            scores.append(
                click_score(
                    "late_comer",
                    f"liver_CT-{case:02d}",
                    data="liver_CT",
                    group=f"patient{case // 2}",
                    num_clicks=clicks,
                    dice=dice + 0.01 * clicks,
                    lesion_recall=None if case == 1 else 0.5,
                    truth_ml=4.0 * 1.9**case,
                    mask_ml=3.5 * 1.9**case,
                    **missing,
                )
            )
    scores.append(click_score("late_comer", "only here", data="liver_CT", num_clicks=1, dice=0.5))
    return scores
