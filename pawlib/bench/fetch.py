"""Downloading a dataset: resumed where it broke off, checked by its checksums, unpacked (zip, tar.gz) by member.

pooch decides what is missing and compares the checksums; its downloader is replaced by one that resumes a `.part` file
with an HTTP Range request, because the three parts of MagnaTagATune are a gigabyte each on a slow server.

Run again after any stop: whole files are kept, a part file is continued, unpacked members are skipped.
"""

import contextlib
import errno
import gzip
import io
import os
import shutil
import tarfile
import time
import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from pawlib.bench.datasets import dcase2016, shs100k
from pawlib.bench.files import locked, read_json, write_json
from pawlib.bench.progress import progress

_MIB = 2**20
_CHUNK = 2**16  # what a connection that breaks off may lose
_TIMEOUT_S = (15, 60)  # to connect, between two pieces
_TRIES = 5  # in a row without a new byte, before the next address is tried
_PAUSE_S = 2.0  # before the second try, twice that before the third


@dataclass(frozen=True)
class Remote:
    """Where a dataset lies and what it must be.

    Attributes
    ----------
    bases : tuple of str
        Addresses that hold the same files, tried in turn; each ends with a slash.
    files : dict of str to str
        File name to SHA-256 (hexadecimal), or to "md5:" and an MD5 where the makers publish no other, or to None where
        they publish none.
    archive : tuple of str
        Those files that, joined in this order, are one archive to unpack beside them, zip or, if they are called so,
        tar.gz; may be empty.
    separate : bool
        Each file of `archive` is an archive of its own.
    homes : dict of str to str
        File name to the address of its folder, where that is none of `bases`.
    n_bytes : int
        What the files and the unpacked archive take together, about.
    licence, page : str
    """

    bases: tuple
    files: dict
    archive: tuple = ()
    separate: bool = False
    homes: dict = field(default_factory=dict)
    n_bytes: int = 0
    licence: str = ""
    page: str = ""


DATASETS = {
    "mtat": Remote(
        bases=(
            "https://mirg.city.ac.uk/datasets/magnatagatune/",
            "http://mi.soi.city.ac.uk/datasets/magnatagatune/",
        ),
        files={
            "annotations_final.csv": "99b94e95825d4fa576386a5367b9c96e0ec636e9f9c240aceb492f4728f68c3c",
            "clip_info_final.csv": "cb6108a10d3a91f0bfd7d2fbec2382559d15f20c8d28093f14e12162a47a3e78",
            "mp3.zip.001": "f857fe185968773058cc71662c2ef5d8f2d4b7338e3c122cfd52f82dcb9760b9",
            "mp3.zip.002": "fc2e1ec441755556ed1398b1808f1b08b6034372f8bc27394510c0c58cdb52ce",
            "mp3.zip.003": "83a689824c17e82f6eb81cdbc4e4ca239a4cfc1fb41f1a5c80b861caec90450f",
        },
        archive=("mp3.zip.001", "mp3.zip.002", "mp3.zip.003"),
        n_bytes=6_100_000_000,
        licence="CC BY-NC-SA 3.0",
        page="https://mirg.city.ac.uk/codeapps/the-magnatagatune-dataset",
    ),
    "gtzan": Remote(
        bases=(  # a mirror, then the makers' own host, dead since 2022
            "https://huggingface.co/datasets/marsyas/gtzan/resolve/main/data/",
            "http://opihi.cs.uvic.ca/sound/",
        ),
        files={"genres.tar.gz": "24347e0223d2ba798e0a558c4c172d9d4a19c00bb7963fe055d183dadb4ef2c6"},
        archive=("genres.tar.gz",),
        n_bytes=2_600_000_000,
        licence="none stated",
        page="http://marsyas.info/downloads/datasets.html",
    ),
    "dcase2016": Remote(
        bases=(dcase2016.ADDRESSES[dcase2016.DEVELOPMENT],),
        files={name: f"md5:{md5}" for name, md5 in dcase2016.MD5.items()},
        archive=tuple(dcase2016.MD5),
        separate=True,
        homes={
            name: dcase2016.ADDRESSES[dcase2016.EVALUATION]
            for name in dcase2016.MD5
            if name.startswith(dcase2016.EVALUATION)
        },
        n_bytes=23_100_000_000,
        licence="free for non-commercial use, see EULA in its doc archives",
        page="https://zenodo.org/record/45739",
    ),
    "covers80": Remote(
        bases=("http://labrosa.ee.columbia.edu/projects/coversongs/covers80/",),
        files={"covers80.tgz": None},
        archive=("covers80.tgz",),
        n_bytes=330_000_000,
        licence="none stated",
        page="http://labrosa.ee.columbia.edu/projects/coversongs/covers80/",
    ),
    "shs100k-sub": Remote(  # the lists; a commit, then the branch as it is: the checksums are the same
        bases=tuple(
            f"https://raw.githubusercontent.com/yaoodng7/PEMR/{ref}/dataset/SHS100K/" for ref in ("bb8a9c15", "HEAD")
        ),
        files=shs100k.SHA256,
        n_bytes=1_000_000,
        licence="none stated; lists only",
        page="https://github.com/yaoodng7/PEMR",
    ),
    "shs100k-full": Remote(
        bases=("https://raw.githubusercontent.com/NovaFrost/SHS100K2/HEAD/meta/",),
        files=dict.fromkeys([*shs100k.FILES["full"].values(), "list"]),
        n_bytes=20_000_000,
        licence="none stated; lists only",
        page="https://github.com/NovaFrost/SHS100K2",
    ),
}
FOLDERS = {"shs100k-sub": "shs100k", "shs100k-full": "shs100k/meta"}  # where a dataset lies, if not under its name


def fetch(dataset, root, remote=None):
    """Download a dataset into a folder, check it and unpack it; only what is missing.

    Parameters
    ----------
    dataset : str
        One of DATASETS.
    root : path-like
        Its folder, made if missing.
    remote : Remote, optional
        Another place or another dataset; DATASETS[dataset] if not given.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    ValueError
        If the dataset is unknown, a file is not the one expected, or the archive is broken or unsafe.
    ConnectionError
        If no address gives a file: it says what to place where by hand.
    OSError
        If the disk is full.
    """
    remote = remote or _known(dataset)
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    with locked(root, f"fetching {dataset}"):
        if _is_complete(root, remote):
            return root
        _check_space(root, remote)
        with _told_if_full(root):
            for name, checksum in remote.files.items():
                _fetch_file(root, name, checksum, remote)
            members = Counter()
            for parts in [[name] for name in remote.archive] if remote.separate else [remote.archive]:
                members.update(unpack([root / name for name in parts], root) if parts else {})
            members = {top: min(n, _n_files(root / top)) for top, n in members.items()}  # a licence may lie in several
        write_json(root / "fetched.json", {"files": remote.files, "members": members})
    return root


def at(dataset, url):
    """A dataset's files at another address.

    Parameters
    ----------
    dataset : str
        One of DATASETS.
    url : str
        Of the folder that holds its files, ending with a slash, or of one of them.

    Returns
    -------
    Remote
        The same files with the same checksums, to be fetched from there alone.

    Raises
    ------
    ValueError
        If the dataset is unknown, or the address ends otherwise.
    """
    remote = _known(dataset)
    base, _, name = url.rpartition("/")
    if "://" not in url or name not in ("", *remote.files):
        raise ValueError(
            f"{url!r} is no address of {dataset}: expected one that ends with a slash, or with one of its files "
            f"({', '.join(remote.files)}). A file that you downloaded yourself is placed in the folder by hand"
        )
    return replace(remote, bases=(f"{base}/",), homes={})


def unpack(parts, root):
    """Unpack an archive that lies in several parts, as a stream: no joined copy is written.

    A member that is there in its full size is skipped; each is written beside its place and moved into it. A zip's
    CRC-32 are checked on the way. In a tar.gz, `._*` files of another system are left out.

    Parameters
    ----------
    parts : list of path-like
        In order.
    root : path-like

    Returns
    -------
    dict of str to int
        Number of files by top folder.

    Raises
    ------
    ValueError
        If the parts are no such archive, a member is damaged, or one would land outside `root`.
    """
    root, parts = Path(root), [Path(part) for part in parts]
    names = ", ".join(part.name for part in parts)
    is_tar = parts[0].name.endswith((".tar.gz", ".tgz"))
    try:
        with io.BufferedReader(_Joined(parts), _MIB) as joined:
            members = (_unpack_tar if is_tar else _unpack_zip)(joined, root, names)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError) as error:
        raise ValueError(
            f"{names} in {root}, joined in this order, are no whole {'tar.gz' if is_tar else 'zip'} archive ({error}): "
            "is a part missing or of another release? Delete the parts and fetch again"
        ) from error
    return dict(Counter(name.split("/")[0] for name in members))


def _known(dataset):
    """Where a dataset lies."""
    if dataset not in DATASETS:
        raise ValueError(
            f"dataset {dataset!r} cannot be fetched, expected one of {tuple(DATASETS)} (see data/README.md)"
        )
    return DATASETS[dataset]


class ResumingDownloader:
    """A downloader for pooch that continues `part` where an earlier attempt stopped.

    Parameters
    ----------
    part : pathlib.Path
        Kept until it is whole; pooch then compares its checksum.
    """

    def __init__(self, part):
        self.part = Path(part)

    def __call__(self, url, output_file, pooch, check_only=False):
        import requests

        failures = 0
        while True:
            had = self._size()
            try:
                self._continue(url)
                os.replace(self.part, output_file)
                return
            except requests.HTTPError:
                raise  # an answer, and it is no: trying again will not help
            except requests.RequestException:
                failures = 0 if self._size() > had else failures + 1
                if failures >= _TRIES:
                    raise
                time.sleep(_PAUSE_S * failures)

    def _size(self):
        return self.part.stat().st_size if self.part.exists() else 0

    def _continue(self, url):
        """One request from where the part file ends; raises requests.RequestException if it breaks off."""
        import requests

        have = self._size()
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_S) as answer:
            if answer.status_code == 416:  # nothing after `have`: whole already, or longer than the file is
                if answer.headers.get("Content-Range", "").endswith(f"/{have}"):
                    return
                self.part.unlink()
                raise requests.ConnectionError(f"the part file is longer than {url}, beginning anew")
            answer.raise_for_status()
            resumed = answer.status_code == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
            if answer.status_code == 206 and not resumed:
                self.part.unlink(missing_ok=True)
                raise requests.ConnectionError(f"{url} answered with another range than asked for, beginning anew")
            start = have if resumed else 0
            length = answer.headers.get("Content-Length")
            total = start + int(length) if length else None
            with open(self.part, "ab" if resumed else "wb") as file:
                written = _write(answer.iter_content(_CHUNK), file)
                n_mib = -(-(total - start) // _MIB) if total else None
                for _ in progress(written, total=n_mib, what=url.rsplit("/", 1)[-1], unit="MiB"):
                    pass
        if total is not None and self._size() < total:
            raise requests.ConnectionError(f"{url} broke off after {self._size():,} of {total:,} bytes")


def _fetch_file(root, name, checksum, remote):
    """One file from the first address that has it, by pooch."""
    import pooch
    import requests

    log = pooch.get_logger()
    level, said = log.level, []
    log.setLevel("WARNING")
    try:
        known = checksum if checksum is None or ":" in checksum else f"sha256:{checksum}"
        for base in [remote.homes[name]] if name in remote.homes else remote.bases:
            try:
                pooch.retrieve(base + name, known, name, root, downloader=ResumingDownloader(root / f"{name}.part"))
                return
            except requests.RequestException as error:
                said.append(f"{base}: {_short(error)}")
            except ValueError:  # pooch's word for another checksum; it has deleted the file
                said.append(f"{base}: sent something else (another checksum), perhaps an error page")
    finally:
        log.setLevel(level)
    raise ConnectionError(_by_hand(root, name, remote, said))


def _write(pieces, file):
    """Write pieces of a download; yields once per MiB."""
    n_bytes = 0
    for piece in pieces:
        file.write(piece)
        n_bytes += len(piece)
        while n_bytes >= _MIB:
            n_bytes -= _MIB
            yield
    if n_bytes:
        yield


def _short(error):
    """The cause at the bottom of requests' nested errors, in one line."""
    if error.response is not None:
        return f"{error.response.status_code} {error.response.reason}"
    reason = str(error.args[0] if error.args else error)
    return reason.rsplit(": ", 1)[-1].strip("'\")>")[:200] or type(error).__name__


def _by_hand(root, name, remote, said):
    files = "; ".join(f"{file} ({_named(checksum)})" for file, checksum in remote.files.items())
    page = f" Ask its makers ({remote.page}) or a colleague who has it." if remote.page else ""
    return (
        f"{name} could not be fetched: {' | '.join(said)}. If the host is dead for good, place these files into "
        f"{root} by "
        f"hand and run the same command again, it checks and unpacks them: {files}.{page}"
    )


def _named(checksum):
    """A checksum with its kind, for people."""
    if checksum is None:
        return "no checksum is published"
    return checksum.replace("md5:", "MD5 ") if ":" in checksum else f"SHA-256 {checksum}"


def _is_complete(root, remote):
    """Whether an earlier fetch finished, and its small files and unpacked folders are still there."""
    told = root / "fetched.json"
    if not told.is_file():
        return False
    try:
        done = read_json(told)
    except ValueError:
        return False
    if done.get("files") != remote.files:
        return False
    kept = [name for name in remote.files if name not in remote.archive]  # parts may be deleted once unpacked
    counts = done.get("members", {})
    return all((root / name).is_file() for name in kept) and all(_n_files(root / top) >= n for top, n in counts.items())


def _n_files(path):
    return sum(len(names) for _, _, names in os.walk(path)) if path.is_dir() else int(path.is_file())


def _check_space(root, remote):
    there = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    needed, free = remote.n_bytes - there, shutil.disk_usage(root).free
    if free < needed:
        raise OSError(
            errno.ENOSPC,
            f"{needed:,} more bytes are needed, {free:,} are free: free space or set PAWLIB_DATA to a folder on a "
            "larger disk",
            str(root),
        )


@contextlib.contextmanager
def _told_if_full(root):
    """Name the folder when the disk fills up on the way."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise OSError(
            error.errno,
            f"the disk filled up ({shutil.disk_usage(root).free:,} bytes free). Free space and run again: what is "
            "fetched and unpacked is kept",
            str(root),
        ) from error


# --- unpacking --------------------------------------------------------------------------------------------------------


class _Joined(io.RawIOBase):
    """Several files read as one, without copying them."""

    def __init__(self, paths):
        super().__init__()
        self._files = [open(path, "rb") for path in paths]
        self._ends, end = [], 0
        for file in self._files:
            end += os.fstat(file.fileno()).st_size
            self._ends.append(end)
        self._at = 0

    def readable(self):
        return True

    def seekable(self):
        return True

    def tell(self):
        return self._at

    def seek(self, offset, whence=io.SEEK_SET):
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._ends[-1]}[whence]
        if base + offset < 0:
            raise OSError(errno.EINVAL, "cannot seek before the beginning")
        self._at = base + offset
        return self._at

    def readinto(self, buffer):
        for i, end in enumerate(self._ends):
            if self._at < end:
                self._files[i].seek(self._at - (self._ends[i - 1] if i else 0))
                n_read = self._files[i].readinto(buffer)  # stops at the part's end; the next call goes on
                self._at += n_read
                return n_read
        return 0

    def close(self):
        for file in self._files:
            file.close()
        super().close()


def _unpack_zip(joined, root, names):
    """Names of the files of a zip archive, unpacked; all are checked before the first is written."""
    with zipfile.ZipFile(joined) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        for member in members:
            _check_member(member.filename, (member.external_attr >> 16) & 0o170000 == 0o120000, names)
        for member in progress(members, what="unpacking", unit="files"):
            _extract(lambda member=member: archive.open(member), member.filename, member.file_size, root)
    return [member.filename for member in members]


def _unpack_tar(joined, root, names):
    """Names of the files of a tar.gz archive, unpacked in one pass; each is checked before it is written."""
    done = []
    with tarfile.open(fileobj=joined, mode="r:gz") as archive:
        for member in progress(archive, what="unpacking", unit="files"):
            name = PurePosixPath(member.name).as_posix()  # without a leading dot
            if member.isdir() or PurePosixPath(name).name.startswith("._"):
                continue
            _check_member(name, not member.isreg(), names)
            _extract(lambda member=member: archive.extractfile(member), name, member.size, root)
            done.append(name)
    return done


def _check_member(name, is_link, names):
    """Refuse a member that would land outside the folder, or that is a link."""
    path = PurePosixPath(name)
    outside = path.is_absolute() or ".." in path.parts or "\\" in name or ":" in path.parts[0]
    if outside or is_link:
        what = "is a link" if is_link else "lies outside the folder"
        raise ValueError(f"{names}: member {name!r} {what}. This is no archive of the dataset: delete it")


def _extract(opened, name, n_bytes, root):
    """Write one member; `opened()` gives its content."""
    target = root / name
    if target.is_file() and target.stat().st_size == n_bytes:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.part")
    try:
        with opened() as source, open(temporary, "wb") as file:
            shutil.copyfileobj(source, file, _MIB)
        os.replace(temporary, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
