"""The command line: exit statuses, one-line errors, and what it prints at the end."""

import json
import re
import sys
import types

import numpy as np
import pytest
import soundfile

from pawlib import paths
from pawlib.bench import cli, store

RATE = 16000


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("PAWLIB_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def make_twin(root, n_tracks=4):
    """A twin of a few clips, in the layout of the real set."""
    lines, info = ['"clip_id"\t"a tag"\t"mp3_path"'], ['"clip_id"\t"artist"\t"original_url"\t"mp3_path"']
    for i, digit in zip(range(n_tracks), "0cdf", strict=False):
        path = root / digit / f"{i}.flac"
        path.parent.mkdir(parents=True)
        soundfile.write(path, 0.1 * np.random.default_rng(i).standard_normal(RATE), RATE)
        lines.append(f'"{i}"\t"{i % 2}"\t"{digit}/{i}.flac"')
        info.append(f'"{i}"\t"x"\t"work:{i}"\t"{digit}/{i}.flac"')
    (root / "annotations_final.csv").write_text("\n".join(lines) + "\n")
    (root / "clip_info_final.csv").write_text("\n".join(info) + "\n")
    (root / "twin.json").write_text(json.dumps({"name": "mtat-twin", "groups": {"timbre": ["a tag"]}}))
    return root


@pytest.mark.parametrize("command", ["fetch", "twins", "prepare", "pretrain"])
def test_every_command_explains_itself_with_an_example(command, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([command, "--help"])
    assert stop.value.code == 0
    assert re.search(rf"example: pawlib {command}", capsys.readouterr().out)


@pytest.mark.parametrize("arguments", [[], ["dance"], ["prepare"], ["prepare", "gtzan"], ["twins", "--size", "huge"]])
def test_unknown_words_exit_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2 and "usage: pawlib" in capsys.readouterr().err


def test_a_twin_is_prepared_into_the_store_of_its_name(data, capsys):
    make_twin(paths.twins("mtat", "toy"))
    assert cli.main(["prepare", "mtat", "--scale", "toy", "--workers", "0", "--verify"]) == 0
    assert "complete: 4 of 4 tracks" in capsys.readouterr().out
    assert store.Store.open(data / "store/mtat-twin-toy").ids == ("0", "1", "2", "3")


def test_bad_files_are_listed_and_only_strict_exits_with_1(data, capsys):
    root = make_twin(paths.twins("mtat", "small"))
    (root / "c/1.flac").write_bytes(b"")
    (root / "d/2.flac").unlink()
    assert cli.main(["prepare", "mtat", "--workers", "0"]) == 0
    said = capsys.readouterr()
    assert "left out: 1" in said.out and "not decoded: 1" in said.out and "1.flac: is empty (0 bytes)" in said.out
    assert re.search(r"^warning: 1 of 4 annotated clips", said.err, re.MULTILINE)
    assert cli.main(["prepare", "mtat", "--workers", "0", "--strict"]) == 1


def test_a_folder_of_ones_own_is_prepared_under_its_name(data, tmp_path, capsys):
    (tmp_path / "My Música").mkdir()
    soundfile.write(tmp_path / "My Música/曲.wav", 0.1 * np.random.default_rng(0).standard_normal(RATE), RATE)
    (tmp_path / "My Música/notes.txt").touch()
    assert cli.main(["prepare", "folder", str(tmp_path / "My Música"), "--workers", "0"]) == 0
    assert "notes.txt: extension .txt" in capsys.readouterr().out
    assert store.Store.open(data / "store/My Música").ids == ("曲.wav",)
    assert cli.main(["prepare", "folder", str(tmp_path / "My Música"), "--name", "mine", "--workers", "0"]) == 0
    assert (data / "store/mine/store.json").is_file()


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["prepare", "mtat"], "twins/mtat is not there.*pawlib twins"),
        (["prepare", "mtat", "--corpus", "real"], "raw/mtat is not there.*pawlib fetch mtat"),
        (["prepare", "mtat", "somewhere"], "a path and --name belong to `pawlib prepare folder`"),
        (["prepare", "folder"], "no folder given"),
        (["prepare", "folder", "nowhere"], "nowhere is not there, expected a folder of audio"),
        (["prepare", "folder", ".", "--name", "../up"], "is no plain folder name"),
        (["fetch", "gtzan"], "'gtzan' cannot be fetched"),
    ],
)
def test_bad_input_is_one_line_and_exits_with_2(arguments, said, capsys):
    assert cli.main(arguments) == 2
    printed = capsys.readouterr()
    assert re.search(rf"^pawlib {arguments[0]}: .*{said}", printed.err) and printed.err.count("\n") == 1
    assert printed.out == ""


def test_the_traceback_is_shown_on_request():
    with pytest.raises(FileNotFoundError, match="is not there"):
        cli.main(["--traceback", "prepare", "mtat"])


def test_an_os_error_names_its_file(monkeypatch, capsys):
    def full(*args, **kwargs):
        raise OSError(28, "the disk filled up", "/data/store/mtat")

    make_twin(paths.twins("mtat", "small"))
    monkeypatch.setattr(store, "prepare", full)
    assert cli.main(["prepare", "mtat"]) == 2
    assert capsys.readouterr().err == "pawlib prepare: /data/store/mtat: the disk filled up\n"


def test_ctrl_c_exits_with_130_and_says_how_to_continue(monkeypatch, capsys):
    def stopped(*args, **kwargs):
        raise KeyboardInterrupt

    make_twin(paths.twins("mtat", "small"))
    monkeypatch.setattr(store, "prepare", stopped)
    assert cli.main(["prepare", "mtat"]) == 130
    assert "run the same command again to continue" in capsys.readouterr().err


def test_twins_calls_the_maker_with_size_and_seed(data, monkeypatch, capsys):
    calls = []
    maker = types.ModuleType("pawlib.bench.twins.mtat")
    maker.make = lambda root, size, seed: calls.append((root, size, seed))
    monkeypatch.setitem(sys.modules, "pawlib.bench.twins.mtat", maker)
    assert cli.main(["twins", "--size", "toy", "--seed", "3"]) == 0
    assert calls == [(data / "twins/mtat-toy", "toy", 3)]
    assert "next: pawlib prepare mtat --corpus twin --scale toy" in capsys.readouterr().out


def test_pretrain_hands_its_arguments_to_the_engine(tmp_path, monkeypatch):
    calls = []
    engine = types.ModuleType("pawlib.bench.engine")
    engine.pretrain_music_paw = lambda **kwargs: calls.append(kwargs)
    monkeypatch.setitem(sys.modules, "pawlib.bench.engine", engine)
    monkeypatch.setattr("pawlib.bench.engine", engine, raising=False)
    assert cli.main(["pretrain", "--scale", "toy", "--variant", "cousins", "--out", str(tmp_path / "run")]) == 0
    assert calls == [
        {"corpus": "twin", "scale": "toy", "variant": "cousins", "encoder": "fcn_4", "seed": 0, "out": tmp_path / "run"}
    ]


def test_fetch_ends_with_what_to_do_next(data, monkeypatch, capsys):
    from pawlib.bench import fetch

    def fetched(dataset, root):
        root.mkdir(parents=True)
        (root / "mp3.zip.001").touch()

    monkeypatch.setattr(fetch, "fetch", fetched)
    assert cli.main(["fetch", "mtat"]) == 0
    said = capsys.readouterr().out
    assert "licence CC BY-NC-SA" in said and "mp3.zip.001 are no longer needed" in said
    assert "next: pawlib prepare mtat --corpus real" in said and (data / "raw/mtat").is_dir()
