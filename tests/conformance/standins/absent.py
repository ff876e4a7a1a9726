"""A package that is not there, as far as importing code can tell only when it is used: any name in it can be imported,
and fails when it is called.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class _Finder(MetaPathFinder, Loader):
    def __init__(self, package: str) -> None:
        self._prefix = f"{package}."

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(name, self, is_package=True) if name.startswith(self._prefix) else None

    def exec_module(self, module: ModuleType) -> None:
        module.__getattr__ = attribute_of(module.__name__)  # type: ignore[method-assign]


def attribute_of(module: str) -> Callable[[str], Any]:
    def attribute(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (_Absent,), {"__module__": module})

    return attribute


class _AbsentType(type):
    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (_Absent,), {"__module__": f"{cls.__module__}.{cls.__name__}"})


class _Absent(metaclass=_AbsentType):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError(f"{type(self).__module__}.{type(self).__name__} has no build for CPUs")


def stand_in(package: str) -> Callable[[str], Any]:
    """Makes every submodule of a package importable; returns the package's own `__getattr__`."""
    sys.meta_path.append(_Finder(package))
    return attribute_of(package)
