"""A model behind an OpenAI-compatible endpoint writes the generator, validator or checker that a problem lacks.

What it writes is a program like any other: it runs in the sandbox alone, and must prove itself there.
"""

from __future__ import annotations

import re

from perilune.completions import Model
from perilune.testgen.problem import Generator, Problem, Program

_FENCED = re.compile(r"```[\w+-]*[ \t]*\n(.*?)```", re.DOTALL)

GENERATOR_PROMPT = """\
Write a Python program that generates test inputs for the coding problem below. It is run as

    python generator.py SEED KIND INDEX COUNT

and prints one input, in exactly the format of the problem{format}. KIND is a word:
  random       a typical input, within all constraints, of varied size
  small        one of the smallest inputs; go through them by INDEX, from 0 on
  extreme      the largest sizes and boundary values
  adversarial  inputs on which plausible wrong or slow programs fail: ties and repeated values, sorted and reversed
               order, greedy traps, overflow, the worst case of the obvious slow algorithm
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
CHECKER_PROMPT = """\
Write a Python program that judges outputs for the coding problem below, which has several right outputs for one input.
It is run as

    python checker.py input output expected

with the names of three files: an input, the output of a program on it, and the output of a right program. It exits with
code 0 if the output is right, and with code 1 if it is not: verify the output against the input by the problem's own
conditions, and use the expected output for values that every right output shares, such as an optimum. An output may
hold anything, also nothing. Use the standard library alone. Answer with the program in one block of code.

# Problem
{statement}
{examples}"""
_FORMAT = " (a JSON list of the arguments of the function {name!r}, on one line)"


class Author:
    """Asks a model for programs. Its methods raise as `Model.reply`; a reply without a program is an empty one."""

    def __init__(self, model: Model, name: str) -> None:
        self._model, self._name = model, name

    async def generator(self, problem: Problem, attempt: int = 0, trouble: str = "") -> Generator:
        """A generator for a problem; `trouble` is what was wrong with the last one."""
        return Generator(await self._program(GENERATOR_PROMPT, problem, attempt, trouble), written_by=self._name)

    async def validator(self, problem: Problem, attempt: int = 0, trouble: str = "") -> Program:
        """A validator for a problem; `trouble` is what was wrong with the last one."""
        return await self._program(VALIDATOR_PROMPT, problem, attempt, trouble)

    async def checker(self, problem: Problem, attempt: int = 0, trouble: str = "") -> Program:
        """A checker for a problem; `trouble` is what was wrong with the last one."""
        return await self._program(CHECKER_PROMPT, problem, attempt, trouble)

    async def _program(self, template: str, problem: Problem, attempt: int, trouble: str) -> Program:
        message = {"role": "user", "content": prompt_of(template, problem, trouble)}
        return Program(program_in(await self._model.reply([message], attempt)))


def prompt_of(template: str, problem: Problem, trouble: str = "") -> str:
    """The prompt that asks for a program."""
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
