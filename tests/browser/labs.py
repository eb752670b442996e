"""What a reader does in JupyterLab, in the words of the tests: open a chapter, run all cells, move a slider."""

import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SLIDER = ".jp-OutputArea .noUi-handle"
CELLS_S, CHANGE_S = 240, 60
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not installed (Debian: apt-get install chromium)"
)


def open_and_run(page, lab, name):
    """Open a copy of a chapter (the committed one stays as it is), run all cells, and go to its first slider."""
    folder, address, token = lab
    shutil.copy(ROOT / "notebooks" / f"{name}.ipynb", folder)
    page.goto(f"{address}/lab/tree/{name}.ipynb?token={token}&reset")
    page.locator(".jp-Notebook").wait_for(timeout=60_000)
    page.get_by_text("| Idle").first.wait_for(timeout=60_000)  # the kernel is there, or running asks which to take
    assert run_all(page) == 0, "a cell raised"
    page.locator(SLIDER).first.scroll_into_view_if_needed(timeout=30_000)


def run_all(page):
    """Run all cells and wait until none is waiting or running; returns errors that cells show."""
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    # the last code cell has a number again, and no prompt is a star
    page.wait_for_timeout(1000)
    page.wait_for_function(
        "() => ![...document.querySelectorAll('.jp-InputPrompt')].some(p => p.textContent.includes('*'))"
        " && document.querySelector('.jp-Notebook-ExecutionIndicator')?.dataset.status === 'idle'",
        timeout=CELLS_S * 1000,
    )
    return page.locator(
        '.jp-RenderedText[data-mime-type="application/vnd.jupyter.stderr"]:has-text("Traceback")'
    ).count()


def move_first_slider(page):
    """Two steps with the keyboard, to the right or, at its end, to the left."""
    handle = page.locator(SLIDER).first
    handle.scroll_into_view_if_needed()
    handle.focus()
    before = handle.get_attribute("aria-valuenow")
    page.keyboard.press("ArrowRight")
    if handle.get_attribute("aria-valuenow") == before:
        page.keyboard.press("ArrowLeft")
