"""The page in a real browser: needs Chromium, and `pip install playwright`."""

import json
import os
import shutil

import numpy as np
import pytest
from studies import write_run, write_suite

from rmlab.commands.report import main

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")]
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "a_very_long_name_without_a_single_space_in_it_" * 3,
    "[/b] $x^2$ & co",
]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """index.html of a study with hostile names and texts, a failed run, scores from outside, all tables and figures."""
    study = tmp_path_factory.mktemp("runs") / "study"
    generator = np.random.default_rng(0)
    subsets = [f"{HOSTILE[n % 4]} {n % 7}" for n in range(210)]
    texts = [(HOSTILE[n % 4], HOSTILE[(n + 1) % 4] + "\n\n- x" * 9, "word " * 50) for n in range(210)]
    judge = study.parent / "judge.jsonl"
    judge.write_text("".join(json.dumps({"id": n, "verdict": n % 2}) + "\n" for n in range(210)))
    for loss in ["plain", *HOSTILE]:
        for seed in range(2):
            for rate in (0.001, 0.002):
                gaps = generator.normal(0.5, 1, 210)
                name = loss.replace("/", "|")  # which no directory can have in its name
                told = {"subsets": subsets, "texts": texts, "trainer__learning_rate": rate}
                out = write_run(study, seed, gaps, loss=name, **told)
                write_suite(out, {subset: generator.random(9) > 0.5 for subset in HOSTILE})
    write_run(study, 9).write_error(RuntimeError("out of memory " + "x" * 300))
    main([str(study), "--scores", f"{HOSTILE[0]}={judge}"])
    return study / "report" / "index.html"


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        options = {"executable_path": CHROMIUM, "args": ["--no-sandbox"]}
        opened = started.chromium.launch(**options)
        yield opened
        opened.close()


def opened(browser, page, **context):
    """(the tab, what it said or asked for that it should not have)."""
    tab, wrong = browser.new_context(**context).new_page(), []
    tab.on("console", lambda message: wrong.append(message.text))
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("dialog", lambda dialog: wrong.append(dialog.message) or dialog.dismiss())
    tab.on("request", lambda asked: asked.url.startswith(("file:", "data:")) or wrong.append(asked.url))
    tab.goto(page.as_uri())
    tab.wait_for_load_state("networkidle")
    tab.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    return tab, wrong


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 800, 1200])
def test_nothing_is_cut_off_and_nothing_is_said(browser, page, width, scheme):
    """No console message, no request, no dialog; the page is as wide as the window; all figures are there."""
    tab, wrong = opened(browser, page, viewport={"width": width, "height": 900}, color_scheme=scheme)
    assert wrong == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    beyond = (
        "[...document.querySelectorAll('h1,h2,h3,p,li,dd,figcaption,summary')]"
        ".filter(e => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display != 'inline')"
        ".map(e => e.outerHTML)"
    )
    assert tab.evaluate(beyond) == []
    assert tab.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert tab.evaluate("document.images.length") >= 5
    if "RMLAB_SHOTS" in os.environ:
        tab.screenshot(path=f"{os.environ['RMLAB_SHOTS']}/{width}-{scheme}.png", full_page=True)


def test_it_prints_whole(browser, page):
    """On A4: no table is wider than the paper, and dark colours are not printed."""
    tab, wrong = opened(browser, page, viewport={"width": 718, "height": 1000}, color_scheme="dark")
    tab.emulate_media(media="print")
    assert wrong == []
    wide = "[...document.querySelectorAll('table,img')].filter(e => e.getBoundingClientRect().right > 719).length"
    assert tab.evaluate(wide) == 0
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.pdf(format="A4").startswith(b"%PDF")
    if "RMLAB_SHOTS" in os.environ:
        tab.screenshot(path=f"{os.environ['RMLAB_SHOTS']}/print.png", full_page=True)
