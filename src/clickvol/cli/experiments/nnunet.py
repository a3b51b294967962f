"""`clickvol nnunet`: the real nnU-Net in an environment of its own, on our data, split and scans."""

from pathlib import Path
from typing import Annotated

import typer

nnunet = typer.Typer(
    help="Train and predict with the real nnU-Net, as a baseline; see docs/how-to/nnunet.md.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

_VENV = typer.Option("--venv", metavar="DIR", help="nnU-Net's own virtual environment.")


@nnunet.command("setup")
def set_up(
    *,
    venv: Annotated[Path, _VENV],
    python: Annotated[
        str | None,
        typer.Option(metavar="PROGRAM", help="Make it with this Python; the present one if not given."),
    ] = None,
    pip_arguments: Annotated[
        list[str] | None,
        typer.Option(
            "--pip-argument",
            metavar="WORD",
            help="Give pip this word; repeatable: --pip-argument=--index-url=URL.",
        ),
    ] = None,
) -> None:
    """Install nnU-Net into a virtual environment of its own (about 2 GB); nothing goes into this one."""
    from clickvol.bridges.nnunet_environment import make_environment
    from clickvol.cli.progress import show_stages
    from clickvol.weights.cache import is_offline

    with show_stages(quiet=False) as on_stage:
        made = make_environment(
            venv, python=python, pip_arguments=pip_arguments or [], offline=is_offline(), on_stage=on_stage
        )
    gpu = "with a GPU" if made.has_cuda else "no GPU"
    typer.echo(f"{venv}: nnunetv2 {made.nnunet_version}, torch {made.torch_version}, {gpu}")


_DATA = typer.Option("--data", metavar="DIR", help="From `clickvol data prepare`.")
_OUTPUT = typer.Option("-o", "--output", metavar="DIR", help="Gets everything of this run.")
_CONFIGURATION = typer.Option(metavar="NAME", help="2d, 3d_fullres or 3d_lowres.")
_EPOCHS = typer.Option(metavar="N", help="Length of the training.")
_ITERATIONS = typer.Option(metavar="N", help="Training steps in one epoch.")
_FOLD = typer.Option(metavar="N", help="Of the prepared data.")
_MEMORY = typer.Option(
    metavar="GB", help="GPU memory that patch and batch are planned for; nnU-Net's own if not given."
)
_MIRRORING = typer.Option(
    "--mirroring/--no-mirroring",
    help="Average the predictions of mirrored copies, as nnU-Net does; eight times the work.",
)
_DEVICE = typer.Option(metavar="NAME", help="cpu or cuda; a GPU where there is one.")
_WORKERS = typer.Option(metavar="N", min=1, help="Processes that load and write scans.")


@nnunet.command("run")
def run(
    *,
    data: Annotated[Path, _DATA],
    venv: Annotated[Path, _VENV],
    output: Annotated[Path, _OUTPUT],
    configuration: Annotated[str, _CONFIGURATION] = "3d_fullres",
    epochs: Annotated[int, _EPOCHS] = 1000,
    iterations_per_epoch: Annotated[int, _ITERATIONS] = 250,
    fold: Annotated[int, _FOLD] = 0,
    memory_gb: Annotated[float | None, _MEMORY] = None,
    mirroring: Annotated[bool, _MIRRORING] = True,
    device: Annotated[str | None, _DEVICE] = None,
    workers: Annotated[int, _WORKERS] = 1,
) -> None:
    """Export, plan, train and predict the test scans; goes on where it was stopped.

    The masks come to OUTPUT/predictions, which `clickvol evaluate predictions:OUTPUT/predictions` scores.
    """
    from clickvol.bridges.nnunet_environment import check_environment
    from clickvol.bridges.nnunet_run import NnunetRun, NnunetSettings, choose_nnunet_device, run_nnunet
    from clickvol.cli.progress import show_stages
    from clickvol.datasets.prepared import read_prepared_set

    settings = NnunetSettings(
        configuration=configuration,
        epochs=epochs,
        iterations_per_epoch=iterations_per_epoch,
        fold=fold,
        memory_gb=memory_gb,
        mirroring=mirroring,
    )
    prepared = read_prepared_set(data)
    environment = check_environment(venv)
    with show_stages(quiet=False) as on_stage:
        job = NnunetRun(
            folder=output.absolute(),
            environment=environment,
            settings=settings,
            device=choose_nnunet_device(device, environment),
            workers=workers,
            on_stage=on_stage,
        )
        masks = run_nnunet(prepared, job)
    typer.echo(f"{len(masks)} masks in {output / 'predictions'}; score them with")
    typer.echo(f"  clickvol evaluate predictions:{output / 'predictions'} --data {data} -o REPORT")
