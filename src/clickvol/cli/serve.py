"""`clickvol serve`: clicks over HTTP, for the viewer in a browser, scripts, 3D Slicer and OHIF."""

import contextlib
import os
import secrets
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from clickvol.cli.options import DeviceName, ModelName, ProposerName
from clickvol.errors import ConfigError

TOKEN_VARIABLE = "CLICKVOL_TOKEN"

_Root = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Scans under it may be opened by path; else uploads only.")
]
_DicomWeb = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="Archive whose series OHIF and others may name: dicomweb://HOST[:PORT]/PATH."
    ),
]
_Labels = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Where MONAI Label's clients may save labels; every version stays."),
]
_StoreLabels = Annotated[
    bool, typer.Option("--store-labels", help="Store saved labels in the archive, too, as DICOM segmentations.")
]
_Host = Annotated[str, typer.Option(help="Address to listen on; another than loopback needs a token.")]
_Port = Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")]
_TokenFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help=f"Holds the token; or set {TOKEN_VARIABLE}.")
]
_HostNames = Annotated[
    list[str] | None, typer.Option(metavar="NAME", help="Further name of this server in browsers; repeatable.")
]
_Origins = Annotated[
    list[str] | None, typer.Option(metavar="URL", help="Other web page that may call, as OHIF; repeatable.")
]
_RootPath = Annotated[str, typer.Option(metavar="PATH", help="Below which a proxy has it, as /clickvol.")]
_Proxies = Annotated[
    list[str] | None,
    typer.Option(metavar="ADDRESS", help="Proxy or network of them that says who asks; repeatable."),
]
_Certificate = Annotated[
    Path | None, typer.Option("--tls-cert", metavar="FILE", help="PEM; serves HTTPS instead of HTTP.")
]
_Key = Annotated[Path | None, typer.Option("--tls-key", metavar="FILE", help="PEM, without a password.")]
_UploadSize = Annotated[int, typer.Option(min=1, metavar="MIB", help="Largest upload.")]
_VoxelCount = Annotated[int, typer.Option(min=1, metavar="N", help="Largest scan, after unpacking.")]
_SessionCount = Annotated[int, typer.Option(min=1, metavar="N", help="In memory; further ones wait on disk.")]
_Lease = Annotated[int, typer.Option(min=1, metavar="N", help="A session unused so long ends.")]
_Memory = Annotated[
    int, typer.Option(min=1, metavar="MIB", help="Of all sessions; beyond it the least used waits on disk.")
]
_StateFolder = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Where sessions are kept, to survive a restart.")
]
_LogFormat = Annotated[Literal["text", "json"], typer.Option(help="Of the line for each request.")]
_Worklist = Annotated[
    Path | None,
    typer.Option(
        metavar="MANIFEST.csv|FOLDER", help="Scans to annotate one after the other, as for clickvol view."
    ),
]
_WorklistOutput = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Where masks of the worklist go; beside it by default.")
]
_Quiet = Annotated[bool, typer.Option("--quiet", help="No line for each request.")]


def serve(
    *,
    root: _Root = None,
    worklist: _Worklist = None,
    worklist_output: _WorklistOutput = None,
    dicomweb: _DicomWeb = None,
    labels: _Labels = None,
    store_labels: _StoreLabels = False,
    host: _Host = "127.0.0.1",
    port: _Port = 8000,
    token_file: _TokenFile = None,
    allow_host: _HostNames = None,
    allow_origin: _Origins = None,
    root_path: _RootPath = "",
    trusted_proxy: _Proxies = None,
    tls_cert: _Certificate = None,
    tls_key: _Key = None,
    model: ModelName = None,
    propose: ProposerName = None,
    device: DeviceName = "auto",
    max_upload_mb: _UploadSize = 2048,
    max_voxels: _VoxelCount = 1 << 29,
    sessions: _SessionCount = 16,
    lease_minutes: _Lease = 30,
    memory_mb: _Memory = 4096,
    state_folder: _StateFolder = None,
    log_format: _LogFormat = "text",
    quiet: _Quiet = False,
) -> None:
    """Serve clicks, masks and the viewer, to this machine unless --host says otherwise. Research use only."""
    from clickvol.server.http.running import check_installed, log_to_stderr, run_server
    from clickvol.server.settings import ServerSettings, default_state_folder, is_loopback_name

    check_installed()
    is_made = (token := _token(token_file)) is None and not is_loopback_name(host)
    settings = ServerSettings(
        state_folder=(state_folder or default_state_folder()).absolute(),
        root=None if root is None else root.resolve(),
        **_worklist_places(worklist, worklist_output),
        **_of_archive(dicomweb, labels, store=store_labels),
        host=host,
        port=port,
        token=secrets.token_urlsafe(32) if is_made else token,
        allowed_hosts=tuple(allow_host or ()),
        allowed_origins=tuple(origin.rstrip("/") for origin in allow_origin or ()),
        root_path=root_path.rstrip("/"),
        trusted_proxies=tuple(trusted_proxy or ()),
        tls_certificate=tls_cert,
        tls_key=tls_key,
        max_upload_mb=max_upload_mb,
        max_voxels=max_voxels,
        max_sessions=sessions,
        lease_seconds=60 * lease_minutes,
        memory_mb=memory_mb,
    )
    if not quiet:
        log_to_stderr(as_json=log_format == "json")
    tell = partial(_say_where, token=settings.token if is_made else None)
    with contextlib.suppress(KeyboardInterrupt):  # the way that a server ends
        run_server(settings, model=model, device=device, on_ready=tell, propose=propose)


def _of_archive(address: str | None, labels: Path | None, *, store: bool) -> dict[str, Any]:
    return {"dicomweb": address, "labels": None if labels is None else labels.absolute(), "store_labels": store}


def _say_where(address: str, token: str | None) -> None:
    # The fragment never leaves the browser: the token is in no log.
    typer.echo(address if token is None else f"{address}#token={token}")
    typer.echo("Research use only, not a medical device. Ctrl-C ends it.", err=True)


def _worklist_places(source: Path | None, output: Path | None) -> dict[str, Any]:
    """Return the settings of a worklist, where its scans are and where its masks go; {} for none."""
    from clickvol.server.viewer.worklist import default_output

    if source is None:
        if output is not None:
            raise ConfigError("--worklist-output is for a worklist; give --worklist, too")
        return {}
    if not source.exists():
        raise ConfigError(
            f"there is no {source}; give a CSV file as for clickvol batch, or a folder with scans"
        )
    output = (output or default_output(source)).resolve()
    return {"worklist_source": source.resolve(), "worklist_output": output}


def _token(path: Path | None) -> str | None:
    """Return the token of the file or of the environment; None where there is none."""
    if path is None:
        return os.environ.get(TOKEN_VARIABLE) or None
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot read a token from {path}; give a text file with one line of ASCII characters"
        ) from error
