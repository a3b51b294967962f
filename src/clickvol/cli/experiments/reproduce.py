"""`clickvol reproduce`: a published table again, from raw data to our numbers beside the paper's."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from clickvol.errors import ConfigError

if TYPE_CHECKING:
    from clickvol.reproduction.steps import Step
    from clickvol.reproduction.workspace import Reproduction

_Study = Annotated[
    str,
    typer.Argument(
        metavar="NAME|FILE",
        help="promise3d-table1, promise3d-table2, sam3d-adapter, tags, or a study of your own.",
    ),
]
_Data = Annotated[
    Path, typer.Option(metavar="RAW", help="Folder that holds the data sets as they come.", show_default=False)
]
_Output = Annotated[
    Path, typer.Option("--output", "-o", metavar="OUT", help="Gets everything; resumed if begun.")
]
_Only = Annotated[
    list[str] | None, typer.Option(metavar="ARM", help="Do this arm of the study only; repeatable.")
]
_Form = Annotated[
    Literal["released", "text"],
    typer.Option(
        "--as", metavar="released|text", help="Train as the released code or the paper's text has it."
    ),
]
_Budget = Annotated[
    str | None, typer.Option(metavar="NAME", help="One of the study's smaller budgets, with its own tables.")
]
_Steps = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="A rehearsal: end every training after N steps.")
]
_Device = Annotated[str, typer.Option(help="Where models are trained: auto, cpu, cuda or mps.")]
_Venv = Annotated[Path | None, typer.Option(metavar="DIR", help="nnU-Net's environment; else it is not run.")]
_Splits = Annotated[
    list[str] | None,
    typer.Option(metavar="DATA=FILE", help="The cases of each part; nnU-Net's form; repeatable."),
]
_Workers = Annotated[int, typer.Option(metavar="N", min=1, help="Processes that prepare scans.")]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Print every step and its command; write nothing.")]

_Records = Annotated[
    bool, typer.Option("--records", help="Write the tables again from the evaluations in OUT, and do no work.")
]


def reproduce(
    *,
    study: _Study,
    output: _Output,
    data: _Data = Path(),
    only: _Only = None,
    form: _Form = "released",
    budget: _Budget = None,
    steps: _Steps = None,
    device: _Device = "auto",
    venv: _Venv = None,
    splits: _Splits = None,
    workers: _Workers = 1,
    dry_run: _DryRun = False,
    records: _Records = False,
) -> None:
    """Prepare, train, score and compare all arms of a study; the same command goes on where it stopped."""
    from clickvol.cli.progress import show_stages
    from clickvol.reproduction.steps import left_out, tables_from_records
    from clickvol.reproduction.steps import reproduce as do_all
    from clickvol.reproduction.study import read_study
    from clickvol.reproduction.workspace import Reproduction

    file = read_study(study)
    job = Reproduction(
        file=file if budget is None else file.with_budget(budget),
        raw=data,
        folder=output.absolute(),
        only=tuple(only or ()),
        form=form,
        steps=steps,
        device=device,
        venv=venv,
        splits=dict(_split_file(text) for text in splits or ()),
        workers=workers,
    )
    if records:
        typer.echo(f"{tables_from_records(job)}: from the records alone")
        return
    if dry_run:
        _show_plan(job)
        return

    def on_step(step: "Step", is_done: bool) -> None:
        typer.echo(f"{'done before' if is_done else 'now'}: {step.title}", err=True)

    with show_stages(quiet=False) as show_stage:
        table = do_all(job, on_step=on_step, on_message=show_stage)
    for line in left_out(job):
        typer.echo(f"warning: {line}", err=True)
    typer.echo(f"{table}: our numbers beside the published ones")


def _show_plan(job: "Reproduction") -> None:
    from clickvol.reproduction.steps import left_out, missing_space, steps_of

    if job.steps is not None:
        typer.echo(f"REHEARSAL: every training ends after {job.steps} steps")
    for step in steps_of(job):
        is_done = step.is_done()
        typer.echo(f"{'done' if is_done else 'to do'}: {step.title}")
        if not is_done:
            typer.echo(f"    {step.command()}")
            if step.hint:
                typer.echo(f"    {step.hint}")
    for line in filter(None, [missing_space(job)]):
        typer.echo(f"cannot begin: {line}")
    for line in left_out(job):
        typer.echo(f"left out: {line}")
    typer.echo(f"then: {job.results / 'table.md'}")


def _split_file(text: str) -> tuple[str, Path]:
    name, separator, file = text.partition("=")
    if not (name and separator and file):
        raise ConfigError(f"--splits takes DATA=FILE, such as colon=splits.json, not {text!r}")
    return name, Path(file)
