"""A docstring."""
from __future__ import annotations
def f(x: unknown) -> nothing: ...
print(f.__annotations__, __doc__)
