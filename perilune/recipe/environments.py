"""`[rollout.environment]`: what a policy may talk to in the middle of a response, one table a kind; their code is in
services/rollout/environments."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import AfterValidator, Field, PositiveFloat

from perilune.table import NonNegativeInt, PositiveInt, Table

StopText = Annotated[str, Field(min_length=1)]  # an empty one would end every turn


def _with_output(template: str) -> str:
    try:
        template.format(output="")
    except (LookupError, ValueError, AttributeError) as error:
        raise ValueError("write {output} where the output goes, and {{ and }} for braces") from error
    return template


OutputTemplate = Annotated[str, AfterValidator(_with_output)]


class EnvironmentBase(Table):
    """An environment: what a policy may talk to in the middle of a response."""

    needs_sandbox: ClassVar[bool] = False  # it executes programs

    type: str
    max_turns: PositiveInt = 8  # answers of the environment in one response

    def roles(self) -> tuple[str, ...]:
        """The roles of the chat messages that it answers with; none if it answers with raw text."""
        return ()


class CalculatorEnvironment(EnvironmentBase):
    """Sums and products of whole numbers."""

    type: Literal["calculator"]
    call: str = "calc"  # begins an expression
    end: StopText = "="  # asks for its value
    error: str = "error"  # the answer to what is no expression


class SandboxEnvironment(EnvironmentBase):
    """An interpreter in the sandbox service."""

    needs_sandbox = True

    type: Literal["sandbox"]
    language: str = "python"
    begin: str = "<code>"  # before a program
    end: StopText = "</code>"  # behind it
    answer: OutputTemplate = "\n<output>\n{output}\n</output>\n"  # with the program's output in it
    max_chars: NonNegativeInt = 2000  # of the output that are shown
    wall_s: PositiveFloat = 10.0  # for one program, seconds


class GuessEnvironment(EnvironmentBase):
    """A game: the policy guesses the number that is the prompt's reference; it hears `higher` or `lower`."""

    type: Literal["guess"]
    guesses: PositiveInt = 3
    role: Literal["user", "tool"] = "user"  # that the answers have

    def roles(self) -> tuple[str, ...]:
        """The roles of the messages that the environment writes."""
        return (self.role,)


EnvironmentTable = Annotated[CalculatorEnvironment | SandboxEnvironment | GuessEnvironment, Field(discriminator="type")]

KINDS: dict[str, type[EnvironmentBase]] = {
    get_args(kind.model_fields["type"].annotation)[0]: kind for kind in get_args(get_args(EnvironmentTable)[0])
}
"""The kinds by their names."""


def _known(name: str) -> str:
    if name not in KINDS:
        raise ValueError(f"there is no such environment; known are {', '.join(KINDS)}")
    return name


EnvironmentName = Annotated[str, AfterValidator(_known)]
