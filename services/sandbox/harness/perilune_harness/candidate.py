"""Runs the program under test, and calls it for the other end of the channel.

The program can read all of this: there is no secret here, and none comes through the channel but the arguments of
calls. What goes out is what the program says it returned, and the receiver decides.
"""

from __future__ import annotations

import builtins
import collections
import contextlib
import copy
import importlib
import io
import json
import math
import operator
import os
import random
import sys
import traceback
import types
from collections.abc import Callable
from typing import Any

from .wire import BINARY, COMPARING, IMMUTABLE, MUTABLE, TAG, UNARY, Channel, containers, decode, encode


def _defines(kind: type, name: str) -> bool:
    """True if a class of the program has such a method beyond what `object` gives it."""
    return any(name in vars(base) for base in kind.__mro__ if base is not object)


def _plain(value: Any) -> list[Any] | None:
    """The plain copy of what derives from a plain type, as a list of one."""
    for base in (*IMMUTABLE, *MUTABLE):
        if base in type(value).__mro__:
            coded = encode(value, lambda item: item)
            return [decode(coded, lambda item: item)]
    return None


_SPELLED = {"and": operator.and_, "or": operator.or_, "divmod": divmod}
_BINARY: dict[str, Callable[..., Any]] = {name: _SPELLED.get(name) or getattr(operator, name) for name in BINARY}
_OPERATORS: dict[str, Callable[..., Any]] = {
    **{name: getattr(builtins, name, None) or getattr(operator, name, None) or getattr(math, name) for name in UNARY},
    **_BINARY,
    **{f"r{name}": (lambda a, b, apply=apply: apply(b, a)) for name, apply in _BINARY.items()},
    **{f"i{name}": getattr(operator, f"i{name}", _BINARY[name]) for name in BINARY},
    **{name: getattr(operator, name) for name in (*COMPARING, "eq", "ne", "getitem", "setitem", "delitem", "contains")},
    **{"str": str, "repr": repr, "bool": bool, "hash": hash, "format": format, "index": operator.index},
    **{"copy": copy.copy, "deepcopy": copy.deepcopy},
    "isinstance": lambda kind, value: isinstance(value, kind),
    "issubclass": lambda kind, other: issubclass(other, kind),
    "exit": lambda manager, error: manager.__exit__(type(error) if error else None, error, None),
    "defines": lambda value, name: _defines(type(value), f"__{name}__"),
    "plain": _plain,
    "seed": lambda module, value: random.seed(value),
}
_OWN_MATTERS = {f"__{p}{name}__" for name in (*BINARY, *COMPARING, *UNARY, "eq", "ne", "hash") for p in ("", "r", "i")}
_PRINT = print
_MOST_PRINTED = 1 << 20  # characters


class RemoteError(Exception):
    """Stands for an exception of the tests' own function whose class the program does not have."""


class Given:
    """The arguments of a call, and the lists, dicts and sets that were in each before it."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.before: list[list[Any]] = []

    def take(self, values: list[Any]) -> None:
        """Notes the arguments, and the containers in each."""
        self.values, self.before = values, [containers(value) for value in values]

    def origins(self, i: int) -> list[int]:
        """Finds for each container now in argument `i` which of those before it is; -1 for a new one."""
        places = {id(container): j for j, container in enumerate(self.before[i])}
        return [places.get(id(container), -1) for container in containers(self.values[i])]


class Candidate:
    """The program as a module, and its objects by number, kept for as long as the job lives."""

    def __init__(self, channel: Channel, path: str, name: str) -> None:
        self.channel = channel
        self.objects: list[Any] = []
        self.numbers: dict[int, int] = {}
        self.callbacks: dict[int, Any] = {}
        self.printed = io.StringIO()
        self.module = types.ModuleType(name)
        self.module.__file__ = path
        sys.modules[name] = self.module
        with open(path, "rb") as file:
            source = file.read()
        exec(compile(source, path, "exec", dont_inherit=True), self.module.__dict__)

    def hello(self) -> Any:
        """The names that the program defines."""
        names = {}
        for name, value in list(self.module.__dict__.items()):
            if isinstance(value, types.ModuleType):
                names[name] = {TAG: "module", "is": value.__name__}
            elif not name.startswith("__"):
                names[name] = self.encode_or_describe(value)
        return {"names": names, "module": self.describe(self.module)}

    def serve(self) -> Any:
        """Answers requests until the reply to one of our own comes, and gives that."""
        while True:
            message = self.channel.receive()
            if "do" not in message:
                return message
            if message["do"] == "path":
                self.channel.send(self.answer(message))
                continue
            builtins.input = self.input
            records = message.get("records")
            builtins.print = self.print if records and "builtins.print" in records else _PRINT
            with contextlib.redirect_stdout(self.printed) if records else contextlib.nullcontext():
                reply = self.answer(message)
            self.channel.send(self.with_printed(reply))

    def answer(self, message: Any) -> Any:
        """Does what a message asks; what the program raises becomes part of the reply."""
        given = Given()
        try:
            reply = self.reply(message, given)
        except BaseException as error:  # noqa: BLE001 SystemExit too: a program that leaves has not returned
            reply = {"raised": self.describe_error(error)}
            if message["do"] != "get" or not isinstance(error, AttributeError):  # tests look for what may be there
                self.show(error)
        coded = [*message.get("arguments", []), *message.get("keywords", {}).values()]
        return {**reply, "changed": self.changed(coded, given)} if given.values else reply

    def reply(self, message: Any, given: Given) -> Any:
        """Does what a message asks, and gives the reply."""
        if message["do"] == "path":
            function, arguments = self.find(message["name"]), decode(message["arguments"], self.resolve)
            return {"value": encode(function(*arguments), self.describe)}
        target = self.objects[message["on"]]
        if message["do"] == "get":
            return {"value": self.encode(getattr(target, message["name"]))}
        if message["do"] == "set":
            setattr(target, message["name"], decode(message["value"], self.resolve))
            return {"value": None}
        if message["do"] == "delete":
            delattr(target, message["name"])
            return {"value": None}
        arguments = decode(message["arguments"], self.resolve)
        keywords = {name: decode(value, self.resolve) for name, value in message.get("keywords", {}).items()}
        given.take([*arguments, *keywords.values()])
        function = _OPERATORS[message["name"]] if message["do"] == "operator" else target
        first = [target] if message["do"] == "operator" else []
        return self.result(function(*first, *arguments, **keywords), given.values)

    def result(self, value: Any, given: list[Any]) -> Any:
        """Encodes what was returned, which may be the very object that was given."""
        same = [i for i, item in enumerate(given) if item is value and type(value) in _CHANGEABLE]
        return {"value": None, "same": same[0]} if same else {"value": self.encode(value)}

    def changed(self, before: list[Any], given: Given) -> Any:
        """Encodes the arguments that were changed in place, for tests that look at them."""
        found = {}
        for i, value in enumerate(given.values):
            if type(value) in _CHANGEABLE:
                after = self.encode(value)
                if json.dumps(after) != json.dumps(before[i]):
                    found[i] = {"now": after, "origins": given.origins(i)}
        return found

    def find(self, path: str) -> Any:
        """A function by its name, or a method by Class.method, of an object made without arguments."""
        found: Any = self.module
        for name in path.split("."):
            found = getattr(found() if isinstance(found, type) else found, name)
        return found

    # --- Values ---

    def encode(self, value: Any) -> Any:
        """Encodes a value; objects stay here and travel as numbers."""
        return encode(value, self.describe, self.describe_derived)

    def encode_or_describe(self, value: Any) -> Any:
        """Encodes a value; if its own code fails when copied, only describes it."""
        try:
            return self.encode(value)
        except Exception:  # noqa: BLE001 whatever the program's own object raises when it is copied
            return self.describe(value)

    def describe(self, value: Any) -> Any:
        """Describes an object that cannot be copied."""
        if type(value) in (Callback, CallbackIterator):
            return {TAG: "object", "is": value.number, "theirs": True}
        if isinstance(value, BaseException):
            return {TAG: "error", "is": self.describe_error(value)}
        if isinstance(value, type):
            return self.describe_class(value)
        description = {TAG: "object", "is": self.number_of(value), "type": type(value).__name__}
        return (
            description
            if type(value).__module__ == "builtins"
            else {**description, "of": self.describe_class(type(value))}
        )

    def describe_class(self, kind: type) -> Any:
        """Describes a class with its bases."""
        if kind.__module__ == "builtins" and getattr(builtins, kind.__name__, None) is kind:
            return {TAG: "standard", "is": ["builtins", kind.__name__]}
        description = {TAG: "object", "is": self.number_of(kind), "type": kind.__name__, "module": str(kind.__module__)}
        own = [name for name in vars(kind) if not name.startswith("__")]
        bases = [self.describe_class(base) for base in kind.__bases__]
        doc = kind.__doc__ if isinstance(kind.__doc__, str) else None
        return {**description, "doc": doc, "own": own, "bases": bases}

    def describe_derived(self, value: Any, coded: Any) -> Any:
        """Describes an object of a class that derives from a plain type; with its value if no operator is its own."""
        kind = type(value)
        bases = [base for base in kind.__mro__ if base.__module__ == self.module.__name__]
        if not bases:
            return coded
        description = {
            TAG: "object",
            "is": self.number_of(value),
            "type": kind.__name__,
            "of": self.describe_class(kind),
        }
        is_value = any(base in kind.__mro__ for base in IMMUTABLE) and not any(
            _OWN_MATTERS & set(vars(b)) for b in bases
        )
        return {**description, "value": coded} if is_value else description

    def number_of(self, value: Any) -> int:
        """Numbers an object, and keeps it; the same one keeps its number."""
        number = self.numbers.setdefault(id(value), len(self.objects))
        if number == len(self.objects):
            self.objects.append(value)
        return number

    def resolve(self, description: Any) -> Any:
        """Finds or makes what a description stands for."""
        if description[TAG] == "standard":
            found: Any = importlib.import_module(description["is"][0])
            for name in description["is"][1].split("."):
                found = getattr(found, name)
            return found
        if description[TAG] == "error":
            return self.rebuild_error(description["is"])
        if not description.get("theirs"):
            return self.objects[description["is"]]
        if description["is"] not in self.callbacks:
            kind = CallbackIterator if description.get("iterates") else Callback
            self.callbacks[description["is"]] = kind(self, description["is"], description.get("names", {}))
        return self.callbacks[description["is"]]

    # --- Errors ---

    def show(self, error: BaseException) -> None:
        """The traceback, from the program's own code on."""
        frames = error.__traceback__
        while frames and frames.tb_frame.f_code.co_filename != self.module.__file__:
            frames = frames.tb_next
        with contextlib.suppress(Exception):  # the error's own __str__
            traceback.print_exception(type(error), error, frames)

    def describe_error(self, error: BaseException, depth: int = 0) -> Any:
        """Describes an exception with its arguments, attributes and causes."""
        number = vars(error).get("_theirs")
        if number is not None:
            return {"theirs": number}
        description = {
            "of": self.describe_class(type(error)),
            "is": self.number_of(error),
            "text": _text(error),
            "args": [],
        }
        with contextlib.suppress(Exception):  # whatever the program's own objects raise when they are copied
            description["args"] = [self.encode(argument) for argument in error.args]
            description["attributes"] = {name: self.encode(value) for name, value in vars(error).items()}
        if error.__cause__ is not None and depth < _MOST_CAUSES:
            description["cause"] = self.describe_error(error.__cause__, depth + 1)
        return description

    def rebuild_error(self, description: Any) -> BaseException:
        """The exception that a function of the tests raised, or that they give."""
        if "is" in description:
            return self.objects[description["is"]]
        arguments = decode(description["args"], self.resolve)
        kind = (
            self.objects[description["of"]]
            if "of" in description
            else getattr(builtins, description["bases"][0], RemoteError)
        )
        if "of" not in description and kind.__name__ != description["type"]:
            kind = type(description["type"], (kind,), {})
        try:
            error: Any = kind(*arguments)
        except Exception:  # noqa: BLE001 the program's own, or one that wants other arguments
            error = RemoteError(description["text"])
        error._theirs = description["theirs"]
        return error

    # --- What the program asks the tests ---

    def ask(self, message: Any) -> Any:
        """Asks the tests, serves their calls meanwhile, and gives or raises their reply."""
        self.channel.send(self.with_printed(message))
        reply = self.serve()
        if "raised" in reply:
            raise self.rebuild_error(reply["raised"])
        return decode(reply["value"], self.resolve)

    def input(self, prompt: object = "", /) -> Any:
        """Stands in for `input`: the tests' own answers."""
        return self.ask({"input": str(prompt)})

    def print(self, *values: Any, **how: Any) -> None:
        """Prints, or hands over to what the tests put in place of `print`."""
        if how:
            _PRINT(*values, **how)
        else:
            self.ask({"print": self.encode(list(values))})

    def with_printed(self, message: Any) -> Any:
        """Adds to a message what was printed since the last."""
        text = self.printed.getvalue()
        if not text:
            return message
        self.printed.seek(0)
        self.printed.truncate()
        return {**message, "printed": text[:_MOST_PRINTED]}


_CHANGEABLE = (list, dict, set, bytearray, collections.deque)
_MOST_CAUSES = 4


def _text(error: BaseException) -> str:
    try:
        return str(error)[:2000]
    except Exception:  # noqa: BLE001 the error's own __str__
        return ""


class Callback:
    """A function of the tests that the program was given."""

    def __init__(self, candidate: Candidate, number: int, names: dict[str, str]) -> None:
        self._candidate, self.number = candidate, number
        vars(self).update(names)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Calls the function in the tests' job."""
        ours = self._candidate
        named = {name: ours.encode(value) for name, value in keywords.items()}
        return ours.ask({"call": self.number, "arguments": ours.encode(list(arguments)), "keywords": named})


class CallbackIterator(Callback):
    """An iterator of the tests, which they may go on with themselves."""

    def __iter__(self) -> CallbackIterator:
        return self

    def __next__(self) -> Any:
        return self._candidate.ask({"call": self.number, "next": True})


def main(path: str, name: str) -> None:
    """Serves the program at `path`, as the module `name`, until the channel is closed."""
    channel = Channel()
    try:
        candidate = Candidate(channel, path, name)
    except BaseException as error:  # noqa: BLE001 SystemExit too: a program that leaves cannot be called
        traceback.print_exception(type(error), error, error.__traceback__)
        channel.send({"failed": f"{type(error).__name__}: {error}"[:2000]})
        os._exit(1)
    channel.send(candidate.hello())
    candidate.serve()
