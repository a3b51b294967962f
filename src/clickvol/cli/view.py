"""`clickvol view`: a scan in the browser, to click in."""

from pathlib import Path
from typing import Annotated

import typer

from clickvol.cli.options import DeviceName, ModelName, ProposerName, SeriesName
from clickvol.errors import ConfigError, UnreadableVolumeError

_HOST = "127.0.0.1"
_TOKEN_BYTES = 24


_ScanPath = Annotated[
    Path | None,
    typer.Argument(
        metavar="[SCAN|MANIFEST.csv|FOLDER]",
        help=(
            "A .nii, .nii.gz, .nrrd or .mha file, a folder with a DICOM series, or a zip of one; or several: "
            "a CSV file as for batch, or a folder with scans. Without it, drop a file into the page."
        ),
    ),
]
_Port = Annotated[int, typer.Option(min=0, max=65535, help="Port on this machine; 0 takes a free one.")]
_NoBrowser = Annotated[bool, typer.Option("--no-browser", help="Print the address and open nothing.")]
_StateFolder = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Where clicks are kept; a folder of this user by default.")
]
_Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", metavar="DIR", help="Of several scans: where masks go; beside them by default."
    ),
]


def view(
    *,
    scan: _ScanPath = None,
    output: _Output = None,
    port: _Port = 0,
    no_browser: _NoBrowser = False,
    series: SeriesName = None,
    model: ModelName = None,
    propose: ProposerName = None,
    device: DeviceName = "auto",
    state_folder: _StateFolder = None,
) -> None:
    """Open a scan, or one after the other, in the browser: click the tumour, correct, save. Ctrl-C ends it.

    Only this machine can reach the page, and only with the address that is printed.
    Research use only, not a medical device.
    """
    import secrets
    import webbrowser
    from urllib.parse import urlencode

    from clickvol.server.http.running import check_installed, run_server
    from clickvol.server.settings import ServerSettings, default_state_folder

    check_installed()
    from clickvol.server.viewer.worklist import default_output, is_worklist

    root = root_of(scan)
    source = scan.resolve() if scan and not series and is_worklist(scan) else None
    if output is not None and source is None:
        raise ConfigError("--output is for several scans; save this one in the page")
    settings = ServerSettings(
        state_folder=(state_folder or default_state_folder()).absolute(),
        root=root,
        start_path=scan.resolve() if scan and source is None else None,
        worklist_source=source,
        worklist_output=source and (output or default_output(source)).resolve(),
        host=_HOST,
        port=port,
        token=secrets.token_urlsafe(_TOKEN_BYTES),
    )
    # Behind the #, where browsers keep it to themselves.
    told = {"token": settings.token} | ({"series": series} if series else {})

    def tell(address: str) -> None:
        address = f"{address}#{urlencode(told)}"
        typer.echo(f"{address}\nOpen this address in a browser on this machine; Ctrl-C ends it.")
        if not no_browser:
            webbrowser.open(address)

    typer.echo("starting ...", err=True)
    try:
        run_server(settings, model=model, device=device, on_ready=tell, propose=propose)
    except KeyboardInterrupt:  # the way that a user ends it
        typer.echo("closed; opening the scan again offers the clicks", err=True)


def root_of(scan: Path | None) -> Path:
    """Return the folder whose scans the page may open: that of the scan, else the present one."""
    if scan is None:
        return Path.cwd()
    if not scan.exists():
        raise UnreadableVolumeError(f"there is no {scan}; give a scan, or a folder with a DICOM series")
    place = scan.resolve()
    return place if place.is_dir() else place.parent
