"""The images of a batch: fetched by their digests, and made into pixels again by the policy's own processor."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from perilune.api.master.v1.master_pb2 import ScoredGroup
from perilune.api.trajectory.v1.trajectory_pb2 import Trajectory
from perilune.codec import unpack
from perilune.errors import InvalidInputError, NotFoundError, UnavailableError
from perilune.models.vision import PlacedImage, VisionReader
from perilune.runtime.images import ImageCache

logger = logging.getLogger(__name__)

AT_ONCE = 16  # images that are fetched together
RETRY_S, MAX_RETRY_S = 0.5, 10.0

Found = Mapping[str, bytes | str]  # an image's bytes, or why they are not there, by its digest


@dataclass(frozen=True)
class BatchImages:
    """Images by their digests, and the processor that reads them; None for a policy that reads text alone."""

    vision: VisionReader | None = None
    found: Found = field(default_factory=dict)

    def placed(self, sample: Trajectory) -> tuple[PlacedImage, ...]:
        """The images of a sample's prompt, in their places. InvalidInputError if they are not what the engine saw."""
        images = sample.prompt.images
        if not images and self.vision is None:
            return ()
        if self.vision is None:
            raise InvalidInputError(f"sample {sample.id} has images, and the policy reads text only")
        if images and sample.processor != self.vision.version:
            raise InvalidInputError(
                f"the images of sample {sample.id} were read by {sample.processor or 'no processor'}, and are read "
                f"here by {self.vision.version}: rollout workers and trainers need the same libraries"
            )
        seen = [self.vision.see(self._data(image.digest), image.digest) for image in images]
        return self.vision.place(unpack(sample.prompt_tokens).tolist(), seen)

    def _data(self, digest: str) -> bytes:
        data = self.found.get(digest, "it was not fetched")
        if isinstance(data, str):
            raise InvalidInputError(f"the image {digest[:16]} is not there: {data}")
        return data


async def fetch_images(batch: Sequence[ScoredGroup], cache: ImageCache) -> dict[str, bytes | str]:
    """The images of a batch's prompts. Waits for a store that does not answer; what it does not have is named."""
    digests = {image.digest for group in batch for scored in group.samples for image in scored.trajectory.prompt.images}
    places = asyncio.Semaphore(AT_ONCE)

    async def fetch(digest: str) -> bytes | str:
        async with places:
            return await _fetched(digest, cache)

    return dict(zip(digests, await asyncio.gather(*map(fetch, digests)), strict=True))


async def _fetched(digest: str, cache: ImageCache) -> bytes | str:
    delay = RETRY_S
    while True:
        try:
            return await cache.get(digest)
        except (NotFoundError, InvalidInputError) as error:
            return str(error)
        except UnavailableError as error:
            logger.warning("%s; trying again", error)
            await asyncio.sleep(delay)
            delay = min(2 * delay, MAX_RETRY_S)
