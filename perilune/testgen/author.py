"""A model behind an OpenAI-compatible endpoint writes the generator and the validator that a problem lacks.

What it writes is a program like any other: it runs in the sandbox alone, and must prove itself there.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perilune.errors import InvalidInputError, StateError, UnavailableError
from perilune.testgen.problem import Generator, Problem, Program
from perilune.testgen.store import read_text, write_whole

NUM_TRIES = 5  # of one request, where the endpoint is away or busy
FIRST_WAIT_S, LAST_WAIT_S = 0.5, 8.0
_RETRY_STATUS = {408, 409, 425, 429, 500, 502, 503, 504}
_FENCED = re.compile(r"```[\w+-]*[ \t]*\n(.*?)```", re.DOTALL)
MAX_TOKENS = 4096

GENERATOR_PROMPT = """\
Write a Python program that generates test inputs for the coding problem below. It is run as

    python generator.py SEED KIND INDEX COUNT

and prints one input, in exactly the format of the problem{format}. KIND is a word:
  random    a typical input, within all constraints, of varied size
  small     one of the smallest inputs; go through them by INDEX, from 0 on
  extreme   the largest sizes, boundary values, shapes on which slow or careless programs fail
INDEX counts the runs of a kind up to COUNT; inputs of different INDEX should differ. The module random is seeded for
you. You may use the library CYaRon (`from cyaron import *`) and the standard library, and nothing else. Answer with the
program in one block of code.

# Problem
{statement}
{examples}"""
VALIDATOR_PROMPT = """\
Write a Python program that checks test inputs for the coding problem below. It reads one input{format} from stdin and
exits with code 0 if the input follows the format and every constraint of the problem, and with code 1 if it does not:
wrong counts, missing or additional values, numbers out of range, text for numbers. Use the standard library
alone. Answer with the program in one block of code.

# Problem
{statement}
{examples}"""
_FORMAT = " (a JSON list of the arguments of the function {name!r}, on one line)"


@dataclass(frozen=True)
class Endpoint:
    """Where the model is: the base URL of the API, such as http://127.0.0.1:8000/v1, and the model's name there."""

    url: str
    model: str
    api_key: str = ""
    temperature: float = 0.7
    timeout_s: float = 300.0


class Author:
    """Asks the model for programs; each answer is kept in a folder, by the digest of what was asked."""

    def __init__(self, endpoint: Endpoint, folder: Path) -> None:
        """InvalidInputError for a URL that is none. MissingDependencyError without an HTTP client."""
        import httpx2

        key = endpoint.api_key
        self._endpoint, self._folder = endpoint, folder
        try:
            self._client = httpx2.AsyncClient(
                base_url=f"{endpoint.url.rstrip('/')}/",
                headers={"authorization": f"Bearer {key}"} if key else {},
                timeout=httpx2.Timeout(endpoint.timeout_s, connect=10.0),
            )
        except (httpx2.InvalidURL, UnicodeError) as error:
            raise InvalidInputError(f"{endpoint.url!r} is no URL of an endpoint: {error}") from error

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()

    async def generator(self, problem: Problem, attempt: int = 0, trouble: str = "") -> Generator:
        """A generator for a problem; `trouble` is what was wrong with the last one. Errors as `_program`."""
        program = await self._program(GENERATOR_PROMPT, problem, attempt, trouble)
        return Generator(program, written_by=self._endpoint.model)

    async def validator(self, problem: Problem, attempt: int = 0, trouble: str = "") -> Program:
        """A validator for a problem. Errors as `_program`."""
        return await self._program(VALIDATOR_PROMPT, problem, attempt, trouble)

    async def _program(self, template: str, problem: Problem, attempt: int, trouble: str) -> Program:
        """A program that the model wrote; an empty one where its answer holds none.

        UnavailableError: the endpoint is away. StateError: it refuses such requests.
        """
        prompt = prompt_of(template, problem, trouble)
        key = json.dumps([self._endpoint.url, self._endpoint.model, self._endpoint.temperature, attempt, prompt])
        path = self._folder / f"{hashlib.sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}.txt"
        answer = read_text(path)
        if answer is None:
            answer = await self._answer(prompt, attempt)
            write_whole(path, answer.encode("utf-8", "surrogatepass"))
        return Program(program_in(answer))

    async def _answer(self, prompt: str, attempt: int) -> str:
        body = {
            "model": self._endpoint.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": self._endpoint.temperature if attempt else 0.0,
            "max_tokens": MAX_TOKENS,
        }
        for number in range(NUM_TRIES):
            try:
                return await self._complete(body)
            except UnavailableError:
                if number == NUM_TRIES - 1:
                    raise
                await asyncio.sleep(min(LAST_WAIT_S, FIRST_WAIT_S * 2**number))
        raise AssertionError("unreachable")

    async def _complete(self, body: dict[str, Any]) -> str:
        import httpx2

        where = f"the endpoint {self._endpoint.url}"
        try:
            answer = await self._client.post("chat/completions", json=body)
        except httpx2.HTTPError as error:
            raise UnavailableError(f"{where} is away: {error!r}") from error
        if answer.status_code in _RETRY_STATUS:
            raise UnavailableError(f"{where} failed with {answer.status_code}: {answer.text[:200]}")
        if answer.is_error:
            raise StateError(f"{where} refuses with {answer.status_code}: {answer.text[:200]}")
        try:
            content = answer.json()["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError) as error:
            raise UnavailableError(f"{where} answers with no chat completion: {answer.text[:200]}") from error
        return content if isinstance(content, str) else ""


def prompt_of(template: str, problem: Problem, trouble: str = "") -> str:
    """What the model is asked."""
    shown = "\n\n".join(text.decode("utf-8", "replace")[:1000] for text in problem.examples[:3])
    prompt = template.format(
        format=_FORMAT.format(name=problem.entry_point) if problem.entry_point else "",
        statement=problem.statement,
        examples=f"\n# Examples of inputs\n{shown}\n" if shown else "",
    )
    return f"{prompt}\nThe last program that was written for this failed: {trouble}\n" if trouble else prompt


def program_in(answer: str) -> str:
    """The longest block of code of an answer, or the whole answer where it has none; reasoning before it is dropped.

    >>> program_in("Here it is:\\n```python\\nprint(1)\\n```")
    'print(1)\\n'
    """
    said = answer.rpartition("</think>")[2]
    return max(_FENCED.findall(said), key=len, default=said.strip())
