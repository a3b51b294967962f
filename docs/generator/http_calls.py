"""The page of the server's calls, from the OpenAPI document that the server itself gives."""

import tempfile
from pathlib import Path
from typing import Any

from clickvol.server.app import create_app
from clickvol.server.settings import ServerSettings
from clickvol.weights.load import load_model

_GROUPS = {
    "/api/sessions": "Sessions",
    "/api": "About the server, terms, worklist",
    "/nninteractive": "nnInteractive's clients",
    "/u/": "SlicerNNInteractive",
    "/": "Other programs, probes and the page",
}


def http_page() -> str:
    """Return the page."""
    with tempfile.TemporaryDirectory() as folder:
        document = create_app(load_model(device="cpu"), ServerSettings(state_folder=Path(folder))).openapi()
    parts = ["# HTTP", f"{document['info']['description']} The same as a document: `GET /openapi.json`."]
    calls = [
        (_group(path), method.upper(), path, call)
        for path, methods in document["paths"].items()
        for method, call in methods.items()
    ]
    for title in _GROUPS.values():
        rows = [_row(method, path, call) for group, method, path, call in calls if group == title]
        parts += [f"## {title}", "\n".join(["| call | does | takes |", "|---|---|---|", *rows])]
    parts.append("## What is sent and answered")
    for name, schema in sorted(document["components"]["schemas"].items()):
        if schema.get("properties"):
            parts += [
                f"### {name}",
                schema.get("description", "").split("\nAttributes:")[0].strip(),
                _fields(schema),
            ]
    return "\n\n".join(parts) + "\n"


def _group(path: str) -> str:
    return next(title for start, title in _GROUPS.items() if path.startswith(start))


def _row(method: str, path: str, call: dict[str, Any]) -> str:
    query = [parameter["name"] for parameter in call.get("parameters", []) if parameter["in"] == "query"]
    bodies = [_name(content["schema"]) for content in call.get("requestBody", {}).get("content", {}).values()]
    takes = ", ".join([*(f"`?{name}`" for name in query), *(body for body in bodies if body)])
    text = " ".join((call.get("description") or call.get("summary") or "").split()).replace("|", "\\|")
    return f"| `{method} {path.replace('{session_id}', 'ID')}` | {text} | {takes} |"


def _name(schema: dict[str, Any]) -> str:  # noqa: PLR0911  # one for each form of a schema
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    options = schema.get("anyOf") or schema.get("oneOf")
    if options:
        return " or ".join(dict.fromkeys(_name(option) for option in options if option.get("type") != "null"))
    if schema.get("type") == "array":
        return f"list of {_name(schema.get('items', {}))}"
    if "const" in schema:
        return f'`"{schema["const"]}"`'
    if "enum" in schema:
        return " or ".join(f'`"{value}"`' for value in schema["enum"])
    if schema.get("type") == "object" and schema.get("properties"):
        return "form: " + ", ".join(f"`{name}`" for name in schema["properties"])
    return str(schema.get("format", schema.get("type", "")))


def _fields(schema: dict[str, Any]) -> str:
    needed = schema.get("required", [])
    rows = [
        f"| `{name}` | {_name(field)} | {'yes' if name in needed else ''} |"
        for name, field in schema["properties"].items()
    ]
    return "\n".join(["| field | is | always there |", "|---|---|---|", *rows])
