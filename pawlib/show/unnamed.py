"""Texts of machines without the names of machines and people: folders, users, hosts.

Told in: notebooks/00_start_here.ipynb
"""

import contextlib
import functools
import getpass
import re
import socket
import tempfile
from pathlib import Path

from pawlib import paths

EVERYBODY = {"root", "user", "admin", "ubuntu", "debian", "jovyan", "localhost", "runner"}  # names that name nobody
_HOMES = re.compile(r"(?:file://)?(?:/home|/Users|\b[A-Za-z]:[\\/]+Users)[\\/]+[^\s\\/'\"`<>]+")
_FOLDERS = re.compile(
    r"(?<![\w/<:.~…}$-])(?:file://)?(?:/|\b[A-Za-z]:\\+)(?:[^\s/\\:;,'\"`<>|()\[\]{}*?$]+[/\\]+)+(?=[^\s/\\]?)"
)


def without_names(text, people=True):
    """A text without the folders, and the user and host names, of the machine it was written on.

    Folders that we know get their word ("data", "~"); of any other absolute path the last name stays behind three
    dots. Names that are nobody's (root, ubuntu) stay.

    Parameters
    ----------
    text : str
    people : bool
        Also take out the names of this machine's user and of the machine.

    Returns
    -------
    str
    """
    for folder, word in _folders():
        text = re.sub(rf"(?:file://)?{re.escape(folder)}(?![\w.-])", word, text)
    text = _FOLDERS.sub("…/", _HOMES.sub("~", text))
    for name, word in _people() if people else ():
        text = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", word, text)
    return text


def _folders():
    """Known folders, the longest first, and what to call them."""
    checkout = Path(paths.__file__).resolve().parents[1]
    known = {str(checkout): ".", str(Path.home()): "~", str(Path(tempfile.gettempdir())): "…"}
    with contextlib.suppress(FileNotFoundError):
        known[str(paths.data())] = "data"
    return sorted(((f, w) for f, w in known.items() if len(f) > 1), key=lambda pair: -len(pair[0]))


@functools.cache
def _people():
    """Names of this user and this machine, and what to call them."""
    names = {}
    with contextlib.suppress(OSError, KeyError, ImportError):
        names[getpass.getuser()] = "user"
    host = socket.gethostname()
    names |= {host: "host", host.split(".")[0]: "host"}
    return [(name, word) for name, word in names.items() if len(name) > 1 and name.lower() not in EVERYBODY]


def one_line(error):
    """An error in one line, without names; its kind where it says nothing."""
    return without_names(" ".join(str(error).split())) or type(error).__name__
