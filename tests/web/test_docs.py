"""The page at /docs/ in a browser: every method is there, and one is tried out with a token."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from perilune.cli import scoring
from tests.integration.serving import Running, reward_service


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> str:
    return scoring.new_token(tokens_file(tmp_path_factory), "reader", ["reward"], None, None)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, token: str) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("service")
    with reward_service(folder, tokens_file=str(tokens_file(tmp_path_factory))) as running:
        yield running


def tokens_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp() / "docs-tokens.toml"


@pytest.fixture
def docs(service: Running, page: Page) -> Page:
    page.goto(f"{service.http}/docs/")
    return page


def opened(docs: Page, path: str) -> Locator:
    """A method's part of the page, unfolded."""
    operation = docs.locator(".opblock", has=docs.locator(f"[data-path='{path}']"))
    operation.locator(".opblock-summary").click()
    expect(operation.get_by_role("button", name="Execute")).to_be_visible()
    return operation


def executed(operation: Locator, status: int) -> object:
    """What the server answered, as JSON."""
    operation.get_by_role("button", name="Execute").click()
    answer = operation.locator(".live-responses-table")
    expect(answer.locator(".response-col_status").last).to_contain_text(str(status))
    return json.loads(answer.locator(".response-col_description pre").first.inner_text())


def test_every_method_is_listed(docs: Page) -> None:
    expect(docs.locator(".opblock-summary-path")).to_have_count(5)
    expect(docs.locator(".opblock-summary-path", has_text="score-batch")).to_be_visible()
    expect(docs.locator("#page")).not_to_contain_text("Resolver error")


def test_score_is_tried_out_with_a_token(docs: Page, token: str) -> None:
    score = opened(docs, "/reward/v1/score")
    assert executed(score, 401)["code"] == "UNAUTHENTICATED"
    docs.get_by_role("button", name="Authorize").first.click()
    docs.locator(".auth-container input").fill(token)
    docs.locator(".auth-container").get_by_role("button", name="Apply credentials").click()
    docs.get_by_role("button", name="Close").click()
    assert executed(score, 200)["score"]["value"] == 1.0  # of the example as it stands
    score.locator("textarea").fill('{"response": "4", "graders": [{"name": "exakt"}]}')
    assert "did you mean 'exact'" in executed(score, 400)["detail"]
