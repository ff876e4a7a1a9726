"""Each framework, with its own code from its reward's configuration to its reward, on a service that wants a token."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from perilune.cli import scoring
from tests.contract.frameworks.conftest import Framework, installed
from tests.integration.serving import reward_service

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The service's addresses, and a token for it."""
    folder = tmp_path_factory.mktemp("service")
    tokens = folder / "tokens.toml"
    token = scoring.new_token(tokens, "trainer", ["reward"], None, None)
    with reward_service(folder, tokens_file=str(tokens)) as service:
        yield {"address": service.address, "http": service.http, "token": token}


def run(framework: Framework, where: dict[str, str]) -> Any:
    """What its driver prints last."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PERILUNE_TOKEN": where["token"], "OMP_NUM_THREADS": "1"}
    command = [framework.python, str(HERE / "drivers" / framework.driver), json.dumps(where)]
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("framework", installed(), ids=str)
def test_right_is_1_wrong_is_0_and_no_score_is_neither(framework: Framework, where: dict[str, str]) -> None:
    result = run(framework, where)
    assert (result["right"], result["wrong"]) == (1.0, 0.0)
    if framework.name == "openrlhf":
        assert result["unscored"] == "None"  # which its trainer cannot train on
    else:
        assert "no score (GRADER_ERROR)" in result["unscored"]
