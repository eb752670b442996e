"""Gathering the audio of SHS100K with yt-dlp: one recording at a time, slowly, resumably, with a list of what failed.

Nobody publishes this audio. Whether you may gather it is between you, the sites and the law of your country; nothing
here does so unless you ask. yt-dlp (and ffmpeg, which it calls) are programs of your own, not dependencies.

    folder/<set>_<version>.mp3      what is there
    folder/.gathering/              what is on its way; moved into its place when it is whole
    folder/failed.json              id -> reason, address, and whether it is for good; what is, is not asked for again

Told in: notebooks/40_cover_songs.ipynb
"""

import dataclasses
import os
import random
import re
import shutil
import subprocess
import time
from pathlib import Path

from pawlib.bench.audio import EXTENSIONS
from pawlib.bench.files import locked, read_json, write_json
from pawlib.bench.progress import progress

TOOL = "yt-dlp"
PAUSE_S = (4.0, 12.0)  # after each recording, drawn between these
RATE = "1M"  # bytes per second
LIMIT_S = 900  # for one recording
MOST_FAILURES = 10  # in a row, for reasons that are not the recording's
FOR_GOOD = re.compile(
    r"unavailable|private video|has been removed|no longer available|not available|terminated|copyright|"
    r"account .*closed|does not exist|confirm your age|members-only",
    re.IGNORECASE,
)
TOO_FAST = re.compile(r"\b429\b|too many requests|not a bot|rate.?limit", re.IGNORECASE)


@dataclasses.dataclass
class Gathered:
    """What a call of `gather` did.

    n_there : int, recordings that are there now, of those asked for
    n_new   : int, of them gathered by this call
    failed  : dict of id to {"reason", "url", "for_good"}, those asked for that are not there and were tried
    n_left  : int, not there and not tried yet
    """

    n_there: int
    n_new: int
    failed: dict
    n_left: int


def gather(wanted, folder, limit=None, pause_s=PAUSE_S):
    """Gather recordings into a folder; only what is missing.

    Parameters
    ----------
    wanted : dict of str to str
        Id to address, the most wanted first.
    folder : path-like
        Made if missing. Files that you placed there yourself count as there, whatever their extension.
    limit : int, optional
        Ask for so many in this call, then stop.
    pause_s : (float, float) [s]
        Between two recordings.

    Returns
    -------
    Gathered

    Raises
    ------
    FileNotFoundError
        If yt-dlp or ffmpeg is not installed: it says what to place where instead.
    ConnectionError
        If the site asks to slow down, or many in a row fail for no reason of their own; what is gathered is kept.
    """
    folder = Path(folder)
    _check_tools(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, "gathering audio"):
        failed = read_json(folder / "failed.json") if (folder / "failed.json").is_file() else {}
        there = _there(folder)
        missing = [one for one in wanted if one not in there and not failed.get(one, {}).get("for_good")]
        n_new, in_a_row = 0, 0
        for k, one in enumerate(progress(missing[:limit], what="gathering", unit="recordings")):
            if k:
                time.sleep(random.uniform(*pause_s))
            reason = _one(one, wanted[one], folder)
            if reason is None:
                n_new, in_a_row = n_new + 1, 0
                failed.pop(one, None)
            else:
                for_good = bool(FOR_GOOD.search(reason)) or not _is_address(wanted[one])
                in_a_row = 0 if for_good else in_a_row + 1
                failed[one] = {"reason": reason, "url": wanted[one], "for_good": for_good}
            write_json(folder / "failed.json", failed)
            if reason and TOO_FAST.search(reason):
                raise ConnectionError(
                    f"the site asks to slow down ({reason}): wait some hours, then run the same command again; "
                    f"{n_new} recordings of this call are kept"
                )
            if in_a_row >= MOST_FAILURES:
                raise ConnectionError(
                    f"{in_a_row} recordings in a row could not be had, the last because: {reason}. Is the network "
                    f"there, and {TOOL} up to date? Run the same command again, what is gathered is kept"
                )
        there = _there(folder)
        lost = {one: told for one, told in failed.items() if one in wanted and one not in there}
        n_there = sum(one in there for one in wanted)
    return Gathered(n_there, n_new, lost, len(wanted) - n_there - len(lost))


def _check_tools(folder):
    absent = [tool for tool in (TOOL, "ffmpeg") if shutil.which(tool) is None]
    if absent:
        raise FileNotFoundError(
            f"{' and '.join(absent)} is not installed, so no audio can be gathered here. Install it, or place the "
            f"recordings that you have into {folder} by hand, as <set>_<version>.mp3 (or wav, flac, ogg)"
        )


def _there(folder):
    """Ids of the recordings in a folder."""
    names = [os.path.splitext(name) for name in os.listdir(folder) if not name.startswith(".")]
    return {stem for stem, dot in names if dot.lower() in EXTENSIONS}


def _is_address(url):
    return url.startswith(("http://", "https://"))


def _one(name, url, folder):
    """Gather one recording; None, or why not."""
    if not _is_address(url):
        return f"the list has no address for it ({url or 'empty'})"
    under_way = folder / ".gathering"
    under_way.mkdir(exist_ok=True)
    call = [
        TOOL, "--quiet", "--no-warnings", "--no-progress", "--no-playlist", "--extract-audio", "--audio-format", "mp3",
        "--limit-rate", RATE, "--retries", "3", "--socket-timeout", "30",
        "--output", str(under_way / f"{name}.%(ext)s"), "--", url,
    ]  # fmt: skip
    try:
        done = subprocess.run(call, capture_output=True, text=True, errors="replace", timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        return f"was not there after {LIMIT_S} s"
    made = under_way / f"{name}.mp3"
    if done.returncode or not made.is_file() or not made.stat().st_size:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        return said[-1].removeprefix("ERROR: ")[:300] if said else f"{TOOL} ended with {done.returncode} and no audio"
    os.replace(made, folder / made.name)
    return None
