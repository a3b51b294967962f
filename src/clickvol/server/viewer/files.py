"""The viewer's own files."""

from pathlib import Path

from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

VIEWER_FOLDER = Path(__file__).parents[2] / "viewer"

# Told by us, because browsers refuse a script of another type and some systems have odd tables.
_TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}


class ViewerFiles(StaticFiles):
    """Hands out the files of the viewer's folder and nothing else."""

    def __init__(self) -> None:
        super().__init__(directory=VIEWER_FOLDER, check_dir=False)

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return a file with its type."""
        response = await super().get_response(path, scope)
        kind = _TYPES.get(Path(path).suffix)
        if kind is not None and response.status_code == 200:
            response.headers["Content-Type"] = kind
        return response
