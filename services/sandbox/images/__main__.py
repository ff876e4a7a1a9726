"""`perilune image`: adds, lists and removes the images of this machine's sandbox."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from perilune.errors import PeriluneError
from services.sandbox.config import JailSettings
from services.sandbox.images.store import ImageStore
from services.sandbox.job import Image


def main() -> int:
    """Adds, lists or removes images, and returns the exit status."""
    parser = argparse.ArgumentParser(prog="perilune image")
    parser.add_argument("--json", action="store_true")
    commands = parser.add_subparsers(dest="command", required=True)
    add = commands.add_parser("add")
    add.add_argument("name")
    add.add_argument("archive", type=Path)
    commands.add_parser("list")
    commands.add_parser("remove").add_argument("name")
    arguments = parser.parse_args()
    try:
        store = ImageStore(JailSettings().images)
        if arguments.command == "add":
            _print([store.add(arguments.name, arguments.archive)], arguments.json)
        elif arguments.command == "remove":
            store.remove(arguments.name)
        else:
            images = store.list()
            _print(images, arguments.json)
            if not images:
                print(
                    f"perilune: there are no images in {store.folder}; `perilune image add` adds one", file=sys.stderr
                )
    except PeriluneError as error:
        print(f"perilune: {error}", file=sys.stderr)
        return 1
    return 0


def _print(images: list[Image], as_json: bool) -> None:
    rows = [{"name": image.name, "digest": image.digest, "num_bytes": image.num_bytes} for image in images]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    for image in images:
        print(f"{image.name:<32} {image.digest[:19]}  {image.num_bytes / 1e6:>8,.0f} MB")


if __name__ == "__main__":
    sys.exit(main())
