"""The weight stream: a policy's versions on their way from the trainer to a fleet. No torch: bytes and digests.

Follows the data:

    tensors   a version as tensors of bytes, its layout and its digests
    delta     what changed between two versions, lossless to the bit
    frames    a version as frames, and the stage in which frames become a verified version again
    server    versions to subscribers: whole, as a delta, or as a chain of them
    receiver  versions from any server of them, verified, for as long as the run lives
    relay     a receiver whose versions are served on while they arrive
    quantized what came in one byte an element, as engines hold it
    adapted   a base and its low-rank adapter, as one policy
    shards    the parts of several trainer ranks, and the whole again
    store     versions on disk: retention, pinning, export
"""

from perilune.weights.delta import Delta, make_delta
from perilune.weights.frames import Stage, frames
from perilune.weights.tensors import CHUNK_BYTES, RawTensor, State, manifest_of, state_digest

__all__ = ["CHUNK_BYTES", "Delta", "RawTensor", "Stage", "State", "frames", "make_delta", "manifest_of", "state_digest"]
