"""A reader opens notebooks in JupyterLab: all cells run, a slider moves, the picture changes (`make browser`)."""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from pawlib import paths

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ("02_crops", "05_interaction", "10_pretrain_music_paw")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
SLIDER = ".jp-OutputArea .noUi-handle"
PICTURE = f".jp-CodeCell:has({SLIDER}) img"  # only what stands under a slider
CELLS_S, CHANGE_S = 240, 60

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian: apt-get install chromium)")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """(folder, address, token) of a JupyterLab that ends with the tests."""
    folder = tmp_path_factory.mktemp("lab")
    settings = folder / ".settings" / "@jupyterlab" / "notebook-extension" / "tracker.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"windowingMode": "none"}')  # else cells that are out of sight are not in the page
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"]
    command += [f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}", "--LabApp.news_url="]
    command += ["--ServerApp.port_retries=0", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    env = os.environ | {"PAWLIB_DATA": str(paths.data()), "JUPYTERLAB_SETTINGS_DIR": str(folder / ".settings")}
    env |= {"JUPYTERLAB_WORKSPACES_DIR": str(folder / ".workspaces"), "JUPYTER_RUNTIME_DIR": str(folder / ".runtime")}
    with open(folder / "lab.log", "w") as log:
        server = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    try:
        _wait_for(f"http://127.0.0.1:{port}/api/status?token={token}", server, folder / "lab.log")
        yield folder, f"http://127.0.0.1:{port}", token
    finally:
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(20)
        server.kill()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


def _wait_for(address, server, log, seconds=60):
    until = time.monotonic() + seconds
    while time.monotonic() < until and server.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=2):
            return
        time.sleep(0.3)
    raise RuntimeError(f"JupyterLab did not start within {seconds} s:\n{log.read_text()[-2000:]}")


def _run_all(page):
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


def _pictures(page):
    return page.locator(PICTURE).evaluate_all("images => images.map(image => image.src)")


def _move_first_slider(page):
    """Two steps with the keyboard, to the right or, at its end, to the left."""
    handle = page.locator(SLIDER).first
    handle.scroll_into_view_if_needed()
    handle.focus()
    before = handle.get_attribute("aria-valuenow")
    page.keyboard.press("ArrowRight")
    if handle.get_attribute("aria-valuenow") == before:
        page.keyboard.press("ArrowLeft")


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_slider_changes_the_picture(lab, browser, name, tmp_path):
    folder, address, token = lab
    shutil.copy(ROOT / "notebooks" / f"{name}.ipynb", folder)  # the committed one stays as it is
    page = browser.new_page(viewport={"width": 1400, "height": 2400})
    try:
        page.goto(f"{address}/lab/tree/{name}.ipynb?token={token}&reset")
        page.locator(".jp-Notebook").wait_for(timeout=60_000)
        page.wait_for_function(
            "() => document.querySelector('.jp-Notebook-ExecutionIndicator')?.dataset.status === 'idle'", timeout=60_000
        )
        assert _run_all(page) == 0, "a cell raised"
        page.locator(SLIDER).first.scroll_into_view_if_needed(timeout=30_000)
        page.locator(PICTURE).first.wait_for(timeout=30_000)
        page.wait_for_timeout(1000)
        before = _pictures(page)
        assert before, "the notebook shows no picture"
        _move_first_slider(page)
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
