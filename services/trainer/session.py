"""A run on this trainer, without the network: where it starts, its iterations, its checkpoints.

Everything here is plain blocking code; the worker calls it from one thread of its own.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from perilune.api.master.v1.master_pb2 import ScoredGroup
from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion
from perilune.errors import InvalidInputError, StateError
from perilune.recipe import Recipe
from perilune.weights.store import VersionStore
from services.trainer.adapter import adapt, adapter_snapshot, base_path, factors, merged_state, peft_config, set_factors
from services.trainer.batch import Ages, Refused, read_group
from services.trainer.checkpoint import Checkpoints, TrainerState
from services.trainer.learner import Learner
from services.trainer.model import Policy, make_policy
from services.trainer.publisher import PublishedVersion, snapshot
from services.trainer.threads import use_threads
from services.trainer.warmup import warm_up

logger = logging.getLogger(__name__)


class Session:
    """The policy of one run between two versions, from where it starts to its last iteration."""

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        committed: PolicyVersion | None,
        should_stop: Callable[[], bool],
        on_warmup_step: Callable[[int, float], None] = lambda step, loss: None,
        versions: Collection[PolicyVersion] = (),
    ) -> None:
        """Takes up the run at its newest checkpoint, at most one version after the committed one, or starts it.

        Args:
            folder: of the run; its checkpoints lie in `checkpoints` there.
            committed: the newest version that the master knows.
            should_stop: asked between steps.
            on_warmup_step: told each warm-up step's number and loss.
            versions: all that were committed, whose samples may still come.

        Raises:
            InterruptedTraining: should_stop said so.
            StateError: versions are committed, and no checkpoint of them is here.
            PeriluneError: the model or its traces cannot be had, as the message says.
        """
        self.recipe = recipe
        self._checkpoints = Checkpoints(folder / "checkpoints")
        self.versions = versions_of(recipe, folder)
        self._should_stop = should_stop
        self._origin = origin_of(recipe)
        self._adapter = recipe.trainer.adapter
        self.base: PublishedVersion | None = None  # what the adapter changes, where only that is trained
        self._known_digests = {version.digest for version in (*versions, *([committed] if committed else ()))}
        self.refused: list[Refused] = []  # of the batch that the current version was made from
        use_threads(recipe.trainer.num_threads)
        newest = self._checkpoints.newest(at_most=committed.number + 1 if committed else 0)
        if newest is not None:
            self._restore(newest)
        elif committed is None:
            self._start(on_warmup_step)
        else:
            raise StateError(
                f"version {committed.number} is committed, and {self._checkpoints.folder} holds no checkpoint of it or "
                "of one before; start this trainer with the PERILUNE_HOME that the run was trained in"
            )
        self.published = self._snapshot(before=None)

    def train(self, messages: Sequence[ScoredGroup]) -> PublishedVersion:
        """One iteration: the batch of the current version in, the next version out.

        InvalidInputError if nothing of the batch can be trained on.
        """
        ages = Ages.of(self.recipe, self.published.policy)
        vocab_size = self._learner.policy.model.config.get_text_config().vocab_size
        groups = [read_group(message, ages, self._known_digests, vocab_size) for message in messages]
        refused = [sample for group in groups for sample in group.refused]
        self._tell_refused(refused, num_samples=sum(len(message.samples) for message in messages))
        accepted = [group for group in groups if group.samples]
        self.metrics = self._learner.train(self.number, accepted, self._should_stop)
        self.metrics["num_refused"] = float(len(refused))
        self.refused = refused
        self.number += 1
        self.published = self._snapshot(before=self.published)
        return self.published

    def checkpoint(self) -> None:
        """Keeps the current version to go back to, and writes its checkpoint where that is due and was not done."""
        self.versions.add(self.published.state, self.published.delta, self.published.model_files)
        if self.number != self._written and self._is_due:
            self._save()

    def _tell_refused(self, refused: Sequence[Refused], num_samples: int) -> None:
        for sample in refused:
            logger.warning("sample %d of %s is set aside: %s", sample.sample_index, sample.group_id, sample.reason)
        if refused and len(refused) == num_samples:
            (reason, _), *_ = Counter(sample.reason for sample in refused).most_common(1)
            raise InvalidInputError(f"every sample of iteration {self.number} was refused; most often: {reason}")

    def tensors(self) -> list[Tensor]:
        """What training keeps on the device between two batches: weights and the optimiser's state."""
        model, states = self._learner.policy.model, self._learner.optimizer.state.values()
        moments = [value for state in states for value in state.values() if isinstance(value, Tensor)]
        return [*model.parameters(), *model.buffers(), *moments]

    @property
    def is_last(self) -> bool:
        return self.number == self.recipe.trainer.num_iterations

    @property
    def model_path(self) -> str:
        """The folder of the current version's checkpoint; empty if it gets none."""
        return str(self._checkpoints.path_of(self.number).resolve()) if self._is_due else ""

    @property
    def _is_due(self) -> bool:
        return self.number % self.recipe.trainer.checkpoint_every == 0 or self.is_last

    def _start(self, on_warmup_step: Callable[[int, float], None]) -> None:
        started = time.perf_counter()
        policy = make_policy(self.recipe)
        loss = warm_up(policy, self.recipe, self._should_stop, on_warmup_step)
        self._take_policy(policy)
        self.number = 0
        self.metrics = {
            "num_parameters": float(policy.model.num_parameters()),
            "start_seconds": time.perf_counter() - started,
        }
        if not math.isnan(loss):
            self.metrics["warmup_loss"] = loss
        self._save()

    def _restore(self, number: int) -> None:
        logger.info("resuming from %s", self._checkpoints.path_of(number))
        policy, state = self._checkpoints.load(number, self._origin, is_adapted=self._adapter is not None)
        self._take_policy(policy)
        set_factors(policy.model, state.adapter)
        self._learner.optimizer.load_state_dict(state.optimizer)
        self.number, self.metrics = state.number, state.metrics
        self._written = state.number
        self._known_digests.update(state.published_digests)
        self.refused = [Refused(**sample) for sample in state.refused]

    def _take_policy(self, policy: Policy) -> None:
        """What is trained from now on: all of it, or an adapter."""
        if self._adapter is not None:
            self.base = self._plain_snapshot(policy, 0, before=None)
            adapt(policy.model, self._adapter, self.recipe.seed)
        self._learner = Learner(policy, self.recipe)

    def _save(self) -> None:
        model = self._learner.policy.model
        state = TrainerState(
            number=self.number,
            origin=self._origin,
            metrics=self.metrics,
            published_digests=sorted(self._known_digests),
            optimizer=self._learner.optimizer.state_dict(),
            adapter=factors(model),
            refused=[asdict(sample) for sample in self.refused],
        )
        self._checkpoints.save(self._learner.policy, state, merged_state(model) if self._adapter else None)
        self._written = self.number

    def _snapshot(self, before: PublishedVersion | None) -> PublishedVersion:
        if self.number % self.recipe.weights.anchor_every == 0:
            before = None
        policy = self._learner.policy
        if self._adapter is not None and self.base is not None:
            config = peft_config(self._adapter, base_path(self.recipe, self._checkpoints.path_of(0)))
            version = adapter_snapshot(policy.model, self.number, self.base.policy, config)
        else:
            version = self._plain_snapshot(policy, self.number, before)
        self._known_digests.add(version.policy.digest)
        return version

    def _plain_snapshot(self, policy: Policy, number: int, before: PublishedVersion | None) -> PublishedVersion:
        return snapshot(policy, number, getattr(torch, self.recipe.model.dtype), before, self.recipe.weights.quantize)


def versions_of(recipe: Recipe, folder: Path) -> VersionStore:
    """The served versions that are kept of the run in this folder."""
    return VersionStore(folder / "versions", recipe.weights.num_kept)


def origin_of(recipe: Recipe) -> str:
    """A digest of what version 0 is made from: two recipes with the same one start alike."""
    parts = recipe.model_dump_json(include={"model", "warmup", "seed"})
    return hashlib.blake2b(parts.encode(), digest_size=16).hexdigest()
