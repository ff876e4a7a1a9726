"""The program, seen from its tests: what stands for its objects, classes and exceptions, and how they are asked.

What comes in are plain values, decoded and compared here, and numbers of objects that stay with the program. Operators
between the program's own objects are asked for there. One between such an object and a value of the tests would hand
that value over and let the program answer for itself. So it is carried only for an object that the tests made
themselves, and never if it compares; it is done here, on a plain copy, for what derives from a plain type; else the
operator is not there, or, where the tests work with the object's class, the test needs what this harness cannot carry
(`BrokenTestError`).
"""

from __future__ import annotations

import builtins
import operator
import threading
import types
from collections.abc import Callable, Sequence
from typing import Any

from .wire import BINARY, COMPARING, IMMUTABLE, TAG, UNARY, Channel, containers, decode, encode, is_standard

TO_PROGRAM, TO_SANDBOX = b">", b"!"
_KINDS = {"generator": types.GeneratorType, "function": types.FunctionType, "method": types.MethodType}
_VIEWS: Any = (type({}.keys()), type({}.values()), type({}.items()))
_KINDS |= {"builtin_function_or_method": types.BuiltinFunctionType, "coroutine": types.CoroutineType}


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
        """What is asked for; the tests made it, if it is an object that was not there before."""
        newest = max(self.objects, default=-1)
        made = ask()
        if isinstance(made, RemoteObject) and _number(made) > newest:
            self.made.add(_number(made))
        return made

    def by_name(self, name: str, value: Any) -> Any:
        """What the tests reach by a name. A class in place of a function is for them a thing that can be called."""
        if type(value) is not RemoteClass:
            return value
        if name in self.class_names:
            self.known.add(_number(value))
            return value
        function = object.__new__(RemoteObject)
        object.__setattr__(function, "_remote", _remote(value))
        object.__setattr__(function, "_kind", "type")
        return function

    def operator(self, number: int, name: str, *arguments: Any) -> Any:
        coded = [self.encode(argument) for argument in arguments]
        return self.value({"do": "operator", "on": number, "name": name, "arguments": coded}, arguments)

    def get(self, number: int, name: str) -> Any:
        return self.by_name(name, self.value({"do": "get", "on": number, "name": name}))

    def set(self, number: int, name: str, value: Any) -> None:
        self.value({"do": "set", "on": number, "name": name, "value": self.encode(value)})

    def delete(self, number: int, name: str) -> None:
        self.value({"do": "delete", "on": number, "name": name})

    def value(self, message: Any, given: Sequence[Any] = ()) -> Any:
        """What the program answers; `given` are the values that it got, which it may have changed in place."""
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
                import sys

                sys.stdout.write(str(reply["printed"]))
            if not {"call", "input", "print"} & {*reply}:
                return reply
            self.channel.send(self.call_back(reply), TO_PROGRAM)

    def call_back(self, message: Any) -> Any:
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
            return {"raised": self.tell_error(error)}

    # --- Values ---

    def encode(self, value: Any) -> Any:
        return encode(value, self.hold, self.inherit)

    def decode(self, value: Any) -> Any:
        return decode(value, self.held)

    def lack(self, what: str) -> BrokenTestError:
        """What to raise where a test needs what cannot be carried. It stays known, whatever catches it."""
        self.needs = self.needs or what
        return BrokenTestError(what)

    def hold(self, value: Any) -> Any:
        number = _number_of(value)
        if number is not None:
            return {TAG: "object", "is": number}
        if is_standard(value):
            return {TAG: "standard", "is": [value.__module__, value.__qualname__]}
        if isinstance(value, BaseException):
            return {TAG: "error", "is": self.tell_error(value)}
        if isinstance(value, _VIEWS):
            return [self.encode(item) for item in value]
        is_iterator = hasattr(type(value), "__next__")
        if is_iterator or callable(value):
            number = self.number_of_callback(value)
            names = {name: getattr(value, name, None) for name in ("__name__", "__qualname__", "__doc__")}
            texts = {name: text for name, text in names.items() if isinstance(text, str)}
            told = {TAG: "object", "is": number, "theirs": True, "names": texts}
            return {**told, "iterates": True} if is_iterator else told
        raise self.lack(f"the tests give the program a {type(value).__name__}, which cannot be sent")

    def number_of_callback(self, value: Any) -> int:
        """The same for the same function, so that the program can find it again."""
        is_method = isinstance(value, types.MethodType)
        key = (id(value.__self__), id(value.__func__)) if is_method else (id(value), 0)
        number = self.numbers.setdefault(key, len(self.callbacks))
        if number == len(self.callbacks):
            self.callbacks.append(value)
        return number

    def inherit(self, value: Any, coded: Any) -> Any:
        number = _number_of(value)
        return coded if number is None else {TAG: "object", "is": number}

    def held(self, told: Any) -> Any:
        kind = told[TAG]
        if kind == "standard":
            return _builtin_type(told["is"])
        if kind == "error":
            return self.error(told["is"])
        number = int(told["is"])
        if told.get("theirs"):
            return self.callbacks[number]
        if "bases" in told or number in self.classes:
            return self.class_of(told)
        if number in self.objects:
            self.made.discard(number)
        else:
            self.objects[number] = self.stand_in(told, number)
        return self.objects[number]

    def stand_in(self, told: Any, number: int) -> Any:
        """What stands for an object: of the class that stands for its class."""
        kind: Any = self.class_of(told["of"]) if "of" in told else RemoteObject
        if "value" in told:
            plain: Any = self.decode(told["value"])
            kind = kind if type(kind) is RemoteClass and issubclass(kind, RemoteValue) else _value_class(type(plain))
            found = type(plain).__new__(kind, plain)
            object.__setattr__(found, "_remote", (self, number))
            return found
        if not (isinstance(kind, type) and issubclass(kind, RemoteObject)):
            kind = RemoteObject
        found = object.__new__(kind)
        object.__setattr__(found, "_remote", (self, number))
        object.__setattr__(found, "_kind", str(told.get("type", "")))
        return found

    def class_of(self, told: Any) -> Any:
        """The class that stands for one of the program; exceptions become real ones, so that they can be caught."""
        if told[TAG] == "standard":
            return _builtin_type(told["is"])
        number = int(told["is"])
        if number not in self.classes:
            bases = [self.class_of(base) for base in told["bases"]]
            self.classes[number] = self.new_class(str(told["type"]), bases, number, told)
        return self.classes[number]

    def new_class(self, name: str, bases: list[Any], number: int, told: Any) -> Any:
        names = {"_remote": (self, number), "__doc__": told.get("doc"), "__module__": str(told.get("module", ""))}
        names["_own"] = frozenset(map(str, told.get("own", ())))
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

    def error(self, told: Any) -> BaseException:
        """The exception to raise here for what the program raised there."""
        if "theirs" in told:
            return self.errors[int(told["theirs"])]
        kind, text = self.class_of(told["of"]), str(told["text"])
        arguments = self.decode(told["args"])
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
        attributes = {str(name): self.decode(value) for name, value in told.get("attributes", {}).items()}
        vars(error).update(attributes, from_the_program=True, _text=text)
        if "cause" in told:
            error.__cause__ = self.error(told["cause"])
        if "is" in told:
            vars(error)["_remote"] = (self, int(told["is"]))
        return error

    def tell_error(self, error: BaseException) -> Any:
        self.errors.append(error)
        kind = type(error)
        told: dict[str, Any] = {"theirs": len(self.errors) - 1, "type": kind.__name__, "text": str(error)[:2000]}
        told["bases"] = [base.__name__ for base in kind.__mro__ if base.__module__ == "builtins"]
        if "_remote" in vars(error):
            told["is"] = vars(error)["_remote"][1]
        elif "_remote" in vars(kind):
            told["of"] = vars(kind)["_remote"][1]
        try:
            told["args"] = self.encode(list(error.args))
        except BrokenTestError:
            told["args"] = [str(error)]
        return told


# --- What stands for the program's ----------------------------------------------------------------------------------


class RemoteClass(type):
    """A class of the program: calling it makes an object there."""

    def __new__(cls, name: str, bases: tuple[Any, ...], namespace: dict[str, Any], **_: Any) -> Any:
        base = next(base for base in bases if type(base) is RemoteClass)
        raise _remote(base)[0].lack(f"the tests derive {name} from the program's {base.__name__}")

    def __call__(cls, *arguments: Any, **keywords: Any) -> Any:
        program, number = _remote(cls)
        return program.make(number, arguments, keywords)

    def __getattribute__(cls, name: str) -> Any:
        if name in _LOCAL or (name.startswith("__") and hasattr(type, name)):
            return type.__getattribute__(cls, name)
        program, number = _remote(cls)
        return program.get(number, name)

    def __setattr__(cls, name: str, value: Any) -> None:
        program, number = _remote(cls)
        program.set(number, name, value)

    def __delattr__(cls, name: str) -> None:
        program, number = _remote(cls)
        program.delete(number, name)

    def __len__(cls) -> Any:
        return _operator(cls, "len")

    def __iter__(cls) -> Any:
        return _operator(cls, "iter")

    def __reversed__(cls) -> Any:
        return _operator(cls, "reversed")

    def __getitem__(cls, key: Any) -> Any:
        return _operator(cls, "getitem", key)

    def __contains__(cls, item: Any) -> bool:
        return _operator(cls, "contains", item) is True

    def __instancecheck__(cls, value: Any) -> bool:
        if type.__instancecheck__(cls, value):
            return True
        return _number_of(value) is not None and _operator(cls, "isinstance", value) is True

    def __subclasscheck__(cls, other: Any) -> bool:
        if type.__subclasscheck__(cls, other):
            return True
        return _number_of(other) is not None and _operator(cls, "issubclass", other) is True


_LOCAL = frozenset(("_remote", "_own", "mro", "__copy__", "__deepcopy__"))


class RemoteObject:
    """An object or a function of the program. What is asked of it is asked there."""

    def __getattribute__(self, name: str) -> Any:
        if name == "__class__":
            kind = type(self)
            known = _KINDS.get(object.__getattribute__(self, "_kind"))
            return known if known and kind is RemoteObject else kind
        if name in _LOCAL:
            return object.__getattribute__(self, name)
        program, number = _remote(self)
        return program.get(number, name)

    def __setattr__(self, name: str, value: Any) -> None:
        program, number = _remote(self)
        program.set(number, name, value)

    def __delattr__(self, name: str) -> None:
        program, number = _remote(self)
        program.delete(number, name)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        program, number = _remote(self)
        return program.call(number, arguments, keywords)

    def __setitem__(self, key: Any, value: Any) -> None:
        _operator(self, "setitem", key, value)

    def __delitem__(self, key: Any) -> None:
        _operator(self, "delitem", key)

    def __getitem__(self, key: Any) -> Any:
        return _operator(self, "getitem", key)

    def __contains__(self, item: Any) -> bool:
        program, number = _remote(self)
        if _number_of(item) is not None or number in program.made:
            return _operator(self, "contains", item) is True
        if program.operator(number, "defines", "iter") is True:
            return any(item is found or item == found for found in _operator(self, "iter"))
        _refuse(self, "contains", item)
        raise TypeError(f"argument of type {type.__getattribute__(type(self), '__name__')!r} is not iterable")

    def __str__(self) -> str:
        return str(_operator(self, "str"))

    def __repr__(self) -> str:
        return str(_operator(self, "repr"))

    def __format__(self, spec: str) -> str:
        return str(_operator(self, "format", spec))

    def __bool__(self) -> bool:
        return _operator(self, "bool") is True

    def __hash__(self) -> int:
        return int(_operator(self, "hash"))

    def __eq__(self, other: Any) -> Any:
        return _compare(self, "eq", other)

    def __ne__(self, other: Any) -> Any:
        return _compare(self, "ne", other)

    def __enter__(self) -> Any:
        program, number = _remote(self)
        return program.get(number, "__enter__")()

    def __exit__(self, _: Any, error: BaseException | None, __: Any) -> bool:
        return _operator(self, "exit", error) is True

    def __copy__(self) -> Any:
        return _operator(self, "copy")

    def __deepcopy__(self, _: Any) -> Any:
        return _operator(self, "deepcopy")


def _unary(name: str) -> Callable[..., Any]:
    return lambda self, *arguments: _operator(self, name, *arguments)


def _binary(name: str, reflected: bool, in_place: bool) -> Callable[[Any, Any], Any]:
    def apply(self: Any, other: Any) -> Any:
        return _combine(self, name, other, reflected, in_place)

    return apply


for _name in UNARY:
    setattr(RemoteObject, f"__{_name}__", _unary(_name))
for _name in BINARY:
    for _prefix in ("", "r", "i"):
        setattr(RemoteObject, f"__{_prefix}{_name}__", _binary(_name, _prefix == "r", _prefix == "i"))
for _name in COMPARING:
    setattr(RemoteObject, f"__{_name}__", _binary(_name, reflected=False, in_place=False))


class RemoteValue:
    """A value of a class of the program that derives from a plain type: it is compared by that, here."""

    def __getattribute__(self, name: str) -> Any:
        if name in type.__getattribute__(type(self), "_own"):
            program, number = _remote(self)
            return program.get(number, name)
        return object.__getattribute__(self, name)

    def __getattr__(self, name: str) -> Any:
        program, number = _remote(self)
        return program.get(number, name)

    def __setattr__(self, name: str, value: Any) -> None:
        program, number = _remote(self)
        program.set(number, name, value)

    def __str__(self) -> str:
        return str(_operator(self, "str"))

    def __repr__(self) -> str:
        return str(_operator(self, "repr"))

    def __format__(self, spec: str) -> str:
        return str(_operator(self, "format", spec))


def _value_class(plain: type) -> Any:
    return type.__new__(type, plain.__name__, (RemoteValue, plain), {"_own": frozenset()})


# --- Operators ------------------------------------------------------------------------------------------------------


def _operator(value: Any, name: str, *arguments: Any) -> Any:
    program, number = _remote(value)
    return program.operator(number, name, *arguments)


def _compare(value: Any, name: str, other: Any) -> Any:
    """Whether two are equal, or unequal. Between two objects of the program it is the program's to say."""
    if value is other:
        return name == "eq"
    if _number_of(other) is not None:
        return _operator(value, name, other) is True
    plain = _plain(value) if other is not None else _NOTHING
    if plain is _NOTHING and other is not None:
        _refuse(value, "eq", other)
    same = plain is not _NOTHING and bool(plain == other)
    return same is (name == "eq")


def _combine(value: Any, name: str, other: Any, reflected: bool, in_place: bool) -> Any:
    program, number = _remote(value)
    asked = f"r{name}" if reflected else f"i{name}" if in_place else name
    if number in program.made and name not in COMPARING:
        made = program.new(lambda: _operator(value, asked, other))
        if made is value:
            program.made.add(number)
        return made
    if _number_of(other) is not None:
        return _operator(value, asked, other)
    plain = _plain(value)
    if plain is not _NOTHING:
        function = divmod if name == "divmod" else getattr(operator, {"and": "and_", "or": "or_"}.get(name, name))
        return function(other, plain) if reflected else function(plain, other)
    _refuse(value, asked, other)
    return NotImplemented


def _refuse(value: Any, name: str, other: Any) -> None:
    """Raises for an operator that would hand a value of the tests over.

    The test cannot run then, where its source works with objects and the program has the operator. Else the program
    gave an object where a plain value is due, and there is no such operator.
    """
    program, number = _remote(value)
    if not program.handles_objects or program.operator(number, "defines", name) is not True:
        return
    if name in COMPARING:  # which may be one that it has for its own objects alone: it says so for any value
        program.operator(number, name, type(other)() if type(other) in _HAVE_NONE else None)
    raise program.lack(f"the tests use an operator ({name}) between {_described(value)} and {_described(other)}")


_HAVE_NONE = (int, float, str, list, tuple, dict, set)  # types of which one that says nothing can be made
_NOTHING: Any = object()


def _plain(value: Any) -> Any:
    """A plain copy of an object that derives from a plain type; _NOTHING for any other."""
    reply = _operator(value, "plain")
    return reply[0] if isinstance(reply, list) and reply else _NOTHING


def _described(value: Any) -> str:
    return f"a {type.__getattribute__(type(value), '__name__')}"


# --- Small questions ------------------------------------------------------------------------------------------------


def _remote(value: Any) -> Any:
    read = (
        type.__getattribute__
        if isinstance(type(value), type) and issubclass(type(value), type)
        else object.__getattribute__
    )
    return read(value, "_remote")


def _number(value: Any) -> Any:
    return _remote(value)[1]


def _number_of(value: Any) -> int | None:
    """The number by which the program knows this, if it is the program's."""
    kind = type(value)
    if kind is RemoteClass or any(
        base in (RemoteObject, RemoteValue) for base in type.__getattribute__(kind, "__mro__")
    ):
        return int(_remote(value)[1])
    if isinstance(value, (BaseException, type)):
        found = vars(value).get("_remote")
        return int(found[1]) if found else None
    return None


def _builtin_type(path: Any) -> Any:
    """A type of the language itself. The program names it, so nothing else is looked up."""
    module, name = map(str, path)
    found = getattr(builtins, name, None) if module == "builtins" else None
    if not isinstance(found, type):
        raise ValueError(f"{module}.{name} is no type of the language")
    return found


def _catchable(kind: Any) -> Any:
    """Of those that are no errors only SystemExit: the others stop the tests' own runner."""
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
