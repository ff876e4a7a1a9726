"""The names that other projects build on, with their parameters: a change of them is made on purpose, or not at all.

After such a change write the list again, and say so in CHANGELOG.md:

    python -m tests.unit.client.test_public_names > tests/unit/client/public_names.txt
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import perilune.client
import perilune.grading.plugin
import perilune.recipe

FROZEN = Path(__file__).with_name("public_names.txt")
OTHERS = {
    perilune.recipe: ("load_recipe", "check_recipe", "recipe_from_json", "read_document", "read_stored_recipe"),
    perilune.grading.plugin: ("serve_grader", "start_grader", "load_function"),
}


def lines() -> list[str]:
    """A line for each function, method and field."""
    client = [line for name in perilune.client.__all__ for line in described(name, getattr(perilune.client, name))]
    others = ((module.__name__, name, getattr(module, name)) for module, names in OTHERS.items() for name in names)
    return [*client, *(f"{module}.{name}{signature(thing)}" for module, name, thing in others)]


def described(name: str, thing: object) -> Iterator[str]:
    if not inspect.isclass(thing):
        yield f"perilune.client.{name}{signature(thing)}"
        return
    yield f"perilune.client.{name}{signature(thing)}"
    for attribute in sorted(vars_of(thing)):
        yield f"perilune.client.{name}.{attribute}{signature(getattr(thing, attribute))}"


def vars_of(thing: type) -> set[str]:
    """The public names of ours that a class has."""
    ours = [base for base in thing.__mro__ if base.__module__.startswith("perilune")]
    return {name for base in ours for name, value in vars(base).items() if name[0] != "_" and callable(value)}


def signature(thing: object) -> str:
    """Parameters with their defaults; types may become wider without a notice."""
    assert callable(thing)
    found = inspect.signature(thing)
    plain = [each.replace(annotation=inspect.Parameter.empty) for each in found.parameters.values()]
    return str(found.replace(parameters=plain, return_annotation=inspect.Signature.empty))


def test_public_names_are_those_of_the_list() -> None:
    assert lines() == FROZEN.read_text().splitlines()


def test_clients_for_threads_and_for_asyncio_have_the_same_methods() -> None:
    for name in ("EvaluationClient", "RewardClient", "RunClient", "SandboxClient", "SandboxSession", "WeightsClient"):
        plain, asynchronous = (vars_of(getattr(perilune.client, prefix + name)) for prefix in ("", "Async"))
        assert plain == asynchronous, name


if __name__ == "__main__":
    print("\n".join(lines()))
