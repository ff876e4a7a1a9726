"""The program, seen from its tests: requests to it, and values and exceptions on their way there and back.

What comes in are plain values, decoded and compared here, and numbers of objects that stay with the program; a proxy
stands for each of these (`proxies`).
"""

from __future__ import annotations

import builtins
import sys
import threading
import types
from collections.abc import Callable, Sequence
from typing import Any

from .proxies import RemoteClass, RemoteObject, RemoteValue, number_of, remote_of, value_class
from .wire import IMMUTABLE, TAG, Channel, containers, decode, encode, is_standard

TO_PROGRAM, TO_SANDBOX = b">", b"!"
_VIEWS: Any = (type({}.keys()), type({}.values()), type({}.items()))


class BrokenTestError(Exception):
    """The test itself cannot run, or needs what cannot be carried; this says nothing about the program."""


class ProgramError(Exception):
    """The program raised something that is no built-in exception."""


class Program:
    """The program, seen from its tests."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.callbacks: list[Any] = []
        self.numbers: dict[tuple[int, int], int] = {}
        self.errors: list[BaseException] = []  # that the tests' own functions raised
        self.classes: dict[int, Any] = {}
        self.objects: dict[int, Any] = {}
        self.class_names: frozenset[str] = frozenset()  # what the tests' source uses as classes
        self.handles_objects = False  # whether it works with objects, and not only with plain values
        self.known: set[int] = set()  # classes that the tests reached by such a name
        self.made: set[int] = set()  # objects that they made of these, and got from nowhere else
        self.needs = ""  # the first thing that they needed and that cannot be carried
        self.records: list[str] = []  # by what they look at what the program prints
        self.turn = threading.RLock()  # they may have threads of their own

    # --- Requests ---

    def call(self, number: int, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
        """Calls a function or another callable of the program."""
        coded = [self.encode(argument) for argument in arguments]
        named = {name: self.encode(value) for name, value in keywords.items()}
        given = [*arguments, *keywords.values()]
        return self.value({"do": "call", "on": number, "arguments": coded, "keywords": named}, given)

    def make(self, number: int, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
        """Calls a class."""
        if number not in self.known:
            return self.call(number, arguments, keywords)
        return self.new(lambda: self.call(number, arguments, keywords))

    def new(self, ask: Callable[[], Any]) -> Any:
        """Evaluates `ask`; the tests made the object, if it was not there before."""
        newest = max(self.objects, default=-1)
        made = ask()
        if isinstance(made, RemoteObject) and remote_of(made)[1] > newest:
            self.made.add(remote_of(made)[1])
        return made

    def by_name(self, name: str, value: Any) -> Any:
        """Gives what the tests reach by a name; to them, a class in place of a function is a callable."""
        if type(value) is not RemoteClass:
            return value
        if name in self.class_names:
            self.known.add(remote_of(value)[1])
            return value
        function = object.__new__(RemoteObject)
        object.__setattr__(function, "_remote", remote_of(value))
        object.__setattr__(function, "_kind", "type")
        return function

    def operator(self, number: int, name: str, *arguments: Any) -> Any:
        """Applies an operator, or another function of the table, to an object of the program."""
        coded = [self.encode(argument) for argument in arguments]
        return self.value({"do": "operator", "on": number, "name": name, "arguments": coded}, arguments)

    def get(self, number: int, name: str) -> Any:
        """Reads an attribute."""
        return self.by_name(name, self.value({"do": "get", "on": number, "name": name}))

    def set(self, number: int, name: str, value: Any) -> None:
        """Sets an attribute."""
        self.value({"do": "set", "on": number, "name": name, "value": self.encode(value)})

    def delete(self, number: int, name: str) -> None:
        """Deletes an attribute."""
        self.value({"do": "delete", "on": number, "name": name})

    def value(self, message: Any, given: Sequence[Any] = ()) -> Any:
        """Sends a request and gives its value; `given` are its arguments, which the program may change in place."""
        with self.turn:
            reply = self.ask({**message, "records": self.records})
            for i, changed in reply.get("changed", {}).items():
                _change(given[int(i)], self.decode(changed["now"]), changed["origins"])
            if "raised" in reply:
                raise self.error(reply["raised"])
            same = reply.get("same")
            return self.decode(reply["value"]) if same is None else given[int(same)]

    def ask(self, message: Any) -> Any:
        """Sends a request, serves what the program asks meanwhile, and gives the reply."""
        self.channel.send(message, TO_PROGRAM)
        while True:
            reply = self.channel.receive()
            if "printed" in reply:
                sys.stdout.write(str(reply["printed"]))
            if not {"call", "input", "print"} & {*reply}:
                return reply
            self.channel.send(self.call_back(reply), TO_PROGRAM)

    def call_back(self, message: Any) -> Any:
        """Answers the program's request: `input`, `print`, or a call of a function of the tests."""
        try:
            if "input" in message:
                return {"value": self.encode(builtins.input(str(message["input"])))}
            if "print" in message:
                builtins.print(*self.decode(message["print"]))
                return {"value": None}
            function = self.callbacks[message["call"]]
            if message.get("next"):
                return {"value": self.encode(next(function))}
            keywords = {str(name): self.decode(value) for name, value in message["keywords"].items()}
            return {"value": self.encode(function(*self.decode(message["arguments"]), **keywords))}
        except Exception as error:  # noqa: BLE001 a function of the tests may raise anything, for the program to see
            return {"raised": self.describe_error(error)}

    # --- Values ---

    def encode(self, value: Any) -> Any:
        """Encodes a value; functions of the tests stay here and travel as numbers."""
        return encode(value, self.describe, self.describe_derived)

    def decode(self, value: Any) -> Any:
        """Decodes a value; objects of the program become proxies."""
        return decode(value, self.resolve)

    def unsupported(self, what: str) -> BrokenTestError:
        """The error to raise where a test needs what cannot be carried; noted, should something catch it."""
        self.needs = self.needs or what
        return BrokenTestError(what)

    def describe(self, value: Any) -> Any:
        """Describes what cannot be copied. BrokenTestError: it cannot be carried either."""
        number = number_of(value)
        if number is not None:
            return {TAG: "object", "is": number}
        if is_standard(value):
            return {TAG: "standard", "is": [value.__module__, value.__qualname__]}
        if isinstance(value, BaseException):
            return {TAG: "error", "is": self.describe_error(value)}
        if isinstance(value, _VIEWS):
            return [self.encode(item) for item in value]
        is_iterator = hasattr(type(value), "__next__")
        if is_iterator or callable(value):
            number = self.number_of_callback(value)
            names = {name: getattr(value, name, None) for name in ("__name__", "__qualname__", "__doc__")}
            texts = {name: text for name, text in names.items() if isinstance(text, str)}
            description = {TAG: "object", "is": number, "theirs": True, "names": texts}
            return {**description, "iterates": True} if is_iterator else description
        raise self.unsupported(f"the tests give the program a {type(value).__name__}, which cannot be sent")

    def number_of_callback(self, value: Any) -> int:
        """Numbers a function of the tests; the same one keeps its number, so that the program can find it again."""
        is_method = isinstance(value, types.MethodType)
        key = (id(value.__self__), id(value.__func__)) if is_method else (id(value), 0)
        number = self.numbers.setdefault(key, len(self.callbacks))
        if number == len(self.callbacks):
            self.callbacks.append(value)
        return number

    def describe_derived(self, value: Any, coded: Any) -> Any:
        """Gives the number of an object of the program, or else its plain copy."""
        number = number_of(value)
        return coded if number is None else {TAG: "object", "is": number}

    def resolve(self, description: Any) -> Any:
        """Finds or makes what a description stands for."""
        kind = description[TAG]
        if kind == "standard":
            return _builtin_type(description["is"])
        if kind == "error":
            return self.error(description["is"])
        number = int(description["is"])
        if description.get("theirs"):
            return self.callbacks[number]
        if "bases" in description or number in self.classes:
            return self.class_of(description)
        if number in self.objects:
            self.made.discard(number)
        else:
            self.objects[number] = self.proxy_for(description, number)
        return self.objects[number]

    def proxy_for(self, description: Any, number: int) -> Any:
        """Makes the proxy of an object, of the class that is the proxy of its class."""
        kind: Any = self.class_of(description["of"]) if "of" in description else RemoteObject
        if "value" in description:
            plain: Any = self.decode(description["value"])
            kind = kind if type(kind) is RemoteClass and issubclass(kind, RemoteValue) else value_class(type(plain))
            found = type(plain).__new__(kind, plain)
            object.__setattr__(found, "_remote", (self, number))
            return found
        if not (isinstance(kind, type) and issubclass(kind, RemoteObject)):
            kind = RemoteObject
        found = object.__new__(kind)
        object.__setattr__(found, "_remote", (self, number))
        object.__setattr__(found, "_kind", str(description.get("type", "")))
        return found

    def class_of(self, description: Any) -> Any:
        """Gives the proxy of a class of the program; exceptions become real ones, so that they can be caught."""
        if description[TAG] == "standard":
            return _builtin_type(description["is"])
        number = int(description["is"])
        if number not in self.classes:
            bases = [self.class_of(base) for base in description["bases"]]
            self.classes[number] = self.new_class(str(description["type"]), bases, number, description)
        return self.classes[number]

    def new_class(self, name: str, bases: list[Any], number: int, description: Any) -> Any:
        """Makes the proxy of a class of the program."""
        names = {
            "_remote": (self, number),
            "__doc__": description.get("doc"),
            "__module__": str(description.get("module", "")),
        }
        names["_own"] = frozenset(map(str, description.get("own", ())))
        errors = tuple(base for base in bases if issubclass(base, BaseException))
        if errors:
            names |= {"__getattr__": _error_attribute, "__str__": _error_text}
            try:
                return type(name, tuple(map(_catchable, errors)), names)
            except TypeError:
                return type(name, (_catchable(errors[0]),), names)
        plain = next((base for base in IMMUTABLE if any(issubclass(found, base) for found in bases)), None)
        own = [base for base in bases if type(base) is RemoteClass]
        root: tuple[Any, ...] = (RemoteObject,) if plain is None else (RemoteValue, plain)
        try:
            return type.__new__(RemoteClass, name, tuple(own) or root, names)
        except TypeError:  # bases that do not go together here
            return type.__new__(RemoteClass, name, root, names)

    # --- Errors ---

    def error(self, description: Any) -> BaseException:
        """The exception to raise here for what the program raised there."""
        if "theirs" in description:
            return self.errors[int(description["theirs"])]
        kind, text = self.class_of(description["of"]), str(description["text"])
        arguments = self.decode(description["args"])
        error: Any = None
        if isinstance(kind, type) and issubclass(kind, BaseException):
            kind = _catchable(kind)
            try:
                error = kind(*arguments) if "_remote" not in vars(kind) else kind.__new__(kind, *arguments)
            except (TypeError, ValueError):  # such as UnicodeDecodeError, which wants five arguments
                error = kind.__new__(kind)
            error.args = tuple(arguments)
        if not isinstance(error, BaseException):
            error = ProgramError(f"{getattr(kind, '__name__', kind)}: {text}")
        attributes = {str(name): self.decode(value) for name, value in description.get("attributes", {}).items()}
        vars(error).update(attributes, from_the_program=True, _text=text)
        if "cause" in description:
            error.__cause__ = self.error(description["cause"])
        if "is" in description:
            vars(error)["_remote"] = (self, int(description["is"]))
        return error

    def describe_error(self, error: BaseException) -> Any:
        """Describes an exception that the tests raised; the program can raise it back."""
        self.errors.append(error)
        kind = type(error)
        description: dict[str, Any] = {"theirs": len(self.errors) - 1, "type": kind.__name__, "text": str(error)[:2000]}
        description["bases"] = [base.__name__ for base in kind.__mro__ if base.__module__ == "builtins"]
        if "_remote" in vars(error):
            description["is"] = vars(error)["_remote"][1]
        elif "_remote" in vars(kind):
            description["of"] = vars(kind)["_remote"][1]
        try:
            description["args"] = self.encode(list(error.args))
        except BrokenTestError:
            description["args"] = [str(error)]
        return description


def _builtin_type(path: Any) -> Any:
    """A type of the language itself. The program names it, so nothing else is looked up."""
    module, name = map(str, path)
    found = getattr(builtins, name, None) if module == "builtins" else None
    if not isinstance(found, type):
        raise ValueError(f"{module}.{name} is no type of the language")
    return found


def _catchable(kind: Any) -> Any:
    """Maps exceptions that would stop the tests' own runner to ProgramError; SystemExit would not."""
    return kind if issubclass(kind, (Exception, SystemExit)) else ProgramError


def _error_attribute(error: Any, name: str) -> Any:
    found = vars(error).get("_remote")
    if not found or name.startswith("__"):
        raise AttributeError(name)
    return found[0].get(found[1], name)


def _error_text(error: Any) -> str:
    text = vars(error).get("_text")
    return Exception.__str__(error) if text is None else text


def _change(given: Any, value: Any, origins: Sequence[int]) -> None:
    """Makes what the tests gave into what the program left of it, in place.

    `origins` says of each container in `value` which of those in `given` it is, counted in `containers`' order; -1 if
    it is a new one.
    """
    old, new = containers(given), containers(value)
    if not new or type(given) is not type(value):
        return
    kept = {id(n): old[j] for n, j in zip(new, origins, strict=False) if 0 <= j < len(old) and type(old[j]) is type(n)}
    kept[id(value)] = given
    for container in new:
        _fill(kept.get(id(container), container), container, kept)


def _fill(target: Any, new: Any, kept: dict[int, Any]) -> None:
    if isinstance(new, dict):
        items = {key: kept.get(id(item), item) for key, item in new.items()}
        target.clear()
        target.update(items)
    elif isinstance(new, set):
        members = set(new)
        target.clear()
        target.update(members)
    else:
        content = [kept.get(id(item), item) for item in new]
        target.clear()
        target.extend(content)
