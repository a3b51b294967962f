"""`clickvol replay`: the record of a session and its scan in, the same mask again out."""

from pathlib import Path
from typing import Annotated

import typer

from clickvol.cli.options import DeviceName, SeriesName, VolumeNumber

_LogPath = Annotated[Path, typer.Argument(metavar="LOG", help="The .jsonl file that a session wrote.")]
_ScanPath = Annotated[
    Path,
    typer.Argument(
        metavar="SCAN", help="The scan that was clicked, in any format; a record holds its hash, not its name."
    ),
]
_MaskPath = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="MASK", help="Where the label map goes.")
]
_ObjectId = Annotated[
    int | None, typer.Option("--object", metavar="N", help="Write one object as 0 and 1 instead.")
]
_OrganMaskPath = Annotated[
    Path | None, typer.Option(metavar="FILE", help="The organ mask, where there was one.")
]
_ModelName = Annotated[
    str | None, typer.Option(metavar="ID|PATH", help="Which model; the one of the record when not given.")
]


def replay(
    *,
    log: _LogPath,
    scan: _ScanPath,
    output: _MaskPath = None,
    object_id: _ObjectId = None,
    series: SeriesName = None,
    volume_index: VolumeNumber = None,
    organ_mask: _OrganMaskPath = None,
    model: _ModelName = None,
    device: DeviceName = "auto",
) -> None:
    """Repeat a session, and tell whether every mask is the same to the bit.

    The exit code is 0 only when all are.
    """
    from clickvol.errors import ConfigError
    from clickvol.interactive.record import read_record
    from clickvol.interactive.replay import replay_record
    from clickvol.io.formats import check_output_path, read_volume, write_mask
    from clickvol.weights.load import load_model

    if output is not None:
        check_output_path(output, scan)
    header = read_record(log).header
    volume = read_volume(scan, series=series, volume_index=volume_index)
    organ = None if organ_mask is None else read_volume(organ_mask)
    loaded = load_model(model or header.model_id, device=device)
    if loaded.device.type == "cpu":
        import torch

        # Another number of threads adds up in another order.
        torch.set_num_threads(header.num_threads)
    done = replay_record(log, volume, loaded, organ_mask=organ)
    if output is not None:
        write_mask(done.mask(object_id), output)
    for known in done.objects:
        state = ", frozen" if known.frozen else ""
        named = f" {known.name!r}" if known.name else ""
        typer.echo(f"object {known.id}{named}: {known.volume_ml:.1f} ml, {len(known.clicks)} clicks{state}")
    same = done.num_answers - len(done.differing)
    typer.echo(f"{same} of {done.num_answers} masks are the same to the bit")
    if done.differing:
        clicks = ", ".join(map(str, done.differing))
        why = f" ({'; '.join(done.conditions)})" if done.conditions else ""
        raise ConfigError(f"the masks of the clicks {clicks} differ from those of the record{why}")
