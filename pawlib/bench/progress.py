"""One progress bar for long work: a bar where a person watches, a line every few seconds where nobody does."""

import sys
import time

from tqdm import tqdm


def progress(iterable, total=None, what="working", unit="it", every_s=10.0):
    """Iterate and tell how far it is, on standard error.

    A terminal gets a tqdm bar. A log file, papermill or nbval gets one plain line every `every_s` seconds, so that an
    executed notebook does not fill with bars.

    Parameters
    ----------
    iterable : iterable
    total : int, optional
        Number of items; taken from len(iterable) where it has one.
    what, unit : str
        What is being done, to what.
    every_s : float [s]
    """
    if total is None and hasattr(iterable, "__len__"):
        total = len(iterable)
    if sys.stderr.isatty():
        yield from tqdm(iterable, total=total, desc=what, unit=unit, dynamic_ncols=True)
        return
    start = told = time.monotonic()
    done = 0
    for item in iterable:
        yield item
        done += 1
        now = time.monotonic()
        if now - told >= every_s:
            told = now
            rate = done / (now - start)
            left = f", {(total - done) / rate:.0f} s left" if total else ""
            print(
                f"{what}: {done}{f' of {total}' if total else ''} {unit}, {rate:.1f} {unit}/s{left}",
                file=sys.stderr,
                flush=True,
            )
