"""A run on this trainer, without the network: where it starts, its iterations, its checkpoints.

Everything here is plain blocking code; the worker calls it from one thread of its own. Of several ranks each has a
session; the first one's is the run's, and what it does with the others it orders of theirs (`ranks.py`).
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor

from perilune.api.master.v1.master_pb2 import ScoredGroup
from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion
from perilune.errors import InvalidInputError, NoRoomError, StateError
from perilune.models.attention import attention_of
from perilune.models.device import CPU, Device, check_precision
from perilune.models.files import build_tokenizer, end_tokens
from perilune.models.response_text import ResponseText
from perilune.recipe import Recipe, StageTable
from perilune.weights.choice import Measured
from perilune.weights.store import VersionStore
from services.trainer.batch import Ages, Refused, read_group
from services.trainer.images import BatchImages, Found
from services.trainer.learner import Learner, never
from services.trainer.policy.adapter import adapt, check_targets, factors, merged_state, set_factors
from services.trainer.policy.frozen import frozen_policy
from services.trainer.policy.layers import freeze_encoder, recompute_layers
from services.trainer.policy.model import Policy
from services.trainer.policy.passes import use_tensor_cores
from services.trainer.policy.sources import hollow_policy, make_policy
from services.trainer.policy.threads import use_threads
from services.trainer.ranks.group import Ranks, by_all_ranks
from services.trainer.ranks.sharding import outline, sharded_optimizer_state, whole_optimizer_state, whole_state
from services.trainer.stages.progress import ProgressFile
from services.trainer.stages.runner import OnStep, run_stages, unheard
from services.trainer.versions.adapter_version import adapter_snapshot, base_path, peft_config
from services.trainer.versions.background import BackgroundWriter
from services.trainer.versions.checkpoint import Checkpoints, TrainerState
from services.trainer.versions.origin import origin_of
from services.trainer.versions.rank_version import rank_snapshot
from services.trainer.versions.room import is_full
from services.trainer.versions.snapshot import PublishedVersion, snapshot

logger = logging.getLogger(__name__)

PROGRESS_FILE = "stage.pt"
FOLLOW = "follow"  # the order to take up a run


@dataclass(frozen=True)
class StartingPoint:
    """The policy and state that a session takes up its run from."""

    policy: Policy
    state: TrainerState
    is_new: bool  # there is no checkpoint of it yet
    frozen: Policy | None = None  # that the objective compares with, where that is another model


class Session:
    """The policy of one run between two versions, from where it starts to its last iteration."""

    def __init__(
        self,
        recipe: Recipe,
        start: StartingPoint,
        folder: Path,
        should_stop: Callable[[], bool] = never,
        ranks: Ranks | None = None,
    ) -> None:
        """See `open`, which makes the first rank's, and `follow`, for the others'."""
        policy, state = start.policy, start.state
        self.recipe = recipe
        self.ranks = ranks or Ranks()
        check_precision(self.ranks.device, recipe.trainer.precision)
        use_tensor_cores(self.ranks.device)
        place, attention = self.ranks.device.in_words(), attention_of(policy.model)
        logger.info("trains on %s, attention %s, %s", place, attention, recipe.trainer.precision)
        self.number, self.metrics = state.number, state.metrics
        self.refused = [Refused(**sample) for sample in state.refused]  # of the batch that made the current version
        self.measured = Measured()  # how fast versions are sent and written as deltas
        self.base: PublishedVersion | None = None  # what the adapter changes, where only that is trained
        self._checkpoints = _checkpoints_of(folder)
        self._folder = folder
        self._writer = BackgroundWriter() if self.ranks.device.card and self.ranks.leads else None
        self._versions = versions_of(recipe, folder, self.ranks)
        self._should_stop = should_stop
        self._adapter = recipe.trainer.adapter
        self._known_digests = set(state.published_digests)
        if self._adapter is not None:  # what is trained from now on: that, or all of the policy
            self.base = self._plain_snapshot(policy, 0, before=None)
            adapt(policy.model, self._adapter, recipe.seed)
        if recipe.trainer.image_encoder == "frozen":
            freeze_encoder(policy.model)
        self._learner = Learner(policy, recipe, self.ranks, start.frozen)
        if start.is_new:
            self._save()
        else:
            self._written = state.number
            set_factors(policy.model, state.adapter)
            moments = sharded_optimizer_state(state.optimizer, list(policy.model.parameters()))
            self._learner.optimizer.load_state_dict(moments)
        self.published = self._snapshot(before=None)

    @classmethod
    def open(
        cls,
        recipe: Recipe,
        folder: Path,
        committed: PolicyVersion | None,
        should_stop: Callable[[], bool],
        on_step: OnStep = unheard,
        versions: Collection[PolicyVersion] = (),
        ranks: Ranks | None = None,
    ) -> Session:
        """Takes up the run at its newest checkpoint, at most one version after the committed one, or starts it.

        Args:
            folder: of the run; its checkpoints lie in `checkpoints` there.
            committed: the newest version that the master knows.
            should_stop: asked between steps.
            on_step: called after every step of a stage.
            versions: all that were committed, whose samples may still come.
            ranks: those that train together, of which this is the first one; the others are ordered to follow.

        Raises:
            InterruptedTraining: should_stop said so.
            StateError: versions are committed, and no checkpoint of them is here.
            InvalidInputError: several ranks are to train an adapter, or a stage after RL.
            PeriluneError: the model or a stage's data cannot be used, as the message says.
        """
        if recipe.trainer.adapter and ranks and ranks.size > 1:
            raise InvalidInputError(
                f"trainer.adapter: a trainer of {ranks.size} ranks trains whole policies only; start one of one rank"
            )
        if ranks and ranks.size > 1 and (after := recipe.stages_at("after")):
            raise InvalidInputError(
                f"stages.{after[0][0]}.when: a trainer of {ranks.size} ranks runs no stages after reinforcement "
                "learning; start one of one rank"
            )
        use_threads(recipe.trainer.num_threads)
        device = ranks.device if ranks else CPU
        checkpoints = _checkpoints_of(folder)
        newest = checkpoints.newest(at_most=committed.number + 1 if committed else 0)
        if newest is not None:
            start = _found(recipe, checkpoints, newest, {version.digest for version in versions}, device)
        elif committed is None:
            start = _made(recipe, _progress_of(folder, recipe, 0), should_stop, on_step, device)
        else:
            raise StateError(
                f"version {committed.number} is committed, and {checkpoints.folder} holds no checkpoint of it or "
                "of one before; start this trainer with the PERILUNE_HOME that the run was trained in"
            )
        digests = {version.digest for version in (*versions, *([committed] if committed else ()))}
        start.state.published_digests[:] = digests.union(start.state.published_digests)
        if ranks:
            state = replace(start.state, optimizer=outline(start.state.optimizer))
            frozen_files = start.frozen.model_files if start.frozen else None
            ranks.order(FOLLOW, recipe, start.policy.model_files, state, start.is_new, frozen_files)
        return cls(recipe, start, folder, should_stop, ranks)

    @classmethod
    def follow(
        cls,
        ranks: Ranks,
        recipe: Recipe,
        model_files: Mapping[str, bytes],
        state: TrainerState,
        is_new: bool,
        frozen_files: Mapping[str, bytes] | None = None,
    ) -> Session:
        """The session of another rank, from what the first one ordered. It touches no disk."""
        use_threads(recipe.trainer.num_threads)
        frozen = hollow_policy(frozen_files, ranks.device) if frozen_files else None
        return cls(
            recipe, StartingPoint(hollow_policy(model_files, ranks.device), state, is_new, frozen), Path(), never, ranks
        )

    @by_all_ranks
    def train(self, messages: Sequence[ScoredGroup], found: Found | None = None) -> PublishedVersion:
        """One iteration: the batch of the current version in, the next version out.

        `found`: the images of its prompts. InvalidInputError if nothing of the batch can be trained on.
        """
        ages = Ages.of(self.recipe, self.published.policy)
        vocab_size = self._learner.policy.model.config.get_text_config().vocab_size
        images = BatchImages(self._learner.policy.vision, found or {})
        read = partial(read_group, ages=ages, published_digests=self._known_digests, vocab_size=vocab_size)
        groups = [read(message, images=images, text_of=self._text_of) for message in messages]
        refused = [sample for group in groups for sample in group.refused]
        self._tell_refused(refused, num_samples=sum(len(message.samples) for message in messages))
        accepted = [group for group in groups if group.samples]
        self.metrics = self._learner.train(self.number, accepted, self._should_stop)
        self.metrics["num_refused"] = float(len(refused))
        self.refused = refused
        self.number += 1
        self.published = self._snapshot(before=self.published)
        return self.published

    @cached_property
    def _text_of(self) -> ResponseText:
        """Decodes responses as rollout workers do, with the files that they have."""
        files = self._learner.policy.model_files
        tokenizer = build_tokenizer(files)
        return ResponseText(tokenizer, self.recipe.rollout.keep_special_tokens, end_tokens(files, tokenizer))

    @property
    def stage(self) -> StageTable | None:
        """The stage that makes the next version; None where an iteration does."""
        found = self.recipe.stage_from(self.number)
        return found[1] if found else None

    def run_stage(self, on_step: OnStep = unheard) -> PublishedVersion:
        """The stage after the current version, from where it was left, and the next version out.

        InterruptedTraining, PeriluneError: as of `run_stages`.
        """
        started, found = time.perf_counter(), self.recipe.stage_from(self.number)
        assert found is not None  # `stage` says so
        file, policy = _progress_of(self._folder, self.recipe, self.number), self._learner.policy
        metrics = run_stages([found], policy, self.recipe, file, self._should_stop, on_step)
        num_tokens = metrics.pop("stage_tokens")
        self.metrics = metrics | {"num_tokens": num_tokens, "train_seconds": time.perf_counter() - started}
        self.refused = []
        self.number += 1
        self.published = self._snapshot(before=self.published)
        return self.published

    @by_all_ranks
    def checkpoint(self) -> None:
        """Keeps the current version to go back to, and writes its checkpoint where that is due and was not done."""
        if self._versions:
            try:
                self._versions.add(self.published.state, self.published.delta, self.published.model_files)
            except OSError as error:
                kind = NoRoomError if is_full(self._folder, error) else StateError
                raise kind(
                    f"cannot keep version {self.number} on disk: {error}; make room for it, and resume the run"
                ) from error
        if self.number != self._written and self._is_due:
            self._save()
        if self._writer and self.is_last:  # nothing would wait for it later
            self._writer.wait()

    def _tell_refused(self, refused: Sequence[Refused], num_samples: int) -> None:
        for sample in refused:
            logger.warning("sample %d of %s is set aside: %s", sample.sample_index, sample.group_id, sample.reason)
        if refused and len(refused) == num_samples:
            (reason, _), *_ = Counter(sample.reason for sample in refused).most_common(1)
            raise InvalidInputError(f"every sample of iteration {self.number} was refused; most often: {reason}")

    def tensors(self) -> list[Tensor]:
        """All that training keeps on the device between two batches: weights and the optimiser's state."""
        return self._learner.tensors()

    @property
    def is_last(self) -> bool:
        """Tests whether the current version is the one that the run ends with."""
        return self.number == self.recipe.last_version

    @property
    def model_path(self) -> str:
        """The folder of the current version's checkpoint; empty if it gets none."""
        return str(self._checkpoints.path_of(self.number).resolve()) if self._is_due else ""

    @property
    def _is_due(self) -> bool:
        is_made_by_stage = self.number >= self.recipe.trainer.num_iterations  # or the next one is
        return is_made_by_stage or self.number % self.recipe.trainer.checkpoint_every == 0

    def _save(self) -> None:
        policy, optimizer = self._learner.policy, self._learner.optimizer.state_dict()
        weights = merged_state(policy.model) if self._adapter else None
        if self.ranks.size > 1:
            weights, optimizer = whole_state(policy.model, self.ranks), whole_optimizer_state(optimizer, self.ranks)
        state = TrainerState(
            number=self.number,
            origin=origin_of(self.recipe),
            metrics=self.metrics,
            published_digests=sorted(self._known_digests),
            optimizer=optimizer,
            adapter=factors(policy.model),
            refused=[asdict(sample) for sample in self.refused],
        )
        if self._writer:
            weights = self._writer.copied(policy.model.state_dict() if weights is None else weights, "weights")
            state = replace(state, optimizer=self._writer.copied(state.optimizer, "optimizer"))
            state = replace(state, adapter=self._writer.copied(state.adapter, "adapter"))
            self._writer.start(self._write, policy, state, weights)
        elif self.ranks.leads:
            self._write(policy, state, weights)
        self._written = self.number

    def _write(self, policy: Policy, state: TrainerState, weights: Mapping[str, Tensor] | None) -> None:
        self._checkpoints.save(policy, state, weights)
        (self._folder / PROGRESS_FILE).unlink(missing_ok=True)  # of the stages that made this version

    def _snapshot(self, before: PublishedVersion | None) -> PublishedVersion:
        if self.number % self.recipe.weights.anchor_every == 0 or not self._prefers_delta(before):
            before = None
        policy = self._learner.policy
        if self._adapter is not None and self.base is not None:
            config = peft_config(self._adapter, base_path(self.recipe, self._checkpoints.path_of(0)))
            version = adapter_snapshot(policy.model, self.number, self.base.policy, config)
        else:
            version = self._plain_snapshot(policy, self.number, before)
        self._known_digests.add(version.policy.digest)
        whole_bytes = version.state.manifest.num_bytes
        self.metrics["sent_share"] = (version.delta.num_bytes if version.delta else whole_bytes) / max(1, whole_bytes)
        return version

    def _prefers_delta(self, before: PublishedVersion | None) -> bool:
        """Tests whether the next version is to be a change of the one before, by what was measured; says when it is
        not."""
        if before is None:
            return False
        choice = self.measured.choose(before.state.manifest.num_bytes)
        if not choice.is_delta:
            logger.info("version %d goes whole: %s", self.number, choice.reason)
        return choice.is_delta

    def _plain_snapshot(self, policy: Policy, number: int, before: PublishedVersion | None) -> PublishedVersion:
        dtype, quantize = getattr(torch, self.recipe.model.dtype), self.recipe.weights.quantize
        if self.ranks.size > 1:
            return rank_snapshot(policy, number, dtype, self.ranks, before, quantize, self.measured)
        return snapshot(policy, number, dtype, before, quantize, self.measured)


def _made(
    recipe: Recipe, file: ProgressFile, should_stop: Callable[[], bool], on_step: OnStep, device: Device
) -> StartingPoint:
    """Version 0. Its stages are the first rank's alone: what needs many is small, and what is large comes trained."""
    started = time.perf_counter()
    policy = make_policy(recipe).to(device)
    if recipe.trainer.adapter:
        check_targets(policy.model, recipe.trainer.adapter)  # before the time that stages take
    if recipe.trainer.activation_checkpointing == "layers":
        recompute_layers(policy.model)  # in stages too
    frozen = frozen_policy(recipe, policy, version_0=None)
    metrics = run_stages(recipe.stages_at("before"), policy, recipe, file, should_stop, on_step)
    metrics["num_parameters"] = float(policy.model.num_parameters())
    metrics["start_seconds"] = time.perf_counter() - started
    state = TrainerState(
        number=0, origin=origin_of(recipe), metrics=metrics, published_digests=[], optimizer={"state": {}}
    )
    return StartingPoint(policy, state, is_new=True, frozen=frozen)


def _found(
    recipe: Recipe, checkpoints: Checkpoints, number: int, committed_digests: Collection[str], device: Device
) -> StartingPoint:
    logger.info("resuming from %s", checkpoints.path_of(number))
    is_adapted = recipe.trainer.adapter is not None
    policy, state = checkpoints.load(number, origin_of(recipe), is_adapted, committed_digests)
    policy.to(device)
    return StartingPoint(policy, state, is_new=False, frozen=frozen_policy(recipe, policy, checkpoints.path_of(0)))


def _progress_of(folder: Path, recipe: Recipe, number: int) -> ProgressFile:
    """The progress of the stages that begin at a version."""
    return ProgressFile(folder / PROGRESS_FILE, f"{origin_of(recipe)}/{number}")


def _checkpoints_of(folder: Path) -> Checkpoints:
    return Checkpoints(folder / "checkpoints")


def versions_of(recipe: Recipe, folder: Path, ranks: Ranks) -> VersionStore | None:
    """The served versions that are kept of the run in this folder; none where each rank has a part of them."""
    return None if ranks.size > 1 else VersionStore(folder / "versions", recipe.weights.num_kept)
