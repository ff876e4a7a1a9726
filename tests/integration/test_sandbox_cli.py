"""`perilune exec`, with a sandbox of its own."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

from perilune.client import AsyncSandboxClient
from perilune.local.short_lived import own_sandbox

PROGRAM = """
import sys
print(sys.argv[1:], input(), open('beside.txt').read())
print('aside', file=sys.stderr)
sys.exit(3)
"""


def execute(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "perilune", "exec", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120, check=False)


def test_exec_is_as_if_the_program_ran_here(tmp_path: Path) -> None:
    program, beside = tmp_path / "main.py", tmp_path / "beside.txt"
    program.write_text(PROGRAM)
    beside.write_text("beside")

    done = execute("--file", str(beside), str(program), "one", "-x", stdin="in\n")
    assert (done.returncode, done.stdout) == (3, "['one', '-x'] in beside\n")
    assert done.stderr.splitlines()[0] == "aside"

    program.write_text("while True: pass")
    late = execute("--json", "--cpu", "0.3", str(program))
    assert (late.returncode, json.loads(late.stdout)["verdict"]) == (1, "VERDICT_TIME_LIMIT")


def test_exec_says_what_is_wrong(tmp_path: Path) -> None:
    unknown = tmp_path / "main.xyz"
    unknown.write_text("?")
    done = execute(str(unknown))
    assert (done.returncode, "name one with --language" in done.stderr) == (1, True)
    assert "cannot be read" in execute(str(tmp_path / "missing.py")).stderr


async def test_exec_speaks_for_itself_when_the_sandbox_goes_away(tmp_path: Path) -> None:
    program = tmp_path / "main.py"
    program.write_text("import time; time.sleep(60)")
    async with own_sandbox() as address:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "perilune", "exec", "--address", address, str(program)),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        async with AsyncSandboxClient(address) as sandbox:
            while not (await sandbox.status()).num_busy:
                await asyncio.sleep(0.05)
    said = (await process.communicate())[1].decode()
    assert (process.returncode, said.count("\n"), said.partition(": ")[0]) == (1, 1, "perilune")
