"""`clickvol models text-bank`: the two text embeddings that TAGS is trained with, as a file."""

from pathlib import Path
from typing import Annotated

import typer


def make_bank(
    *,
    object_word: Annotated[
        str, typer.Option("--object", metavar="WORD", help="What the texts call it: kidney, liver.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="A .safetensors.")],
    encoder: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="A text encoder as transformers keeps it; CLIP's tower in the cache when not given.",
        ),
    ] = None,
) -> None:
    """Encode 476 sentences about a healthy and a diseased organ; nothing is downloaded.

    The file is what tags.text_file of a training configuration names.
    """
    from clickvol.errors import OutputError
    from clickvol.image_encoders.text_bank import make_text_bank
    from clickvol.weights.text_bank_file import write_text_bank
    from clickvol.weights.text_tower import local_text_encoder

    if not output.absolute().parent.is_dir():
        raise OutputError(f"the folder of {output} does not exist; make it, or choose another place")
    encode, name = local_text_encoder(encoder)
    bank = make_text_bank(encode, object_word, name)
    write_text_bank(bank, output)
    cosine = float(bank.columns[:, 0] @ bank.columns[:, 1])
    typer.echo(f"{output}: texts about {bank.object_word!r} by {name}")
    typer.echo(f"{bank.width} values each, cosine of healthy and tumour {cosine:.3f}")
