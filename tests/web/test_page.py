"""The page in a browser, on finished runs: what it shows, by pointer, keyboard, and on a phone."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from perilune.runtime.blobs import Blobs
from tests.conftest import start_nats
from tests.web.conftest import Site, start_master
from tests.web.made import PICTURE, make_run

LONG, SHORT, OTHER = "long", "short", "other"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A master with a run of 1,000 iterations and 100,000 samples, and two short ones."""
    home = tmp_path_factory.mktemp("home")
    make_run(home / "perilune.db", LONG, 1000)
    make_run(home / "perilune.db", SHORT, 10, num_groups=2, group_size=8, tau=0.1)
    make_run(home / "perilune.db", OTHER, 10, num_groups=2, group_size=8, tau=0.05)
    with sqlite3.connect(home / "perilune.db") as database:
        steps = [(OTHER, 0, step, "warmup", 60, json.dumps({"loss": 3 / step}), step) for step in (1, 30, 60)]
        database.executemany("INSERT INTO stage_steps VALUES (?, ?, ?, ?, ?, ?, ?)", steps)
    Blobs(str(home / "blobs")).put_content(PICTURE)
    nats, nats_url = start_nats(home)
    master, ready = start_master(home, nats_url)
    try:
        yield Site(ready["http"] + "/", ready["address"], nats_url)
    finally:
        for process in (master, nats):
            process.terminate()
            process.wait()


def test_runs_are_listed_and_compared_by_keyboard_alone(site: Site, page: Page) -> None:
    page.goto(site.page)
    expect(page.locator("tbody tr")).to_have_count(3)
    expect(page.get_by_role("row", name=re.compile(f"^{SHORT}|{SHORT} ")).first).to_contain_text("10 of 10")
    compare = page.get_by_role("button", name="Compare")
    expect(compare).to_be_disabled()
    for run_id in (SHORT, OTHER):
        page.get_by_label(f"Compare {run_id}").focus()
        page.keyboard.press("Space")
    page.get_by_role("button", name="Compare 2 runs").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Comparison")).to_be_visible()
    # The recipes differ in one value, which the comparison finds.
    expect(page.get_by_role("row", name=re.compile(r"^trainer\.objective\.tau"))).to_contain_text("0.05")
    reward = page.locator("figure", has=page.get_by_text("Reward", exact=True))
    expect(reward.locator("polyline")).to_have_count(2)
    expect(reward.locator(".legend")).to_have_text(re.compile(f"{SHORT}.*{OTHER}"))


def test_a_stage_shows_its_steps_and_its_loss(site: Site, page: Page) -> None:
    page.goto(f"{site.page}#/run/{OTHER}")
    expect(page.get_by_role("row", name=re.compile("^warmup"))).to_contain_text("60 of 600.05")
    chart = page.locator("figure", has=page.get_by_text("Loss, nats a token, by step", exact=True))
    expect(chart.locator("polyline")).to_have_count(1)
    page.goto(f"{site.page}#/run/{SHORT}")
    expect(page.get_by_role("heading", name="Held-out accuracy", exact=True)).to_be_visible()
    expect(page.get_by_role("heading", name="Stages")).to_be_hidden()


def test_a_run_shows_its_curves_ledger_and_evaluations(site: Site, page: Page) -> None:
    page.goto(f"{site.page}#/run/{SHORT}")
    expect(page.get_by_role("heading", name=SHORT)).to_be_visible()
    for title in (
        "Held-out accuracy, 95 % interval",
        "Reward",
        "Length, tokens",
        "Entropy, nats a token",
        "Staleness, versions",
    ):
        expect(page.locator("figcaption", has_text=title)).to_be_visible()
    ledger = page.get_by_role("region", name="Ledger")
    expect(ledger).to_contain_text("balanced")
    expect(ledger.locator("div", has=page.get_by_text("trained", exact=True)).last).to_contain_text("160")
    evaluations = page.get_by_role("region", name="Held-out accuracy").locator("tbody tr")
    expect(evaluations).to_have_count(6)  # versions 0, 5 and 10, in two modes
    expect(page.locator("figure", has_text="Held-out accuracy").locator("polygon.band")).to_have_count(2)


def test_a_curve_is_read_with_the_arrow_keys(site: Site, page: Page) -> None:
    page.goto(f"{site.page}#/run/{SHORT}")
    figure = page.locator("figure", has=page.get_by_text("Reward", exact=True))
    figure.locator("svg").focus()
    page.keyboard.press("Home")
    expect(figure.locator("output")).to_have_text(re.compile(r"^at 1: "))
    page.keyboard.press("ArrowRight")
    expect(figure.locator("output")).to_have_text(re.compile(r"^at 2: "))
    page.keyboard.press("End")
    expect(figure.locator("output")).to_have_text(re.compile(r"^at 10: "))


def test_a_sample_is_shown_with_its_versions_ending_and_evidence(site: Site, page: Page) -> None:
    page.goto(f"{site.page}#/run/{SHORT}")
    samples = page.get_by_role("region", name="Samples")
    first = samples.get_by_role("article").first
    expect(first).to_contain_text(f"{SHORT}.9.0/0")
    expect(first).to_contain_text("which two of 13 0 8 make 24 ?")
    expect(first).to_contain_text("ended by stop")
    segments = first.locator(".segment")
    # What a model wrote is text, whatever it looks like.
    expect(segments).to_have_text(["13 + 0 = 23 low ", "13 + 8 = 21 <b>low</b> answer: 10 14"])
    hues = segments.evaluate_all("all => all.map((one) => one.style.getPropertyValue('--hue'))")
    assert len(set(hues)) == 2
    expect(first.locator(".version")).to_have_text(["v8", "v9"])
    first.get_by_text("Score and evidence").click()
    expect(first.locator("details")).to_contain_text("answer 10 14")


def test_a_sample_shows_its_images_and_says_which_is_gone(site: Site, page: Page) -> None:
    page.goto(f"{site.page}#/run/{SHORT}")
    seeing = page.get_by_role("article", name=f"{SHORT}.9.1/0")
    picture = seeing.get_by_role("img", name="image 1 of the prompt")
    expect(picture).to_be_visible()
    expect(seeing).to_contain_text("[image 0000000000000000: ")
    page.wait_for_function("(one) => one.naturalWidth === 32", arg=picture.element_handle())
    assert picture.evaluate("(one) => one.nextSibling.textContent") == "which two of 13 1 8 make 24 ?"


def test_samples_are_paged_and_picked_by_iteration(site: Site, page: Page) -> None:
    page.goto(f"{site.page}#/run/{LONG}")
    samples = page.get_by_role("region", name="Samples")
    expect(samples.get_by_text("1 to 10 of 100")).to_be_visible()
    samples.get_by_role("button", name="Next").click()
    expect(samples.get_by_text("11 to 20 of 100")).to_be_visible()
    iteration = samples.get_by_role("spinbutton")
    iteration.fill("500")
    iteration.press("Enter")
    expect(samples.get_by_role("article").first).to_contain_text(f"{LONG}.500.0/0")
    samples.get_by_label("Samples").select_option("held-out")
    samples.get_by_role("spinbutton").fill("1")
    samples.get_by_role("spinbutton").press("Enter")
    expect(samples.get_by_role("article").first).to_contain_text(f"{LONG}.0.greedy.0/0")


def test_a_long_run_stays_smooth(site: Site, page: Page) -> None:
    """Moving along the curves of 1,000 iterations, and drawing them anew, stays within a frame or few."""
    page.goto(f"{site.page}#/run/{LONG}")
    figure = page.locator("figure", has=page.get_by_text("Reward", exact=True))
    expect(figure.locator("output")).to_have_text(re.compile(r"^0\."))
    num_points = figure.locator("polyline").evaluate("line => line.points.numberOfItems")
    width = figure.locator("svg").evaluate("svg => svg.clientWidth")
    assert 200 < num_points <= 4 * width
    drawn_ms, moved_ms = page.evaluate(
        """() => {
          const select = document.querySelector("label.tool select");
          const timed = (work) => { const start = performance.now(); work(); return performance.now() - start; };
          const drawing = [5, 20, 50, 0, 5].map((window) => timed(() => {
            select.value = String(window);
            select.dispatchEvent(new Event("change"));
            document.body.getBoundingClientRect();
          }));
          const svg = document.querySelector("figure svg");
          const { left } = svg.getBoundingClientRect();
          const moving = Array.from({ length: 50 }, (_, i) => timed(() =>
            svg.dispatchEvent(new PointerEvent("pointermove", { clientX: left + 60 + 4 * i }))));
          const median = (all) => all.sort((a, b) => a - b)[all.length >> 1];
          return [median(drawing), median(moving)];
        }"""
    )
    assert drawn_ms < 500  # every chart of the page, on a slow and busy machine
    assert moved_ms < 50


def test_a_phone_shows_everything_without_scrolling_sideways(site: Site, browser: Browser) -> None:
    with browser.new_context(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True) as context:
        page = context.new_page()
        for route, heading in (
            ("", "Runs"),
            (f"#/run/{SHORT}", SHORT),
            ("#/fleet", "Fleet"),
            ("#/start", "Start a run"),
        ):
            page.goto("about:blank")
            page.goto(site.page + route)
            expect(page.get_by_role("heading", name=heading, exact=True)).to_be_visible()
            if heading == SHORT:
                expect(page.get_by_role("article").first).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), route


def test_nothing_is_fetched_from_outside(site: Site, page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for route in ("", f"#/run/{SHORT}", "#/fleet"):
        page.goto(site.page + route)
    expect(page.get_by_text("No dead letters.")).to_be_visible()
    assert asked
    assert [url for url in asked if not url.startswith(site.page)] == []


def test_an_unknown_run_is_said_to_be_unknown(site: Site, page: Page) -> None:
    page.goto(f"{site.page}#/run/nobody")
    expect(page.get_by_role("alert")).to_contain_text("there is no run 'nobody'")


def test_a_wrong_recipe_is_refused_with_the_key_at_fault(site: Site, page: Page) -> None:
    page.goto(f"{site.page}#/start/{SHORT}")
    recipe = page.get_by_label("Recipe, as JSON")
    expect(recipe).to_have_value(re.compile('"name": "made"'))
    recipe.fill(recipe.input_value().replace('"tau"', '"tua"'))
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("alert")).to_contain_text("tua")


def test_another_site_cannot_reach_the_api_through_a_readers_browser(site: Site, page: Page) -> None:
    request = page.request
    url = f"{site.page}master/v1/list-runs"
    assert request.post(url, data={}).ok
    assert request.post(url, data={}, headers={"Origin": "https://elsewhere.example"}).status == 403
    assert request.post(url, data={}, headers={"Host": "rebound.example"}).status == 403


def test_the_page_says_when_the_master_is_away_and_goes_on_when_it_is_back(tmp_path: Path, page: Page) -> None:
    make_run(tmp_path / "perilune.db", SHORT, 2, num_groups=1, group_size=2)
    nats, nats_url = start_nats(tmp_path)
    master, ready = start_master(tmp_path, nats_url)
    try:
        page.goto(f"{ready['http']}/#/fleet")
        expect(page.get_by_text("Nobody has joined.")).to_be_visible()
        master.kill()
        master.wait()
        expect(page.locator("#connection")).to_have_text("the master does not answer")
        (tmp_path / "ready.json").unlink()
        listen = ready["http"].removeprefix("http://")
        master, _ = start_master(tmp_path, nats_url, PERILUNE_HTTP_LISTEN=listen)
        expect(page.locator("#connection")).to_have_text("")
    finally:
        for process in (master, nats):
            process.kill()
            process.wait()
