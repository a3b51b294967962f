"""The signatures of all that `clickvol` exports, one a line, as its source has them.

`python -m reference.public_signatures` in `tests/` writes them down; CHANGELOG.md then names their digest.
"""

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Iterator
from pathlib import Path

import clickvol
from clickvol import errors

SNAPSHOT = Path(__file__).with_name("public_signatures.txt")


def public_signatures() -> str:
    """Return a line per function, class, field, property and method, those of one public name together."""
    lines = []
    for name in sorted(clickvol.__all__):
        value = getattr(clickvol, name)
        if isinstance(value, type):
            lines += [f"class {name}", *_members(name, value)]
        elif callable(value):
            (function,) = ast.parse(inspect.getsource(value)).body
            lines.append(_function(name, function))
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and name != "ClickvolError":
            lines.append(f"class {name}({', '.join(base.__name__ for base in kind.__bases__)})")
    return "\n".join(lines) + "\n"


def digest(signatures: str) -> str:
    """Return eight letters that stand for them."""
    return hashlib.sha256(signatures.encode()).hexdigest()[:8]


def _members(name: str, kind: type) -> Iterator[str]:
    seen = set()
    for each in kind.__mro__:
        if not each.__module__.startswith("clickvol"):
            continue
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(each))).body
        for node in definition.body:
            target = getattr(node, "target", getattr(node, "targets", [ast.Name("_")])[0])
            member = getattr(node, "name", None) or ast.unparse(target)
            if member in seen or (member.startswith("_") and member != "__init__"):
                continue
            seen.add(member)
            if isinstance(node, ast.FunctionDef):
                yield _function(f"{name}.{member}", node)
            elif isinstance(node, ast.AnnAssign | ast.Assign) and member != "_":
                yield f"{name}.{ast.unparse(node)}"


def _function(name: str, node: ast.FunctionDef) -> str:
    marks = [ast.unparse(mark) for mark in node.decorator_list]
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    if "property" in marks:
        return f"property {name}{returns}"
    kind = "classmethod " if "classmethod" in marks else "def "
    return f"{kind}{name}({ast.unparse(node.args)}){returns}"


if __name__ == "__main__":
    SNAPSHOT.write_text(public_signatures(), encoding="utf-8")
    print(f"public signatures {digest(public_signatures())}")  # noqa: T201
