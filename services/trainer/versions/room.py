"""Says whether a write failed for want of room, which passes, or for another reason."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

LITTLE_BYTES = 16 << 20  # what a full disk has left at most
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def is_full(folder: Path, error: BaseException) -> bool:
    """Tests whether a write below a folder failed because the disk is full, or a quota is used up.

    Torch and safetensors say it in words of their own, or not at all: then the disk is asked.
    """
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return True
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return "No space left" in str(error) or shutil.disk_usage(there).free < LITTLE_BYTES
