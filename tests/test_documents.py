"""What the documents name is there: modules, files and other documents."""

import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
FILES = [
    path.relative_to(ROOT).as_posix()
    for folder in ("src", "tests", "benchmarks", "configs")
    for path in (ROOT / folder).rglob("*.*")
]

# A changelog also names what there was; CONTRIBUTING says with these two how tests mirror modules.
HISTORY = ("CHANGELOG.md",)
PLACEHOLDERS = ("src/clickvol/a/b.py", "tests/a/test_b.py")


def missing_files(text):
    """Return the files in a text that are not there; `weights/load.py` may stand below any folder."""
    named = re.findall(r"`([\w*][\w./*-]*/[\w*]+\.(?:py|js))`", text)
    return [
        name
        for name in named
        if name not in PLACEHOLDERS and not any(fnmatch(f"/{file}", f"*/{name}") for file in FILES)
    ]


def test_a_file_that_is_not_there_would_be_seen():
    assert missing_files("`weights/load.py`, `weights/loud.py`, `weights/official_*.py`") == [
        "weights/loud.py",
        "weights/official_*.py",
    ]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_files_that_a_document_names_are_there(document):
    if document.name not in HISTORY:
        assert missing_files(document.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_links_of_a_document_lead_somewhere(document):
    links = re.findall(r"\]\((?!https?:)([^)#\s]+)[^)]*\)", document.read_text(encoding="utf-8"))
    assert [link for link in links if not (document.parent / link).exists()] == []
