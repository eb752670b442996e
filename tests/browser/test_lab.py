"""A reader opens notebooks in JupyterLab: all cells run, a slider moves, the picture changes (`make browser`)."""

import pytest
from labs import CHANGE_S, SLIDER, move_first_slider, needs_chromium, open_and_run

NOTEBOOKS = ("02_crops", "05_interaction", "10_pretrain_music_paw")
PICTURE = f".jp-CodeCell:has({SLIDER}) img"  # only what stands under a slider

pytestmark = needs_chromium


def _pictures(page):
    return page.locator(PICTURE).evaluate_all("images => images.map(image => image.src)")


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_slider_changes_the_picture(lab, browser, name, tmp_path):
    page = browser.new_page(viewport={"width": 1400, "height": 2400})
    try:
        open_and_run(page, lab, name)
        page.locator(PICTURE).first.wait_for(timeout=30_000)
        page.wait_for_timeout(1000)
        before = _pictures(page)
        assert before, "the notebook shows no picture"
        move_first_slider(page)
        page.wait_for_function(
            "([where, before]) => JSON.stringify([...document.querySelectorAll(where)].map(i => i.src))"
            " !== JSON.stringify(before)",
            arg=[PICTURE, before],
            timeout=CHANGE_S * 1000,
        )
        after = _pictures(page)
        assert after and set(after) - set(before), "the slider moved and no picture changed"
    finally:
        page.screenshot(path=tmp_path / f"{name}.png")
        print(f"what the reader sees: {tmp_path / name}.png")
        page.close()
