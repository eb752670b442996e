"""A reader opens the explorer (chapter 80) in JupyterLab: every kind of selector changes what is seen and heard."""

import pytest
from labs import CHANGE_S, SLIDER, move_first_slider, needs_chromium, open_and_run

NAME = "80_explore"
CELL = f".jp-CodeCell:has({SLIDER})"
LIST, CHECK = f"{CELL} .widget-dropdown select", f"{CELL} .widget-checkbox input"

pytestmark = needs_chromium


def _sources(page, kind):
    return page.locator(f"{CELL} {kind}").evaluate_all("found => found.map(one => one.src)")


def _changed(page, kind, before):
    """Wait until pictures or players are others; what they are then."""
    page.wait_for_function(
        "([where, before]) => JSON.stringify([...document.querySelectorAll(where)].map(one => one.src))"
        " !== JSON.stringify(before)",
        arg=[f"{CELL} {kind}", before],
        timeout=CHANGE_S * 1000,
    )
    return _sources(page, kind)


def _settled(page):
    """Pictures and players, once the kernel has nothing to do."""
    page.wait_for_timeout(500)
    page.wait_for_function(
        "() => document.querySelector('.jp-Notebook-ExecutionIndicator')?.dataset.status === 'idle'",
        timeout=CHANGE_S * 1000,
    )
    return _sources(page, "img"), _sources(page, "audio")


@pytest.fixture
def opened(lab, browser, tmp_path):
    """The chapter, all cells run, at the page."""
    page = browser.new_page(viewport={"width": 1400, "height": 2600})
    try:
        open_and_run(page, lab, NAME)
        page.locator(f"{CELL} audio").first.wait_for(state="attached", timeout=30_000)
        yield page
    finally:
        page.screenshot(path=tmp_path / f"{NAME}.png")
        print(f"what the reader sees: {tmp_path / NAME}.png")
        page.close()


def test_selectors_change_the_picture_and_the_players(opened):
    images, sounds = _settled(opened)
    assert len(images) == 1 and len(sounds) == 4, "one picture, the clip's player and those of three neighbours"
    assert images[0].startswith("data:image/png") and all(s.startswith("data:audio/mpeg") for s in sounds)

    move_first_slider(opened)  # the song: another picture, another clip
    assert _changed(opened, "img", images)[0] != images[0]
    assert _changed(opened, "audio", sounds)[0] != sounds[0]
    images, sounds = _settled(opened)

    opened.locator(LIST).select_option("3")  # neighbours at another level: the clip stays, its neighbours change
    assert _changed(opened, "img", images)[0] != images[0]
    after = _changed(opened, "audio", sounds)
    assert after[0] == sounds[0] and not set(after[1:]) & set(sounds[1:])
    images, sounds = _settled(opened)

    opened.locator(SLIDER).nth(4).focus()  # the hop: another log-mel, the same sounds
    opened.keyboard.press("ArrowLeft")
    assert _changed(opened, "img", images)[0] != images[0]
    images, after = _settled(opened)
    assert after == sounds

    opened.locator(CHECK).first.check()  # clips of the same song are let in
    assert _changed(opened, "img", images)[0] != images[0]
