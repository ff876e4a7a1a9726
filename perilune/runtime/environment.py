"""What child processes are given of a service's environment: none of its secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping

# Words in the names of variables that hold secrets, or say where they lie.
SECRET_WORDS = frozenset({"TOKEN", "PASSWORD", "PASSWD", "SECRET", "SECRETS", "KEY", "APIKEY", "CREDENTIALS"})
SECRET_PREFIXES = ("AWS_", "AZURE_", "GOOGLE_", "PGPASS")
_WITH_USER = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]*://[^/\s]*@")


def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that tell no secret, by their names and by whether their value is a URL with a user in it."""
    return {name: value for name, value in environment.items() if not _is_secret(name, value)}


def _is_secret(name: str, value: str) -> bool:
    words = set(name.upper().split("_"))
    return bool(words & SECRET_WORDS) or name.startswith(SECRET_PREFIXES) or bool(_WITH_USER.match(value))
