"""Settings that come from the environment, and what is said when one cannot be used."""

from __future__ import annotations

import re
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsError

from perilune.errors import InvalidInputError


class Settings(BaseSettings):
    """Fields that are read from variables, with the prefix that a subclass names in `model_config`.

    InvalidInputError names every variable whose value cannot be used.
    """

    def __init__(self, **given: Any) -> None:
        """`given` values go before those of the environment."""
        try:
            super().__init__(**given)
        except SettingsError as error:  # a table that is no JSON; the cause says where
            named = re.search(r'field "(\w+)"', str(error))
            where = self._variable(named[1]) if named else str(error)
            raise InvalidInputError(f"{where}: no JSON: {error.__cause__}") from error
        except ValidationError as error:
            raise InvalidInputError("; ".join(map(self._explain, error.errors()))) from error

    @classmethod
    def _explain(cls, detail: ErrorDetails) -> str:
        if not detail["loc"]:  # of the settings together: their values stay unsaid, for there may be secrets among them
            return detail["msg"]
        field, *inner = map(str, detail["loc"])
        variable = cls._variable(field) if field in cls.model_fields else field
        return f"{'.'.join((variable, *inner))}: {detail['msg']}, not {detail['input']!r}"

    @classmethod
    def _variable(cls, field: str) -> str:
        alias = cls.model_fields[field].validation_alias
        return alias if isinstance(alias, str) else f"{cls.model_config['env_prefix']}{field}".upper()
