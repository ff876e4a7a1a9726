"""The command line: `commands` has the commands and their options, the other modules what they do.

Exit status: 0, or 1 for a failure that the message on stderr explains, 2 for a wrong command line or a home or setting
that cannot be used, 130 after Ctrl-C.
"""

from __future__ import annotations

import os
import sys

from perilune.cli.commands import app


def main() -> None:
    """The entry point: an error that Perilune raises on purpose is one message and exit status 1, no traceback."""
    # gRPC's core writes notes of closed connections to stderr, which is ours or the program's that `exec` runs.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    try:
        app()
    except Exception as error:
        from perilune.errors import PeriluneError, SettingsError

        if not isinstance(error, PeriluneError):
            raise
        from perilune.cli.console import harmless
        from perilune.logs import without_secrets

        print(f"perilune: {harmless(without_secrets(str(error)))}", file=sys.stderr)
        sys.exit(2 if isinstance(error, SettingsError) else 1)
