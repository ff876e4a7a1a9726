"""Whether gVisor can be had here."""

from __future__ import annotations

import os
import shutil

from services.sandbox.jail.cgroups import CgroupUnavailableError, find_cgroups


def _missing() -> str:
    """What keeps gVisor from being had here, as far as it can be told without trying; empty if nothing does."""
    if os.getuid() != 0:
        return "needs root"
    try:
        find_cgroups()
    except CgroupUnavailableError:
        return "needs control groups"
    return "" if shutil.which("runsc") else "no runsc on the PATH"


MISSING = _missing()
