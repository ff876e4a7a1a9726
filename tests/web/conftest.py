"""A real browser on a real master: chromium (Debian's package) driven by playwright."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
PATIENCE_MS = 30_000  # for a busy machine; nothing waits so long in earnest

expect.set_options(timeout=PATIENCE_MS)


@dataclass(frozen=True)
class Site:
    """A master with its page, and the bus behind it."""

    page: str
    address: str
    nats_url: str


def start_master(home: Path, nats_url: str, **settings: str) -> tuple[subprocess.Popen[bytes], dict[str, str]]:
    """The process and what its ready file says."""
    ready = home / "ready.json"
    environment = os.environ | {
        "PERILUNE_LISTEN": "127.0.0.1:0",
        "PERILUNE_HTTP_LISTEN": "127.0.0.1:0",
        "PERILUNE_NATS_URL": nats_url,
        "PERILUNE_HOME": str(home),
        "PERILUNE_READY_FILE": str(ready),
        "PERILUNE_EXIT_WITH_PARENT": "1",
        **settings,
    }
    process = subprocess.Popen([sys.executable, "-m", "services.master"], env=environment)
    deadline = time.monotonic() + 60
    while not ready.exists():
        assert process.poll() is None, "the master ended before it was ready"
        assert time.monotonic() < deadline, "the master did not get ready"
        time.sleep(0.02)
    return process, json.loads(ready.read_text())


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """While Playwright's loop runs, no test of coroutines can: it must end before another file's tests."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    assert program, "the page's tests need a browser: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    with browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce") as context:
        context.set_default_timeout(PATIENCE_MS)
        yield context


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A tab; a script error in it fails the test."""
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    assert not errors
