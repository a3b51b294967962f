"""What MkDocs runs while it builds the site: pages made from the code, and links that lead on from a page."""

import json
import posixpath
import re
from pathlib import Path

from commands import commands_page
from configuration import configuration_page
from http_calls import http_page
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from python_names import python_page

ROOT = Path(__file__).parents[2]

# Files above docs/ that are pages of the site, too.
PAGES_OF_FILES = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "project/architecture.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "CHANGELOG.md": "project/changelog.md",
    **{
        f"src/clickvol/weights/shipped/{name}.md": f"explanation/{name}.md"
        for name in ("promise3d-small", "promise3d-lesions", "data-sheet")
    },
}
GENERATED = {
    "reference/commands.md": commands_page,
    "reference/configuration.md": configuration_page,
    "reference/http.md": http_page,
    "reference/python.md": python_page,
}

_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]*)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are no files in docs/."""
    for source, page in PAGES_OF_FILES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    for page, make in GENERATED.items():
        files.append(File.generated(config, page, content=make()))
    for path in sorted((ROOT / "docs/notebooks").glob("*.ipynb")):
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=_notebook_page(path)))
    return files


def _notebook_page(path: Path) -> str:
    """Return the cells of a notebook, which is stored without outputs, as a page."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    texts = [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
    parts = [f"```python\n{text}\n```" if kind == "code" else text for kind, text in texts]
    return "\n\n".join([*parts, f"The notebook: `docs/notebooks/{path.name}`."]) + "\n"


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Lead links, which are those of the repository, to the pages of the site.

    A link to what is not in docs/ becomes its text; one that is named after a document gets that one's title.
    """
    source = next((s for s, p in PAGES_OF_FILES.items() if p == page.file.src_uri), f"docs/{page.file.src_uri}")

    def led(match: re.Match[str]) -> str:
        image, text, target, fragment = match.group(1), match.group(2), match.group(3), match.group(4) or ""
        if not target or re.match(r"[a-z]+:", target):
            return match.group(0)
        in_repository = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        uri = PAGES_OF_FILES.get(in_repository, in_repository.removeprefix("docs/"))
        uri = uri.replace(".ipynb", ".md")
        file = files.get_file_from_path(uri)
        if file is None:
            return text if not in_repository.startswith("docs/") else match.group(0)
        if text == posixpath.basename(target):
            text = _title(file)
        here = posixpath.dirname(page.file.src_uri)
        return f"{image}[{text}]({posixpath.relpath(uri, here or '.')}{fragment})"

    return _LINK.sub(led, markdown)


def _title(file: File) -> str:
    (first,) = re.findall(r"\A# (.+)", file.content_string) or [file.src_uri]
    return str(first)
