"""The web page: static files that read the API which this server has beside them (RunService over HTTP/JSON).

No build step and no package: HTML, one style sheet and ES modules, served as they lie in `static/`. The page holds no
state of its own; whatever it shows, `perilune run show` can say too.
"""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from perilune.runtime.auth import Gate
from perilune.runtime.blobs import Blobs
from services.master.web.images import image_route

STATIC = Path(__file__).parent / "static"
# The page loads what this server sends and talks to this server alone; no other page may put it into a frame.
HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",  # asked again each time, sent again only if it changed
}


def page_routes(blobs: Blobs, gate: Gate | None) -> list[BaseRoute]:
    """The page at `/`, its files under `/web/`, and the images of prompts under `/images/`."""
    return [Route("/", _index), Mount("/web", _Files(directory=STATIC)), image_route(blobs, gate)]


async def _index(request: Request) -> Response:
    return FileResponse(STATIC / "index.html", headers=HEADERS)


class _Files(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(HEADERS)
        return response
