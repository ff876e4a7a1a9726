"""A node of the tree: what it receives it serves on, frame by frame, while it arrives.

A worker or `perilune serve relay` has one. Each node verifies for itself and hands out nothing that it found wrong;
those below verify too, so a relay need not be trusted.
"""

from __future__ import annotations

from perilune.weights.adapted import STREAM, AdaptedReceiver
from perilune.weights.receiver import Receiver
from perilune.weights.server import Stream, WeightServer
from perilune.weights.shards import ShardedReceiver


class Relay(WeightServer):
    """Serves WeightService for all runs that this node receives."""

    def receiver(self, run_id: str, worker_id: str, adapter: str = "", rank: int = 0) -> Receiver:
        """A receiver whose versions are served on. Ends with `leave`."""
        return Receiver(run_id, worker_id, adapter, self.stream_of(run_id, adapter, rank), rank)

    def policy_receiver(self, run_id: str, worker_id: str, is_adapted: bool) -> ShardedReceiver | AdaptedReceiver:
        """Makes a receiver for a sampler: base and adapter, or the parts of a trainer's ranks, as one policy."""
        if is_adapted:
            return AdaptedReceiver(self.receiver(run_id, worker_id), self.receiver(run_id, worker_id, STREAM))
        return ShardedReceiver(lambda rank: self.receiver(run_id, worker_id, rank=rank))

    def leave(self, run_id: str) -> None:
        """Serves the run no more."""
        for key in [key for key in self._streams if key[0] == run_id]:
            self._streams.pop(key).close()

    def stream_of(self, run_id: str, adapter: str = "", rank: int = 0) -> Stream:
        """A run that is not known yet is about to be: those below may hear of it first."""
        return self._streams.setdefault((run_id, adapter, rank), Stream(leads=False))
