"""`clickvol info`: what this machine and this installation can do."""

import json

import typer

from clickvol.cli.options import AsJson


def info(*, as_json: AsJson = False) -> None:
    """Show versions, devices, threads, instruction sets and models; for bug reports."""
    from clickvol.weights.installation import describe_installation

    facts = describe_installation()
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    for name, fact in facts.items():
        if isinstance(fact, dict):
            # What is missing has a line of its own, to be copied.
            between = ("\n" + " " * 18, ": ") if name == "extras" else (", ", " ")
            text = between[0].join(f"{key}{between[1]}{value}" for key, value in fact.items())
        else:
            text = ", ".join(map(str, fact)) if isinstance(fact, list) else str(fact)
        typer.echo(f"{name.replace('_', ' '):<18}{text or 'none'}")
