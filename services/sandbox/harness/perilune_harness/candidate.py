"""Runs the program under test, and calls it for whoever holds the other end of the channel.

The program can read all of this: there is no secret here, and none comes through the channel but the arguments of
calls. What goes out is what the program says it returned, and whoever gets it decides.
"""

from __future__ import annotations

import contextlib
import json
import operator
import os
import sys
import traceback
import types
from collections.abc import Callable
from typing import Any

from .wire import TAG, Channel, decode, encode

_OPERATORS: dict[str, Callable[..., Any]] = {
    "len": len,
    "iter": iter,
    "next": next,
    "str": str,
    "repr": repr,
    "bool": bool,
    "getitem": operator.getitem,
    "setitem": operator.setitem,
    "delitem": operator.delitem,
    "eq": operator.eq,
    "isinstance": lambda kind, value: isinstance(value, kind),
}


class RemoteError(Exception):
    """What a function of the tests raised when the program called it."""


class Candidate:
    """The program as a module, and its objects by number, kept for as long as the job lives."""

    def __init__(self, channel: Channel, path: str, name: str) -> None:
        self.channel = channel
        self.objects: list[Any] = []
        self.numbers: dict[int, int] = {}
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
                names[name] = self.told(value)
        return {"names": names}

    def serve(self) -> Any:
        """Answers requests until the reply to one of our own comes, and gives that."""
        while True:
            message = self.channel.receive()
            if "do" not in message:
                return message
            try:
                reply = self.answer(message)
            except BaseException as error:  # noqa: BLE001 SystemExit too: a program that leaves has not returned
                reply = self.raised(error)
            self.channel.send(reply)

    def answer(self, message: Any) -> Any:
        if message["do"] == "path":
            function, arguments = self.find(message["name"]), decode(message["arguments"], self.held)
            return {"value": encode(function(*arguments), self.hold)}
        target = self.objects[message["on"]]
        if message["do"] == "get":
            return {"value": encode(getattr(target, message["name"]), self.hold)}
        if message["do"] == "set":
            setattr(target, message["name"], decode(message["value"], self.held))
            return {"value": None}
        arguments = decode(message["arguments"], self.held)
        if message["do"] == "operator":
            return {"value": encode(_OPERATORS[message["name"]](target, *arguments), self.hold)}
        result = target(*arguments, **decode(message["keywords"], self.held))
        return {"value": encode(result, self.hold), "changed": self.changed(message["arguments"], arguments)}

    def changed(self, before: list[Any], arguments: list[Any]) -> Any:
        """Tests also look at a list that they gave, and that was changed in place."""
        found = {}
        for i, argument in enumerate(arguments):
            if type(argument) in (list, dict, set, bytearray):
                after = encode(argument, self.hold)
                if json.dumps(after) != json.dumps(before[i]):
                    found[i] = after
        return found

    def find(self, path: str) -> Any:
        """A function by its name, or a method by Class.method, of an object made without arguments."""
        found: Any = self.module
        for name in path.split("."):
            found = getattr(found() if isinstance(found, type) else found, name)
        return found

    def told(self, value: Any) -> Any:
        try:
            return encode(value, self.hold)
        except Exception:  # noqa: BLE001 whatever the program's own object raises when it is copied
            return self.hold(value)

    def hold(self, value: Any) -> Any:
        number = self.numbers.setdefault(id(value), len(self.objects))
        if number == len(self.objects):
            self.objects.append(value)
        told = {TAG: "object", "is": number, "type": getattr(value, "__name__", type(value).__name__)}
        if isinstance(value, type):
            told["bases"] = [base.__name__ for base in value.__mro__]
        elif type(value).__module__ == self.module.__name__:
            told["of"] = self.hold(type(value))
        return told

    def held(self, told: Any) -> Any:
        return Callback(self, told["is"]) if told.get("theirs") else self.objects[told["is"]]

    def show(self, error: BaseException) -> None:
        """The traceback, from the program's own code on."""
        frames = error.__traceback__
        while frames and frames.tb_frame.f_code.co_filename != self.module.__file__:
            frames = frames.tb_next
        with contextlib.suppress(Exception):  # the error's own __str__
            traceback.print_exception(type(error), error, frames)

    def raised(self, error: BaseException) -> Any:
        self.show(error)
        try:
            text = str(error)[:2000]
        except Exception:  # noqa: BLE001 as above
            text = ""
        return {"raised": {"of": self.hold(type(error)), "text": text}}


class Callback:
    """A function of the tests that the program was given."""

    def __init__(self, candidate: Candidate, number: int) -> None:
        self._candidate, self._number = candidate, number

    def __call__(self, *arguments: Any) -> Any:
        ours = self._candidate
        ours.channel.send({"call": self._number, "arguments": encode(list(arguments), ours.hold)})
        reply = ours.serve()
        if "raised" in reply:
            raise RemoteError(reply["raised"])
        return decode(reply["value"], ours.held)


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
