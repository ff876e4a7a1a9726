"""A service's imports, without garbage collection and never collected again."""

from __future__ import annotations

import json
import subprocess
import sys

SHOWN = """
import gc, json
from services.reward.__main__ import main
print(json.dumps([gc.isenabled(), gc.get_freeze_count(), sum(each["collections"] for each in gc.get_stats())]))
"""


def test_a_service_is_imported_without_a_collection_and_collects_afterwards() -> None:
    shown = subprocess.check_output([sys.executable, "-c", SHOWN])
    is_enabled, num_frozen, num_collections = json.loads(shown)
    assert is_enabled
    assert num_frozen > 10_000
    assert num_collections < 20
