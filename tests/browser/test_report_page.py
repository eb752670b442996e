"""A colleague opens the report from disk, on a laptop and on a phone: all is there, nothing is fetched or overflows."""

import pytest
from labs import needs_chromium

from pawlib.show import report

LAPTOP, PHONE, PAPER = 1200, 400, 1030  # px; PAPER: A4 across, without its margins
NOT_IN_A_BOX = """() => [...document.querySelectorAll('body *')]
    .filter(one => one.getBoundingClientRect().right > innerWidth + 1)
    .filter(one => !one.closest('.scroll, .picture, pre, .formula'))
    .map(one => one.outerHTML.slice(0, 200))"""

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    return report.write(tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture(params=[(LAPTOP, "light"), (PHONE, "dark")], ids=["laptop", "phone"])
def opened(request, browser, page_file, tmp_path):
    """(page, width, what it asked for, what its console said)."""
    width, colours = request.param
    page = browser.new_page(viewport={"width": width, "height": 1000}, color_scheme=colours)
    asked, told = [], []
    page.on("request", lambda one: asked.append(one.url))
    page.on("console", lambda one: told.append(one.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    try:
        page.goto(page_file.as_uri())
        yield page, width, asked, told
    finally:
        page.screenshot(path=tmp_path / f"{width}.png")
        print(f"what the reader sees: {tmp_path / f'{width}.png'}")
        page.close()


def test_the_page_is_whole_without_a_network(opened, page_file):
    page, _, asked, told = opened
    assert [one for one in asked if not one.startswith("data:")] == [page_file.as_uri()] and told == []
    pictures = page.locator("img").evaluate_all("found => found.map(one => one.complete && one.naturalWidth > 0)")
    assert len(pictures) > 10 and all(pictures)
    drawn = page.locator("p .formula svg").evaluate_all("found => found.map(one => one.getBBox().width > 0)")
    assert len(drawn) > 10 and sum(drawn) > len(drawn) / 4  # those in folded sections have no box


def test_nothing_leaves_the_page_and_wide_tables_scroll_in_their_own_box(opened):
    page, width, _, _ = opened
    page.locator("details").evaluate_all("found => found.forEach(one => { one.open = true })")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate(NOT_IN_A_BOX) == []
    inner, outer = page.locator("#table-1 .scroll").evaluate("one => [one.scrollWidth, one.clientWidth]")
    assert outer < width and (width > PHONE or inner > outer)


def test_contents_lead_to_a_table_and_a_step_unfolds(opened):
    page, _, _, _ = opened
    page.locator("nav a[href='#state']").click()
    page.wait_for_function("() => Math.abs(document.querySelector('#state').getBoundingClientRect().top) < 80")
    folded = page.locator("details:not([open])").first
    step = folded.element_handle()
    folded.locator("summary").click()
    assert step.evaluate("one => one.open && one.offsetHeight > one.querySelector('summary').offsetHeight")


def test_letters_stand_out_in_both_colour_schemes(opened):
    page, _, _, _ = opened
    ink, paper = page.evaluate(
        "['color', 'backgroundColor'].map(one => getComputedStyle(document.body)[one].match(/\\d+/g).map(Number))"
    )
    assert abs(sum(ink[:3]) - sum(paper[:3])) > 450


def test_nothing_is_cut_off_on_paper(opened):
    page, _, _, _ = opened
    page.emulate_media(media="print", color_scheme="light")
    page.set_viewport_size({"width": PAPER, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") == PAPER
    assert page.locator(".command").first.is_hidden()  # too long for paper
