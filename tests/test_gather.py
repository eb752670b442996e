"""gather, against a program of our own in yt-dlp's place: it writes audio, refuses, or breaks off."""

import json
import stat
import types

import numpy as np
import pytest

from pawlib.bench import cli, fetch, gather
from pawlib.bench.datasets import shs100k

TOOL = """#!/bin/sh
echo "$@" >> {log}
for last; do :; done
while [ $# -gt 1 ]; do case $1 in --output) out=$2;; esac; shift; done
case $last in
  *gone*) echo "WARNING: x" >&2; echo "ERROR: [youtube] Video unavailable" >&2; exit 1;;
  *slow*) echo "ERROR: HTTP Error 429: Too Many Requests" >&2; exit 1;;
  *broken*) echo "ERROR: connection reset" >&2; exit 1;;
  *empty*) exit 0;;
esac
printf sound > "$(echo "$out" | sed 's/%(ext)s/mp3/')"
"""


@pytest.fixture
def log(tmp_path, monkeypatch):
    """The calls of the program, one a line; pauses are counted and not waited for."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("yt-dlp", "ffmpeg"):
        path = tools / name
        path.write_text(TOOL.format(log=tmp_path / "log.txt"))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    log = tmp_path / "log.txt"
    log.touch()

    def sleep(seconds):
        log.write_text(log.read_text() + f"pause {seconds}\n")

    monkeypatch.setattr(gather, "time", types.SimpleNamespace(sleep=sleep))  # its own: others may sleep meanwhile
    return log


def urls(*names):
    return {f"{k}_0": f"https://x/{name}" for k, name in enumerate(names)}


def calls(log):
    return [line.rsplit(" ", 1)[-1] for line in log.read_text().splitlines() if not line.startswith("pause")]


def test_recordings_are_gathered_one_by_one_with_pauses(tmp_path, log):
    got = gather.gather(urls("a", "b", "c"), tmp_path / "audio", pause_s=(2, 3))
    assert (got.n_there, got.n_new, got.failed, got.n_left) == (3, 3, {}, 0)
    assert sorted(path.name for path in (tmp_path / "audio").glob("*.mp3")) == ["0_0.mp3", "1_0.mp3", "2_0.mp3"]
    lines = log.read_text().splitlines()
    pauses = [float(line.split()[1]) for line in lines if line.startswith("pause")]
    assert len(pauses) == 2 and all(2 <= one <= 3 for one in pauses)
    assert all(f"--limit-rate {gather.RATE}" in line for line in lines if not line.startswith("pause"))


def test_a_second_call_asks_for_what_is_missing_alone(tmp_path, log):
    folder = tmp_path / "audio"
    folder.mkdir()
    (folder / "1_0.ogg").write_bytes(b"mine")
    got = gather.gather(urls("a", "b", "c"), folder, limit=1)
    assert (got.n_there, got.n_new, got.n_left) == (2, 1, 1)
    got = gather.gather(urls("a", "b", "c"), folder)
    assert (got.n_there, got.n_new, got.n_left) == (3, 1, 0)
    assert calls(log) == ["https://x/a", "https://x/c"]


def test_what_is_gone_for_good_is_listed_and_not_asked_for_again(tmp_path, log):
    wanted = urls("gone", "broken", "a", "empty") | {"9_0": "None"}
    got = gather.gather(wanted, tmp_path / "audio")
    assert got.n_there == 1 and set(got.failed) == {"0_0", "1_0", "3_0", "9_0"}
    assert got.failed["0_0"] == {"reason": "[youtube] Video unavailable", "url": "https://x/gone", "for_good": True}
    assert not got.failed["1_0"]["for_good"] and "no audio" in got.failed["3_0"]["reason"]
    assert "no address" in got.failed["9_0"]["reason"] and got.failed["9_0"]["for_good"]
    assert json.loads((tmp_path / "audio/failed.json").read_text()) == got.failed
    log.write_text("")
    wanted["1_0"] = "https://x/b"
    got = gather.gather(wanted, tmp_path / "audio")
    assert calls(log) == ["https://x/b", "https://x/empty"] and "1_0" not in got.failed


def test_a_site_that_asks_to_slow_down_is_obeyed(tmp_path, log):
    with pytest.raises(ConnectionError, match="asks to slow down .*429.* wait some hours"):
        gather.gather(urls("a", "slow", "b"), tmp_path / "audio")
    assert calls(log) == ["https://x/a", "https://x/slow"] and (tmp_path / "audio/0_0.mp3").is_file()


def test_many_failures_in_a_row_stop_the_call_and_gone_recordings_do_not_count(tmp_path, log):
    names = ["gone"] * 12 + ["broken"] * 12
    with pytest.raises(ConnectionError, match="10 recordings in a row .* connection reset"):
        gather.gather({f"{k}_1": f"https://x/{name}" for k, name in enumerate(names)}, tmp_path / "audio")
    assert len(calls(log)) == 22


def test_without_the_programs_it_says_what_to_place_where(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="yt-dlp and ffmpeg is not installed.*<set>_<version>.mp3"):
        gather.gather(urls("a"), tmp_path / "audio")


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def lists(tmp_path, monkeypatch):
    """The three lists on the disk in place of the download."""
    monkeypatch.setenv("PAWLIB_DATA", str(tmp_path))
    asked = []

    def fetched(dataset, root, remote=None):
        asked.append((dataset, root))
        root.mkdir(parents=True, exist_ok=True)
        if dataset == "shs100k-sub":
            for part, name in shs100k.FILES["sub"].items():
                np.save(root / name, np.array([f"{len(part)}_0", f"{len(part)}_1"] if part != "train" else ["1_0"]))
        else:
            rows = [f"{song}\t{k}\tTitle\tSomebody\thttps://x/{song}{k}\t1" for song in (1, 4, 5) for k in (0, 1)]
            (root / "list").write_text("\n".join(rows))

    monkeypatch.setattr(fetch, "fetch", fetched)
    return asked


def test_fetch_of_the_lists_says_what_to_place_where(tmp_path, lists, capsys):
    assert cli.main(["fetch", "shs100k-sub"]) == 0
    said = capsys.readouterr().out
    assert "about 1 MB" in said and "no audio is published" in said and str(tmp_path / "raw/shs100k/audio") in said
    assert lists == [("shs100k-sub", tmp_path / "raw/shs100k")]


@pytest.mark.filterwarnings("ignore:.*as published")
def test_fetch_gathers_the_test_part_first_and_says_what_survives(tmp_path, lists, log, capsys):
    assert cli.main(["fetch", "shs100k-sub", "--audio", "--limit", "3"]) == 0
    said = capsys.readouterr().out
    assert "3 new, 3 of 5 there, 2 not tried yet" in said
    assert "test 2 of 1,004 recordings, 1 of 207 songs" in said and "train 0 of 10,003" in said
    assert calls(log) == ["https://x/40", "https://x/41", "https://x/50"]
    assert lists[1] == ("shs100k-full", tmp_path / "raw/shs100k/meta")
    assert cli.main(["fetch", "shs100k-sub", "--audio"]) == 0
    assert "2 new, 5 of 5 there, 0 not tried yet" in capsys.readouterr().out and len(lists) == 3


def test_fetch_keeps_audio_to_the_dataset_it_belongs_to(lists, capsys):
    assert cli.main(["fetch", "covers80", "--audio"]) == 2
    assert "--audio and --limit belong to" in capsys.readouterr().err and not lists


def test_fetch_of_the_full_lists_lies_beside(tmp_path, lists, capsys):
    assert cli.main(["fetch", "shs100k-full"]) == 0
    assert lists == [("shs100k-full", tmp_path / "raw/shs100k/meta")]
    assert "next: pawlib prepare shs100k --corpus real" in capsys.readouterr().out
