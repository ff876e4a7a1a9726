"""The images of prompts for the page, by their digests: of what lies in the blob store, images and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from perilune.api.master.v1 import master_pb2
from perilune.errors import STATUS_OF_ERROR, InvalidInputError, NotFoundError, PeriluneError
from perilune.images import media_type_of
from perilune.runtime.auth import Gate
from perilune.runtime.blobs import Blobs
from perilune.runtime.http.face import identify
from perilune.runtime.http.problems import HTTP_STATUS

# A caller that may read samples may look at their images.
METHOD = f"{master_pb2.DESCRIPTOR.services_by_name['RunService'].full_name}/ListSamples"
# An image is shown and does nothing: no other page may use it, and nothing in it is run.
HEADERS = {
    "content-security-policy": "default-src 'none'; sandbox",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "private, max-age=31536000, immutable",  # the digest names these bytes
}


def image_route(blobs: Blobs, gate: Gate | None) -> Route:
    """The path `/images/DIGEST`, for those that may read runs."""
    return Route("/images/{digest}", _answering(blobs, gate), methods=["GET"])


def _answering(blobs: Blobs, gate: Gate | None) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        try:
            with identify(request, gate).call(METHOD):
                data = await blobs.get(request.path_params["digest"])
                media_type = await asyncio.to_thread(_image_type, data)
        except PeriluneError as error:
            status = next(STATUS_OF_ERROR[kind] for kind in type(error).__mro__ if kind in STATUS_OF_ERROR)
            return PlainTextResponse(str(error), HTTP_STATUS[status])
        return Response(data, media_type=media_type, headers=HEADERS)

    return answer


def _image_type(data: bytes) -> str:
    """The media type of an image. NotFoundError: the bytes are none."""
    try:
        return media_type_of(data)
    except InvalidInputError as error:
        raise NotFoundError(f"there is no image of that digest: {error}") from error
