"""One sample on its way: what it consists of so far, what to generate next, and when it ends or is put aside.

Token ids are only ever appended: those that the engine drew, and those of what an environment said. Text is made from
them for the environment, the graders and readers; it never becomes tokens again.
"""

from __future__ import annotations

import logging
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from perilune.api.reward.v1.reward_pb2 import Outcome
from perilune.api.rollout.v1.rollout_pb2 import RolloutTask
from perilune.api.trajectory.v1 import trajectory_pb2 as trajectory
from perilune.api.trajectory.v1.trajectory_pb2 import PURPOSE_TRAIN, Ending, Repetition, Segment, Trajectory
from perilune.codec import pack, unpack
from perilune.errors import InvalidInputError, OverloadedError, UnavailableError
from perilune.ids import SampleId
from perilune.models.chat import continuation_ids
from perilune.models.response_text import ResponseText
from services.rollout.engines.base import Generated, SampleRequest, Sampling, Span
from services.rollout.environments.answers import checked, outcome_message
from services.rollout.environments.base import Environment, Judging, Observation
from services.rollout.repetition import Rule
from services.rollout.tokenizer import ReadPrompt, Tokenizer, messages_of

logger = logging.getLogger(__name__)


class Rollout:
    """The state of one sample on a worker. Generate `next_sample`, `take` what came of it, and so on until it ends."""

    def __init__(
        self,
        task: RolloutTask,
        index: int,
        prompt: NDArray[np.int32] | ReadPrompt,
        tokenizer: Tokenizer,
        max_context: int,
        text_of: ResponseText | None = None,
        closing_token: int | None = None,
    ) -> None:
        """A new sample of the task, or its unfinished one.

        Args:
            max_context: the model's, in tokens.
            text_of: makes the text that others read, by default without special tokens.
            closing_token: with which the model ends its turn in a chat.
        """
        self._task, self._index, self._tokenizer = task, index, tokenizer
        self._read = prompt if isinstance(prompt, ReadPrompt) else ReadPrompt(prompt)
        self._prompt = self._read.tokens
        self._text_of = text_of or ResponseText(tokenizer)
        self._closing_token = closing_token
        self._environment: Environment | None = None
        self._max_turns = 0
        self.segments: list[Segment] = list(task.unfinished.segments)
        self._tokens = np.concatenate([self._prompt, *(unpack(segment.tokens) for segment in self.segments)])
        self._limit = min(task.sampling.max_tokens or max_context, max_context - len(self._prompt))  # response tokens
        self._budget_left = task.budget_tokens or self._limit
        self._repetition: Repetition | None = None
        self._is_environment_ready = False
        self.ending: Ending.ValueType | None = None
        self._outcome: Outcome | None = None

    def meet(self, environment: Environment, max_turns: int) -> None:
        """Gives the policy a counterpart, which answers at most so often.

        InvalidInputError: it waits for the end of a turn, which the model never says.
        """
        if not environment.stop and self._closing_token is None:
            raise InvalidInputError("the environment waits for the end of a turn, and the model has no token for that")
        self._environment, self._max_turns, self._is_environment_ready = environment, max_turns, False

    @property
    def sample_id(self) -> SampleId:
        """Returns which sample it is."""
        return SampleId(self._task.group_id, self._index)

    @property
    def num_response_tokens(self) -> int:
        """Tokens after the prompt, an environment's included."""
        return len(self._tokens) - len(self._prompt)

    @property
    def tokens(self) -> NDArray[np.int32]:
        """Prompt and response so far."""
        return self._tokens

    @property
    def prompt_length(self) -> int:
        """Tokens of the prompt."""
        return len(self._prompt)

    @property
    def has_images(self) -> bool:
        """Tests whether its prompt shows images."""
        return bool(self._read.images)

    @property
    def is_trained_on(self) -> bool:
        """Tests whether the sample has ended and is to be trained on."""
        return self._is_final and self._task.purpose == PURPOSE_TRAIN

    def next_sample(self) -> SampleRequest:
        """The sample for the engine: no longer than the limit on all segments, nor than this round's budget."""
        wanted = self._task.sampling
        rule = wanted.repetition
        stop = (*wanted.stop, *(self._environment.stop if self._environment else ()))
        # A group may be in hand twice, when it was redelivered: the engine's name for a sample is its own.
        return SampleRequest(
            id=f"{self.sample_id}#{uuid4().hex}",
            tokens=self._tokens,
            max_new_tokens=max(0, min(self._limit - self.num_response_tokens, self._budget_left)),
            sampling=Sampling(
                wanted.temperature,
                wanted.top_p or 1.0,
                wanted.top_k,
                stop,
                Rule(rule.min_tokens, rule.min_repeats, rule.similarity) if wanted.HasField("repetition") else None,
            ),
            seed=wanted.seed,
            index=self._index,
            response_start=len(self._prompt),
            images=self._read.images,
        )

    def take(self, generated: Generated) -> None:
        """Appends what the engine wrote; `ending` is set unless the environment is to answer."""
        for span in generated.spans:
            self._append(_segment(span))
            self._budget_left -= len(span.tokens)
        if generated.repetition:
            self._repetition = Repetition(start=generated.repetition.start, period=generated.repetition.period)
        ending = generated.ending
        if ending == trajectory.ENDING_LENGTH and self.num_response_tokens < self._limit:
            ending = trajectory.ENDING_BUDGET
        if ending != trajectory.ENDING_STOP or not self._is_turn_over():
            self.ending = ending

    async def ask_environment(self) -> None:
        """Hands the last turn to the environment and appends what it says.

        Errors of the environment are raised: that its machinery failed says nothing about the response.
        """
        assert self._environment
        await self._bring_up()
        observation = checked(await self._environment.step(self._turns()[-1]))
        if observation.outcome is not None:
            self._outcome = outcome_message(observation.outcome)
        is_final = observation.is_final or self._outcome is not None
        said = self._said(observation, is_final)
        room = self._limit - self.num_response_tokens
        self._append(Segment(environment=True, tokens=pack(np.array(said[:room], dtype=np.int32))))
        if is_final:
            self.ending = trajectory.ENDING_STOP
        elif len(said) >= room or len(self._turns()) > self._max_turns:
            self.ending = trajectory.ENDING_LENGTH
        elif self._budget_left <= 0:
            self.ending = trajectory.ENDING_BUDGET

    @property
    def wants_outcome(self) -> bool:
        """Tests whether the response has ended and its environment has yet to judge it."""
        return self._is_final and self._outcome is None and isinstance(self._environment, Judging)

    async def ask_outcome(self) -> None:
        """Has the environment judge a response that ended without it; errors as of `ask_environment`."""
        assert isinstance(self._environment, Judging)
        await self._bring_up()
        outcome = await self._environment.conclude(self._turns()[-1])
        if outcome is not None:
            self._outcome = outcome_message(outcome)

    async def close(self) -> None:
        """Ends the environment: the worker that continues the sample opens another, and repeats the turns.

        One that cannot be reached any more is left to end by itself; what it said is here.
        """
        if self._environment:
            try:
                await self._environment.close()
            except (UnavailableError, OverloadedError):
                pass
            except Exception:  # an environment is a program of its own, and its sample is done
                logger.warning("an environment could not be closed", exc_info=True)

    def trajectory(self) -> Trajectory:
        """The sample as a message. The text of an unfinished one is left out: it is not graded."""
        assert self.ending is not None
        task, response = self._task, self._tokens[len(self._prompt) :].tolist()
        text = self._text_of(response) if self._is_final else ""
        if self._is_final and len(self.segments) > 1:
            self._count_characters(response, len(text))
        return Trajectory(
            id=str(self.sample_id),
            run_id=task.run_id,
            group_id=task.group_id,
            sample_index=self._index,
            purpose=task.purpose,
            iteration=task.iteration,
            prompt=task.prompt,
            prompt_tokens=pack(self._prompt),
            segments=self.segments,
            ending=self.ending,
            response=text,
            graders=task.graders,
            round=task.unfinished.round,
            repetition=self._repetition,
            outcome=self._outcome,
            processor=self._read.processor,
        )

    def _count_characters(self, response: list[int], num_characters: int) -> None:
        """Notes how many characters of the whole text each segment makes, for readers.

        A character whose bytes lie on both sides of a border may count on either.
        """
        num_tokens = counted = 0
        for segment in self.segments:
            num_tokens += len(unpack(segment.tokens))
            so_far = len(self._text_of(response[:num_tokens]))
            end = max(counted, min(so_far, num_characters))
            segment.num_chars, counted = end - counted, end

    def _append(self, segment: Segment) -> None:
        self.segments.append(segment)
        self._tokens = np.concatenate([self._tokens, unpack(segment.tokens)])

    @property
    def _is_final(self) -> bool:
        return self.ending not in (None, trajectory.ENDING_BUDGET, trajectory.ENDING_ABORTED)

    def _is_turn_over(self) -> bool:
        """Tests whether the policy has handed over to its environment."""
        if self._environment is None:
            return False
        if self._environment.stop:
            return any(text in self._turns()[-1] for text in self._environment.stop)
        return int(self._tokens[-1]) == self._closing_token

    async def _bring_up(self) -> None:
        """Has the environment come to where the turns before the last one led."""
        assert self._environment
        if not self._is_environment_ready:
            await self._environment.reset(self._task.prompt, self._turns()[:-1])
            self._is_environment_ready = True

    def _said(self, observation: Observation, is_final: bool) -> list[int]:
        """The token ids of an answer: of raw text, or of messages as the chat template puts them behind the turn."""
        if not observation.messages:
            return self._tokenizer(observation.text, add_special_tokens=False)["input_ids"] if observation.text else []
        turn = self._turn_tokens()[-1]
        is_closed = bool(turn) and turn[-1] == self._closing_token
        text = self._tokenizer.decode(turn[:-1] if is_closed else turn, skip_special_tokens=False)
        prompt = messages_of(self._task.prompt)
        ids = continuation_ids(self._tokenizer, prompt, text, observation.messages, is_final=is_final)
        return ids[ids.index(self._closing_token) + 1 :] if is_closed and self._closing_token in ids else ids

    def _turns(self) -> list[str]:
        """The policy's text between what the environment said; the last one is that after it, and may be empty."""
        return [self._text_of(turn) for turn in self._turn_tokens()]

    def _turn_tokens(self) -> list[list[int]]:
        turns: list[list[int]] = [[]]
        for segment in self.segments:
            if segment.environment:
                turns.append([])
            else:
                turns[-1] += unpack(segment.tokens).tolist()
        return turns


def _segment(span: Span) -> Segment:
    return Segment(
        policy=span.policy,
        tokens=pack(span.tokens),
        logprobs=pack(span.logprobs),
        full_logprobs=pack(span.full_logprobs),
    )
