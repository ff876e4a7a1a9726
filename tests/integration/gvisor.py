"""Finds out if gVisor is available here."""

from __future__ import annotations

import os
import shutil

from services.sandbox.jail.cgroups import CgroupUnavailableError, find_cgroups


def _missing() -> str:
    """Says what gVisor lacks here, as far as that shows without a try; empty if nothing."""
    if os.getuid() != 0:
        return "needs root"
    try:
        find_cgroups()
    except CgroupUnavailableError:
        return "needs control groups"
    return "" if shutil.which("runsc") else "no runsc on the PATH"


MISSING = _missing()
