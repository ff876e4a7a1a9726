"""Proxies: what stands in the tests for the program's objects and classes, and how operators between them are answered.

Operators between the program's own objects are evaluated there. One between such an object and a value of the tests
would hand that value over and let the program answer for itself. So it is carried only for an object that the tests
made themselves, and never if it compares; it is evaluated here, on a plain copy, for what derives from a plain type;
else the operator is not there, or, where the tests work with the object's class, the test needs what this harness
cannot carry (`BrokenTestError`).
"""

from __future__ import annotations

import operator
import types
from collections.abc import Callable
from typing import Any

from .wire import BINARY, COMPARING, UNARY

_KINDS = {  # what `type(object)` is called, for `isinstance` of the tests
    "generator": types.GeneratorType,
    "function": types.FunctionType,
    "method": types.MethodType,
    "builtin_function_or_method": types.BuiltinFunctionType,
    "coroutine": types.CoroutineType,
}


def remote_of(value: Any) -> Any:
    """The program and the number of the object that a proxy stands for."""
    read = (
        type.__getattribute__
        if isinstance(type(value), type) and issubclass(type(value), type)
        else object.__getattribute__
    )
    return read(value, "_remote")


def number_of(value: Any) -> int | None:
    """The number by which the program knows this, if it is the program's."""
    kind = type(value)
    if kind is RemoteClass or any(
        base in (RemoteObject, RemoteValue) for base in type.__getattribute__(kind, "__mro__")
    ):
        return int(remote_of(value)[1])
    if isinstance(value, (BaseException, type)):
        found = vars(value).get("_remote")
        return int(found[1]) if found else None
    return None


class RemoteClass(type):
    """A class of the program: calling it makes an object there."""

    def __new__(cls, name: str, bases: tuple[Any, ...], namespace: dict[str, Any], **_: Any) -> Any:
        """BrokenTestError: a class derived here would be unknown to the program."""
        base = next(base for base in bases if type(base) is RemoteClass)
        raise remote_of(base)[0].unsupported(f"the tests derive {name} from the program's {base.__name__}")

    def __call__(cls, *arguments: Any, **keywords: Any) -> Any:
        """Makes an object in the program's job."""
        program, number = remote_of(cls)
        return program.make(number, arguments, keywords)

    def __getattribute__(cls, name: str) -> Any:
        if name in _LOCAL or (name.startswith("__") and hasattr(type, name)):
            return type.__getattribute__(cls, name)
        program, number = remote_of(cls)
        return program.get(number, name)

    def __setattr__(cls, name: str, value: Any) -> None:
        program, number = remote_of(cls)
        program.set(number, name, value)

    def __delattr__(cls, name: str) -> None:
        program, number = remote_of(cls)
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
        return number_of(value) is not None and _operator(cls, "isinstance", value) is True

    def __subclasscheck__(cls, other: Any) -> bool:
        if type.__subclasscheck__(cls, other):
            return True
        return number_of(other) is not None and _operator(cls, "issubclass", other) is True


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
        program, number = remote_of(self)
        return program.get(number, name)

    def __setattr__(self, name: str, value: Any) -> None:
        program, number = remote_of(self)
        program.set(number, name, value)

    def __delattr__(self, name: str) -> None:
        program, number = remote_of(self)
        program.delete(number, name)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Calls the object in the program's job."""
        program, number = remote_of(self)
        return program.call(number, arguments, keywords)

    def __setitem__(self, key: Any, value: Any) -> None:
        _operator(self, "setitem", key, value)

    def __delitem__(self, key: Any) -> None:
        _operator(self, "delitem", key)

    def __getitem__(self, key: Any) -> Any:
        return _operator(self, "getitem", key)

    def __contains__(self, item: Any) -> bool:
        program, number = remote_of(self)
        if number_of(item) is not None or number in program.made:
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
        program, number = remote_of(self)
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
            program, number = remote_of(self)
            return program.get(number, name)
        return object.__getattribute__(self, name)

    def __getattr__(self, name: str) -> Any:
        program, number = remote_of(self)
        return program.get(number, name)

    def __setattr__(self, name: str, value: Any) -> None:
        program, number = remote_of(self)
        program.set(number, name, value)

    def __str__(self) -> str:
        return str(_operator(self, "str"))

    def __repr__(self) -> str:
        return str(_operator(self, "repr"))

    def __format__(self, spec: str) -> str:
        return str(_operator(self, "format", spec))


def value_class(plain: type) -> Any:
    """Makes the proxy class of values that derive from a plain type."""
    return type.__new__(type, plain.__name__, (RemoteValue, plain), {"_own": frozenset()})


# --- Operators ------------------------------------------------------------------------------------------------------


def _operator(value: Any, name: str, *arguments: Any) -> Any:
    program, number = remote_of(value)
    return program.operator(number, name, *arguments)


def _compare(value: Any, name: str, other: Any) -> Any:
    """Compares for equality, or inequality. Between two objects of the program it is the program's to say."""
    if value is other:
        return name == "eq"
    if number_of(other) is not None:
        return _operator(value, name, other) is True
    plain = _plain_copy(value) if other is not None else _NOTHING
    if plain is _NOTHING and other is not None:
        _refuse(value, "eq", other)
    same = plain is not _NOTHING and bool(plain == other)
    return same is (name == "eq")


def _combine(value: Any, name: str, other: Any, reflected: bool, in_place: bool) -> Any:
    program, number = remote_of(value)
    method = f"r{name}" if reflected else f"i{name}" if in_place else name
    if number in program.made and name not in COMPARING:
        made = program.new(lambda: _operator(value, method, other))
        if made is value:
            program.made.add(number)
        return made
    if number_of(other) is not None:
        return _operator(value, method, other)
    plain = _plain_copy(value)
    if plain is not _NOTHING:
        function = divmod if name == "divmod" else getattr(operator, {"and": "and_", "or": "or_"}.get(name, name))
        return function(other, plain) if reflected else function(plain, other)
    _refuse(value, method, other)
    return NotImplemented


def _refuse(value: Any, name: str, other: Any) -> None:
    """Raises for an operator that would hand a value of the tests over.

    The test cannot run then, where its source works with objects and the program has the operator. Else the program
    gave an object where a plain value is due, and there is no such operator.
    """
    program, number = remote_of(value)
    if not program.handles_objects or program.operator(number, "defines", name) is not True:
        return
    if name in COMPARING:  # which may be one that it has for its own objects alone: it says so for any value
        program.operator(number, name, type(other)() if type(other) in _HAVE_NONE else None)
    raise program.unsupported(f"the tests use an operator ({name}) between {_described(value)} and {_described(other)}")


_HAVE_NONE = (int, float, str, list, tuple, dict, set)  # types of which one that says nothing can be made
_NOTHING: Any = object()


def _plain_copy(value: Any) -> Any:
    """A plain copy of an object that derives from a plain type; _NOTHING for any other."""
    reply = _operator(value, "plain")
    return reply[0] if isinstance(reply, list) and reply else _NOTHING


def _described(value: Any) -> str:
    return f"a {type.__getattribute__(type(value), '__name__')}"
