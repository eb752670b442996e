"""fetch, against a small server of our own that can break off, forget ranges, send something else, or be dead."""

import hashlib
import http.server
import io
import json
import random
import re
import resource
import socket
import tarfile
import threading
import zipfile

import pytest

from pawlib.bench import fetch


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves server.files; `server.break_after[name]` is a list of byte counts after which answers break off."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        name = self.path.rsplit("/", 1)[-1]
        asked = self.headers.get("Range")
        self.server.asked.append((name, asked))
        body = self.server.files.get(name)
        if body is None:
            self.send_error(404)
            return
        start = int(re.match(r"bytes=(\d+)-$", asked)[1]) if asked and self.server.ranges else 0
        if start >= len(body) > 0:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        breaks = self.server.break_after.get(name)
        if breaks:
            self.wfile.write(body[start : start + breaks.pop(0)])
            self.close_connection = True
        else:
            self.wfile.write(body[start:])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(fetch, "_CHUNK", 512)
    monkeypatch.setattr(fetch, "_PAUSE_S", 0)
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.files, made.break_after, made.asked, made.ranges = {}, {}, [], True
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    made.base = f"http://127.0.0.1:{made.server_port}/data/"
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def zipped(members):
    """A zip archive with incompressible members, as bytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


MEMBERS = {f"{digit}/clip {digit}é.mp3": random.Random(digit).randbytes(1500) for digit in "0cf"}


@pytest.fixture
def dataset(server):
    """A small dataset on the server: a csv and a zip archive in three parts."""
    whole = zipped(MEMBERS)
    cuts = [0, 1500, 2800, len(whole)]
    parts = {f"mp3.zip.00{i + 1}": whole[cuts[i] : cuts[i + 1]] for i in range(3)}
    server.files = {"annotations_final.csv": b"clip_id\tmp3_path\n" * 100} | parts
    hashes = {name: hashlib.sha256(body).hexdigest() for name, body in server.files.items()}
    return fetch.Remote(bases=(server.base,), files=hashes, archive=tuple(parts), n_bytes=10_000)


def check(root):
    for name, content in MEMBERS.items():
        assert (root / name).read_bytes() == content
    assert not list(root.rglob("*.part"))


def test_everything_is_fetched_checked_and_unpacked(tmp_path, server, dataset):
    assert fetch.fetch("small", tmp_path / "root", dataset) == tmp_path / "root"
    check(tmp_path / "root")
    assert (tmp_path / "root/annotations_final.csv").read_bytes() == server.files["annotations_final.csv"]
    assert not (tmp_path / "root/mp3.zip").exists()  # the parts are read as one, not copied


def test_a_second_fetch_asks_for_nothing_even_without_the_parts(tmp_path, server, dataset):
    fetch.fetch("small", tmp_path, dataset)
    for name in dataset.archive:
        (tmp_path / name).unlink()
    server.asked.clear()
    fetch.fetch("small", tmp_path, dataset)
    assert server.asked == []
    (tmp_path / "c/clip cé.mp3").unlink()
    fetch.fetch("small", tmp_path, dataset)
    assert {name for name, _ in server.asked} == set(dataset.archive)
    check(tmp_path)


def test_an_answer_that_breaks_off_is_continued_where_it_stopped(tmp_path, server, dataset):
    server.break_after = {"mp3.zip.001": [600, 700]}
    fetch.fetch("small", tmp_path, dataset)
    asked = [range_ for name, range_ in server.asked if name == "mp3.zip.001"]
    assert asked == [None, "bytes=512-", "bytes=1024-"]  # whole pieces are kept
    check(tmp_path)


def test_a_part_file_of_an_earlier_run_is_continued(tmp_path, server, dataset):
    (tmp_path / "mp3.zip.002.part").write_bytes(server.files["mp3.zip.002"][:1000])
    fetch.fetch("small", tmp_path, dataset)
    assert ("mp3.zip.002", "bytes=1000-") in server.asked and ("mp3.zip.002", None) not in server.asked
    check(tmp_path)


def test_a_part_file_that_is_whole_already_is_taken(tmp_path, server, dataset):
    (tmp_path / "mp3.zip.002.part").write_bytes(server.files["mp3.zip.002"])
    fetch.fetch("small", tmp_path, dataset)
    check(tmp_path)


def test_a_part_file_longer_than_the_file_is_begun_anew(tmp_path, server, dataset):
    (tmp_path / "mp3.zip.002.part").write_bytes(b"x" * 99_999)
    fetch.fetch("small", tmp_path, dataset)
    check(tmp_path)


def test_a_server_without_ranges_is_read_from_the_beginning(tmp_path, server, dataset):
    server.ranges = False
    server.break_after = {"mp3.zip.001": [600]}
    fetch.fetch("small", tmp_path, dataset)
    check(tmp_path)


def test_the_second_address_continues_what_the_first_began(tmp_path, server, dataset, monkeypatch):
    monkeypatch.setattr(fetch, "_TRIES", 1)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{closed.getsockname()[1]}/"
    remote = fetch.Remote((dead, server.base), dataset.files, dataset.archive)
    (tmp_path / "mp3.zip.001.part").write_bytes(server.files["mp3.zip.001"][:700])
    fetch.fetch("small", tmp_path, remote)
    assert ("mp3.zip.001", "bytes=700-") in server.asked
    check(tmp_path)


def test_a_wrong_part_file_is_dropped_and_the_next_address_gives_the_whole(tmp_path, server, dataset):
    (tmp_path / "mp3.zip.001.part").write_bytes(b"x" * 700)
    remote = fetch.Remote((server.base, server.base + "again/"), dataset.files, dataset.archive)
    fetch.fetch("small", tmp_path, remote)
    check(tmp_path)


def test_a_dead_host_says_what_to_place_where_by_hand(tmp_path, server, dataset, monkeypatch):
    monkeypatch.setattr(fetch, "_TRIES", 2)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{closed.getsockname()[1]}/"
    remote = fetch.Remote((dead, server.base), {"gone.csv": "0" * 64}, page="http://example.org/page")
    with pytest.raises(ConnectionError) as error:
        fetch.fetch("small", tmp_path, remote)
    said = str(error.value)
    assert "gone.csv could not be fetched" in said and "404" in said and dead in said and server.base in said
    assert f"into {tmp_path} by hand" in said and "SHA-256 " + "0" * 64 in said and "http://example.org/page" in said


def test_files_placed_by_hand_are_checked_and_unpacked_without_the_host(tmp_path, server, dataset):
    for name, body in server.files.items():
        (tmp_path / name).write_bytes(body)
    fetch.fetch("small", tmp_path, dataset)
    assert server.asked == []
    check(tmp_path)


def test_something_else_under_the_name_is_refused_and_not_kept(tmp_path, server, dataset):
    server.files["mp3.zip.002"] = b"<html>moved</html>"
    with pytest.raises(ConnectionError, match="mp3.zip.002 .*another checksum"):
        fetch.fetch("small", tmp_path, dataset)
    assert not (tmp_path / "mp3.zip.002").exists() and not (tmp_path / "mp3.zip.002.part").exists()


def test_unpacking_goes_on_where_it_stopped(tmp_path, server, dataset):
    target = tmp_path / "0/clip 0é.mp3"
    target.parent.mkdir()
    target.write_bytes(MEMBERS["0/clip 0é.mp3"])
    kept = target.stat().st_mtime_ns
    half = tmp_path / "c/clip cé.mp3"
    half.parent.mkdir()
    half.write_bytes(b"half")
    fetch.fetch("small", tmp_path, dataset)
    check(tmp_path)
    assert target.stat().st_mtime_ns == kept


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "a\\..\\evil", "C:/evil"])
def test_members_that_would_land_outside_are_refused_before_anything_is_written(tmp_path, name):
    info = zipfile.ZipInfo("placeholder")
    info.filename = name
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("0/good", b"good")
        archive.writestr(info, b"evil")
    with pytest.raises(ValueError, match="lies outside the folder"):
        fetch.unpack([tmp_path / "bad.zip"], tmp_path / "root")
    assert {path.name for path in tmp_path.rglob("*")} == {"bad.zip"}


def test_links_in_an_archive_are_refused(tmp_path):
    info = zipfile.ZipInfo("0/link")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr(info, "/etc")
    with pytest.raises(ValueError, match="'0/link' is a link"):
        fetch.unpack([tmp_path / "bad.zip"], tmp_path / "root")


def test_a_missing_part_and_a_damaged_member_are_told(tmp_path):
    whole = zipped(MEMBERS)
    (tmp_path / "a.001").write_bytes(whole[:2000])
    with pytest.raises(ValueError, match="a.001 .* are no whole zip archive"):
        fetch.unpack([tmp_path / "a.001"], tmp_path / "root")
    damaged = bytearray(whole)
    at = whole.index(MEMBERS["c/clip cé.mp3"])
    damaged[at + 700] ^= 1
    (tmp_path / "a.002").write_bytes(damaged)
    with pytest.raises(ValueError, match="are no whole zip archive .*CRC-32.*Delete the parts"):
        fetch.unpack([tmp_path / "a.002"], tmp_path / "root")
    assert not (tmp_path / "root/c/clip cé.mp3").exists()


def test_too_little_space_and_unknown_datasets_are_refused(tmp_path, dataset):
    huge = fetch.Remote(dataset.bases, dataset.files, n_bytes=10**18)
    with pytest.raises(OSError, match=r"1,000,000,000,000,000,000 more bytes are needed") as error:
        fetch.fetch("small", tmp_path, huge)
    assert error.value.errno == fetch.errno.ENOSPC
    with pytest.raises(ValueError, match=r"'covers' cannot be fetched, expected one of \('mtat', 'gtzan', 'dcase2016'"):
        fetch.fetch("covers", tmp_path)


def test_a_disk_that_fills_up_keeps_the_part_file(tmp_path, server, dataset):
    """The kernel's own limit on file size stands in for the full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1750, before[1]))  # the csv is 1,700 bytes, the third part more
    try:
        with pytest.raises(OSError, match="the disk filled up .* what is fetched and unpacked is kept") as error:
            fetch.fetch("small", tmp_path, dataset)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert error.value.filename == str(tmp_path) and (tmp_path / "mp3.zip.003.part").stat().st_size <= 1750
    fetch.fetch("small", tmp_path, dataset)
    assert server.asked[-1][0] == "mp3.zip.003" and server.asked[-1][1].startswith("bytes=")
    check(tmp_path)


def test_the_real_datasets_are_described_in_full():
    assert list(fetch.DATASETS) == ["mtat", "gtzan", "dcase2016", "covers80", "shs100k-sub", "shs100k-full"]
    for name, remote in fetch.DATASETS.items():
        assert remote.bases and all(base.endswith("/") for base in (*remote.bases, *remote.homes.values()))
        assert set(remote.archive) <= set(remote.files) and remote.licence and remote.n_bytes > 9e5
        assert set(remote.homes) <= set(remote.files)
        published = [digest for digest in remote.files.values() if digest is not None]
        assert all(re.fullmatch("[0-9a-f]{64}|md5:[0-9a-f]{32}", digest) for digest in published)
        assert len(published) == len(remote.files) or name in ("covers80", "shs100k-full")


def test_archives_of_their_own_are_fetched_from_two_addresses_and_checked_by_md5(tmp_path, server):
    members = [{f"D/audio/{i}.wav": random.Random(i).randbytes(900), f"D/{i}.txt": b"x"} for i in range(2)]
    server.files = {f"{i}.zip": zipped(some) for i, some in enumerate(members)}
    sums = {name: f"md5:{hashlib.md5(body).hexdigest()}" for name, body in server.files.items()}
    remote = fetch.Remote(
        bases=("http://127.0.0.1:1/",), files=sums, archive=tuple(sums), separate=True,
        homes=dict.fromkeys(sums, server.base),
    )  # fmt: skip
    fetch.fetch("several", tmp_path, remote)
    assert json.loads((tmp_path / "fetched.json").read_text())["members"] == {"D": 4}
    for some in members:
        for name, content in some.items():
            assert (tmp_path / name).read_bytes() == content
    for name in sums:
        (tmp_path / name).unlink()
    server.asked.clear()
    fetch.fetch("several", tmp_path, remote)
    assert server.asked == []
    (tmp_path / "D/0.txt").unlink()
    server.files["0.zip"] = zipped({"D/0.txt": b"other"})
    with pytest.raises(ConnectionError, match=r"another checksum.*0.zip \(MD5 [0-9a-f]{32}\)"):
        fetch.fetch("several", tmp_path, remote)


def test_the_marker_is_plain_json_and_a_broken_one_only_means_checking_again(tmp_path, server, dataset):
    fetch.fetch("small", tmp_path, dataset)
    assert json.loads((tmp_path / "fetched.json").read_text())["members"] == {"0": 1, "c": 1, "f": 1}
    (tmp_path / "fetched.json").write_text("{")
    server.asked.clear()
    fetch.fetch("small", tmp_path, dataset)
    assert server.asked == []
    check(tmp_path)


# --- tar.gz -----------------------------------------------------------------------------------------------------------

TRACKS = {f"genres/{name}/{name}.00000.wav": random.Random(name).randbytes(1500) for name in ("blues", "jazz", "rock")}


def tarred(members, links=()):
    """A tar.gz archive with folders, as bytes."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        folder = tarfile.TarInfo("genres")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, target in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return file.getvalue()


def test_a_tar_gz_is_fetched_resumed_checked_and_unpacked_without_files_of_other_systems(tmp_path, server):
    body = tarred(
        {"./" + name: content for name, content in TRACKS.items()} | {"genres/jazz/._jazz.00000.wav": b"x" * 211}
    )
    server.files = {"genres.tar.gz": body}
    server.break_after = {"genres.tar.gz": [1200]}
    hashes = {"genres.tar.gz": hashlib.sha256(body).hexdigest()}
    remote = fetch.Remote(bases=(server.base,), files=hashes, archive=("genres.tar.gz",), n_bytes=10_000)
    fetch.fetch("genres", tmp_path, remote)
    assert [range_ for _, range_ in server.asked] == [None, "bytes=1024-"]
    found = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*.wav")}
    assert found == TRACKS
    assert json.loads((tmp_path / "fetched.json").read_text())["members"] == {"genres": 3}
    (tmp_path / "genres.tar.gz").unlink()  # no longer needed
    server.asked.clear()
    fetch.fetch("genres", tmp_path, remote)
    assert server.asked == []


def test_unpacking_a_tar_gz_goes_on_where_it_stopped(tmp_path):
    (tmp_path / "genres.tar.gz").write_bytes(tarred(TRACKS))
    kept = tmp_path / "genres/blues/blues.00000.wav"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(TRACKS["genres/blues/blues.00000.wav"])
    before = kept.stat().st_mtime_ns
    assert fetch.unpack([tmp_path / "genres.tar.gz"], tmp_path) == {"genres": 3}
    assert kept.stat().st_mtime_ns == before and len(list(tmp_path.rglob("*.wav"))) == 3


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "genres/../../evil"])
def test_members_of_a_tar_gz_that_would_land_outside_are_refused(tmp_path, name):
    (tmp_path / "bad.tar.gz").write_bytes(tarred({name: b"evil"}))
    with pytest.raises(ValueError, match="lies outside the folder"):
        fetch.unpack([tmp_path / "bad.tar.gz"], tmp_path / "root/deep")
    assert not list(tmp_path.rglob("evil"))


def test_links_in_a_tar_gz_are_refused(tmp_path):
    (tmp_path / "bad.tar.gz").write_bytes(tarred({}, links=[("genres/link", "/etc")]))
    with pytest.raises(ValueError, match="'genres/link' is a link"):
        fetch.unpack([tmp_path / "bad.tar.gz"], tmp_path / "root")


@pytest.mark.parametrize("damage", [lambda body: body[:2000], lambda body: b"<html>gone</html>"])
def test_a_tar_gz_that_is_cut_off_or_something_else_is_told(tmp_path, damage):
    (tmp_path / "genres.tar.gz").write_bytes(damage(tarred(TRACKS)))
    with pytest.raises(ValueError, match="genres.tar.gz .* are no whole tar.gz archive"):
        fetch.unpack([tmp_path / "genres.tar.gz"], tmp_path / "root")


@pytest.mark.parametrize(
    "url", ["http://example.org/other.tgz", "example.org/genres.tar.gz", "http://example.org/x?file=genres"]
)
def test_another_address_must_be_a_folder_or_a_file_of_the_dataset(url):
    with pytest.raises(ValueError, match="is no address of gtzan.*genres.tar.gz.*by hand"):
        fetch.at("gtzan", url)
    with pytest.raises(ValueError, match="'covers' cannot be fetched"):
        fetch.at("covers", "http://example.org/")
