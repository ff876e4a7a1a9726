"""A language model reasons about the answer and says whether it is right (k1.5 §2.3.5: the chain-of-thought reward
model).

It is asked over OpenAI's API, so any server of models will do. It sees the committed answer alone, between fences that
the answer's writer could not know; only a verdict in the one form that counts is taken
(`perilune.grading.judge_prompts`). Votes that disagree, and replies that hold no verdict, are no verdict: undecided,
and never a zero. A judge that is away is UNAVAILABLE, to be asked again.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal
from weakref import WeakKeyDictionary

import httpx2
from pydantic import BaseModel, Field, NonNegativeFloat, PositiveFloat, PositiveInt, SecretStr, ValidationError
from pydantic_settings import SettingsConfigDict

from perilune.api.reward.v1.reward_pb2 import Image
from perilune.errors import InvalidInputError, OverloadedError, StateError, UnavailableError
from perilune.grading.judge_prompts import JudgePrompt, is_hollow, judge_prompt, read_verdict
from perilune.settings import Settings
from services.reward.answer_extraction import committed, without_thinking
from services.reward.graders.grader import Grader, GraderOptions, GradingSample, Verdict

MAX_ANSWER_CHARS = 20_000  # no judge reads more with profit
MAX_VOTES = 64
VOTING_TEMPERATURE = 0.7
RETRY_STATUS = frozenset({408, 409, 425, 500, 502, 503, 504})
NAMES = {True: "correct", False: "incorrect", None: "no verdict"}


class JudgeSettings(Settings):
    """Describes who judges: PERILUNE_JUDGE_URL and so on."""

    model_config = SettingsConfigDict(env_prefix="PERILUNE_JUDGE_")

    url: str = ""  # of an OpenAI-compatible API, such as http://127.0.0.1:8000/v1
    model: str = ""  # its name there
    api_key: SecretStr = SecretStr("")
    prompt: Literal["instructed", "bare"] = "instructed"  # `bare`: for a judge that was trained on it
    max_tokens: PositiveInt = 2048  # of one reply
    timeout_s: PositiveFloat = 120.0  # for one reply
    max_connections: PositiveInt = 64


class JudgeOptions(GraderOptions):
    """Options of the grader `judge`."""

    votes: PositiveInt = Field(1, le=MAX_VOTES, description="replies to ask for; more than half of them have to agree")
    agreement: float = Field(0.5, ge=0.5, le=1, description="share of the votes that has to agree, at least")
    temperature: NonNegativeFloat | None = Field(
        None, le=2, description=f"of the replies; if not given, 0 for one vote and {VOTING_TEMPERATURE} for more"
    )
    show: Literal["answer", "response"] = Field(
        "answer", description="what the judge sees: the committed answer, or all but the thinking"
    )
    marker: str = Field("", description="the answer follows the last one; empty: last box, `answer is`, or last line")
    sees: bool = Field(False, description="the judge is shown the question's images too: it must be a model that sees")


def grade(sample: GradingSample, options: JudgeOptions) -> Verdict | None:
    """Returns what needs no judge: nothing to compare with, and answers that hold nothing."""
    if not sample.reference.strip():
        raise InvalidInputError("the prompt has no reference answer")
    answer = shown(sample, options)
    if is_hollow(answer) and answer.strip() != sample.reference.strip():
        return Verdict(0.0, {"answer": answer, "why": "no answer"})
    if len(answer) > MAX_ANSWER_CHARS:
        return Verdict(None, {"why": f"the answer is longer than the {MAX_ANSWER_CHARS:,} characters a judge is shown"})
    return None


async def ask(sample: GradingSample, options: JudgeOptions) -> Verdict:
    """The verdict of the votes. UnavailableError, OverloadedError: the judge is away or full."""
    judge = _judge()
    answer = shown(sample, options)
    prompt = judge_prompt(sample.question, sample.reference, answer, judge.settings.prompt, secrets.randbelow)
    if options.sees:
        prompt = showing(prompt, sample.images)
    replies = await judge.replies(prompt, options.votes, _temperature(options))
    evidence = {"answer": answer, "reference": sample.reference, "judge": judge.settings.model}
    return verdict_of(replies, prompt.id, options.agreement, evidence)


def showing(prompt: JudgePrompt, images: Sequence[Image]) -> JudgePrompt:
    """The prompt with images before the text of its last message. InvalidInputError: one comes without its bytes."""
    if any(not image.HasField("data") for image in images):
        raise InvalidInputError("an image is named by an address: this service fetches none; give its bytes as `data`")
    urls = [f"data:{image.media_type};base64,{base64.b64encode(image.data).decode()}" for image in images]
    *before, last = prompt.messages
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    content: Any = [*parts, {"type": "text", "text": last["content"]}]
    return JudgePrompt(prompt.id, [*before, {**last, "content": content}])


def shown(sample: GradingSample, options: JudgeOptions) -> str:
    """Returns what of the response the judge sees."""
    if options.show == "response":
        return without_thinking(sample.response).strip()
    return committed(sample.response, options.marker) or ""


def verdict_of(replies: Sequence[str], prompt_id: str, agreement: float, evidence: dict[str, str]) -> Verdict:
    """Returns what the votes say together: the verdict of more than half of them, and of the share that is asked
    for."""
    votes = [read_verdict(reply, prompt_id) for reply in replies]
    counts = Counter(votes)
    winner = next((said for said in (True, False) if counts[said] > len(votes) / 2), None)
    decided = winner is not None and counts[winner] >= agreement * len(votes)
    words = replies[votes.index(winner)] if winner in votes else replies[0]
    evidence = evidence | {
        "votes": ", ".join(f"{counts[said]} {NAMES[said]}" for said in (True, False, None) if counts[said]),
        "words": words.strip(),
    }
    return Verdict.of(winner if decided else None, **evidence)


def _temperature(options: JudgeOptions) -> float:
    if options.temperature is not None:
        return options.temperature
    return 0.0 if options.votes == 1 else VOTING_TEMPERATURE


# --- The endpoint -------------------------------------------------------------------------------------------------


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message


class _Completion(BaseModel):
    """Describes what is used of an answer of the API."""

    choices: list[_Choice] = Field(min_length=1)


class Judge:
    """A model behind an OpenAI-compatible API."""

    def __init__(self, settings: JudgeSettings) -> None:
        self.settings = settings
        key = settings.api_key.get_secret_value()
        self._client = httpx2.AsyncClient(
            base_url=f"{settings.url.rstrip('/')}/",
            headers={"authorization": f"Bearer {key}"} if key else {},
            limits=httpx2.Limits(max_connections=settings.max_connections),
            # A request that waits for a connection waits for another's reply; the score's own deadline ends it.
            timeout=httpx2.Timeout(settings.timeout_s, connect=10.0, pool=None),
        )

    async def replies(self, prompt: JudgePrompt, num_votes: int, temperature: float) -> list[str]:
        """So many replies; a server that gives one at a time is asked again for the others.

        Raises:
            UnavailableError, OverloadedError: the server is away, broken or full; trying again may help.
            StateError: it refuses such requests, for a reason that its message tells.
        """
        replies: list[str] = []
        while len(replies) < num_votes:
            missing = num_votes - len(replies)
            completion = await self._complete(prompt, missing, temperature)
            replies += [choice.message.content or "" for choice in completion.choices[:missing]]
        return replies

    async def _complete(self, prompt: JudgePrompt, num_votes: int, temperature: float) -> _Completion:
        body: dict[str, Any] = {
            "model": self.settings.model,
            "messages": prompt.messages,
            "n": num_votes,
            "temperature": temperature,
            "max_tokens": self.settings.max_tokens,
        }
        try:
            answer = await self._client.post("chat/completions", json=body)
        except httpx2.HTTPError as error:
            raise UnavailableError(f"the judge at {self.settings.url} is away: {error!r}") from error
        if answer.status_code == 429:
            raise OverloadedError(f"the judge is full: {_reason(answer)}")
        if answer.status_code in RETRY_STATUS:
            raise UnavailableError(f"the judge failed with {answer.status_code}: {_reason(answer)}")
        if answer.is_error:
            raise StateError(f"the judge refuses with {answer.status_code}: {_reason(answer)}")
        try:
            return _Completion.model_validate_json(answer.content)
        except ValidationError as error:
            raise UnavailableError(f"the judge's answer is no chat completion: {_reason(answer)}") from error


def _reason(answer: httpx2.Response) -> str:
    return answer.text[:300].strip() or "with no word"


def configured_judge() -> Judge:
    """The judge of the settings. StateError if none is configured."""
    settings = JudgeSettings()
    if not (settings.url and settings.model):
        raise StateError("no judge is set up: PERILUNE_JUDGE_URL and PERILUNE_JUDGE_MODEL say who judges")
    return Judge(settings)


_judges: WeakKeyDictionary[asyncio.AbstractEventLoop, Judge] = WeakKeyDictionary()


def _judge() -> Judge:
    """One for each event loop, with its connections."""
    loop = asyncio.get_running_loop()
    if loop not in _judges:
        _judges[loop] = configured_judge()
    return _judges[loop]


def _version() -> str:
    """Another model may give another value, so its name belongs to the grader's version."""
    model = JudgeSettings().model
    return f"1 {model}" if model else "1"


GRADER = Grader(
    name="judge",
    version=_version(),
    description="1 if a language model that reasons about it finds the answer right by the reference, else 0",
    options=JudgeOptions,
    grade=grade,
    ask=ask,
)
