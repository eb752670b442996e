"""Writing files so that a stop leaves the old one or the new one, never half of one; and one writer to a folder."""

import contextlib
import fcntl
import json
import os
import re
import sys
import tempfile
from pathlib import Path


@contextlib.contextmanager
def atomic(path):
    """Yield a temporary path beside `path`; on success it replaces `path` in one step, on any error it is removed.

    Parameters
    ----------
    path : path-like
        The file to write; its folder is made if missing.

    Raises
    ------
    OSError
        As the file system says (disk full, no permission), naming `path`; also where a library that writes has its
        own words for it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)  # mkstemp gives 0600; shared folders want the usual rights
        os.replace(temporary, path)
    except OSError as error:
        if error.filename in (None, name):
            raise OSError(error.errno, f"{error.strerror} while writing", str(path)) from error
        raise
    except Exception as error:
        number = _of_the_disk(error, temporary)
        if number is None:
            raise
        raise OSError(number, f"{os.strerror(number)} while writing", str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def _of_the_disk(error, temporary):
    """What the system said behind a library's error: its number, None where the disk is not to blame."""
    told = re.search(r"\(os error (\d+)\)", str(error))  # safetensors
    if told:
        return int(told[1])
    try:
        with open(temporary, "ab") as file:  # libsndfile says "System error" and no more: can one write?
            file.write(bytes(2**16))
    except OSError as found:
        return found.errno
    return None


def write_json(path, value):
    """Write `value` as indented JSON, atomically; keys keep their order, NaN is refused."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path):
    """Read a JSON file; a broken one is named in the error.

    Raises
    ------
    ValueError
        If the file is not valid JSON: it says which file and where.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:  # no JSON, or not even text
        raise ValueError(
            f"{path} is not valid JSON ({error}): was it edited by hand or cut off while copying?"
        ) from error


def remove_parts(folder):
    """Remove what killed writers left of files in a folder; whoever calls it holds the folder alone."""
    for part in Path(folder).glob(".*.part"):
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder, what):
    """Hold a folder alone: a second process waits, and says so; a killed one lets go by itself.

    Parameters
    ----------
    folder : path-like
        Gets a file `.lock`.
    what : str
        What the other is probably doing, for the message.
    """
    with open(Path(folder) / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{folder}: another process is {what}; waiting for it", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
