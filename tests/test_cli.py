"""The command line: exit statuses, one-line errors, and what it prints at the end."""

import json
import re
import sys
import types

import numpy as np
import pytest
import soundfile

from pawlib import model, paths
from pawlib.bench import cli, folders, store

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


@pytest.mark.parametrize("command", ["fetch", "twins", "prepare", "pretrain", "embed"])
def test_every_command_explains_itself_with_an_example(command, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([command, "--help"])
    assert stop.value.code == 0
    assert re.search(rf"example: pawlib {command}", capsys.readouterr().out)


@pytest.mark.parametrize(
    "arguments", [[], ["dance"], ["prepare"], ["prepare", "scenes"], ["twins", "--size", "huge"], ["twins", "scenes"]]
)
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
        (["prepare", "gtzan"], "twins/gtzan is not there.*pawlib twins gtzan"),
        (["prepare", "gtzan", "--corpus", "real"], "raw/gtzan is not there.*pawlib fetch gtzan"),
        (["fetch", "covers"], "'covers' cannot be fetched"),
        (["fetch", "gtzan", "--url", "http://example.org/other.tgz"], "is no address of gtzan.*genres.tar.gz"),
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


@pytest.mark.parametrize(("named", "dataset"), [([], "mtat"), (["mtat"], "mtat"), (["gtzan"], "gtzan")])
def test_twins_calls_the_maker_with_size_and_seed(named, dataset, data, monkeypatch, capsys):
    calls = []
    maker = types.ModuleType(f"pawlib.bench.twins.{dataset}")
    maker.make = lambda root, size, seed: calls.append((root, size, seed))
    monkeypatch.setitem(sys.modules, f"pawlib.bench.twins.{dataset}", maker)
    assert cli.main(["twins", *named, "--size", "toy", "--seed", "3"]) == 0
    assert calls == [(data / f"twins/{dataset}-toy", "toy", 3)]
    assert f"next: pawlib prepare {dataset} --corpus twin --scale toy" in capsys.readouterr().out


def test_the_command_line_knows_the_datasets_of_corpora():
    from pawlib.bench import corpora

    assert cli.DATASETS == corpora.DATASETS


def test_genres_are_prepared_by_their_own_reader(data, capsys):
    root = paths.twins("gtzan", "toy")
    lists = {"train": ["jig.00000"], "valid": [], "test": ["reel.00000"]}
    for i, track_id in enumerate(one for part in lists.values() for one in part):
        path = root / "genres" / track_id.split(".")[0] / f"{track_id}.wav"
        path.parent.mkdir(parents=True)
        soundfile.write(path, 0.1 * np.random.default_rng(i).standard_normal(RATE), RATE)
    works = {one: one for part in lists.values() for one in part}
    card = {"name": "gtzan-twin", "classes": ["jig", "reel"], "splits": lists, "works": works}
    (root / "twin.json").write_text(json.dumps(card))
    assert cli.main(["prepare", "gtzan", "--scale", "toy", "--workers", "0"]) == 0
    assert "complete: 2 of 2 tracks" in capsys.readouterr().out
    assert store.Store.open(data / "store/gtzan-twin-toy").ids == ("jig.00000", "reel.00000")


@pytest.fixture
def pretrained(monkeypatch):
    """What the engine and the door to the corpora are asked for, without doing it."""
    from pawlib.bench import corpora, engine

    calls = []

    def pretrain(build, corpus, system, encoder, **kwargs):
        calls.append((build().variant, corpus, system, encoder, kwargs))
        return None, [], kwargs["out"]

    monkeypatch.setattr(corpora, "open_corpus", lambda *args: calls.append(args) or "the corpus")
    monkeypatch.setattr(engine, "pretrain_at_scale", pretrain)
    return calls


def test_pretrain_hands_its_arguments_to_the_engine(tmp_path, pretrained, capsys):
    run = tmp_path / "run"
    assert cli.main(["pretrain", "--scale", "toy", "--variant", "cousins", "--seed", "2", "--out", str(run)]) == 0
    assert pretrained == [
        ("mtat", "twin", "toy"),
        ("cousins", "the corpus", "cousins", "fcn_4", {"scale": "toy", "seed": 2, "out": run}),
    ]
    assert f"complete: {run}" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [["--variant", "musicpaw"], ["--encoder", "fcn_5"]])
def test_an_unknown_variant_or_encoder_is_refused_before_anything_is_made(wrong, pretrained, capsys):
    assert cli.main(["pretrain", *wrong]) == 2
    said = capsys.readouterr().err
    assert wrong[1] in said and said.startswith("pawlib pretrain: ") and pretrained == []


def test_the_help_names_every_variant_of_the_model(capsys):
    from pawlib import model

    with pytest.raises(SystemExit):
        cli.main(["pretrain", "--help"])
    said = capsys.readouterr().out
    assert all(variant in said for variant in model.VARIANTS)


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


def test_fetch_takes_another_address(data, monkeypatch):
    from pawlib.bench import fetch

    asked = []
    monkeypatch.setattr(fetch, "fetch", lambda dataset, root, remote: asked.append((dataset, root, remote)))
    for url in ("http://example.org/gtzan/genres.tar.gz", "http://example.org/gtzan/"):
        assert cli.main(["fetch", "gtzan", "--url", url]) == 0
    for dataset, root, remote in asked:
        assert (dataset, root) == ("gtzan", data / "raw/gtzan") and remote.bases == ("http://example.org/gtzan/",)
        assert remote.files == fetch.DATASETS["gtzan"].files
    assert len(asked) == 2


@pytest.fixture
def weights(tmp_path):
    """A checkpoint file of a small geometry."""
    path = tmp_path / "small.safetensors"
    model.MusicPAW("baseline", whole_seconds=5.6, n_levels=2).save(path)
    return str(path)


def test_embed_says_how_much_was_embedded_and_exits_by_what_was_left_out(tmp_path, weights, capsys):
    music, out = tmp_path / "music", tmp_path / "e.parquet"
    music.mkdir()
    soundfile.write(music / "曲.ogg", 0.1 * np.random.default_rng(0).standard_normal(RATE), RATE)
    call = ["embed", str(music), "--out", str(out), "--model", weights, "--levels", "top"]
    assert cli.main(call) == 0
    assert re.search(r"embedded: 1 new, 0.00 h of audio in \d+ s, .* files/s, \d+x real time", capsys.readouterr().out)
    (music / "notes.txt").write_text("no music")
    assert cli.main(call) == 1
    said = capsys.readouterr().out
    assert "embedded: nothing new" in said and "left out: 1" in said and "notes.txt: extension .txt" in said
    assert "complete: 1 tracks" in said and "e.failed.json" in said
    assert cli.main([*call[:-1], "all"]) == 2
    assert "made with levels [0]" in capsys.readouterr().err


def test_embed_exits_with_2_where_nothing_could_be_done(tmp_path, weights, capsys):
    (tmp_path / "music").mkdir()
    (tmp_path / "music/a.mp3").write_bytes(b"")
    out = str(tmp_path / "e.parquet")
    assert cli.main(["embed", str(tmp_path / "music"), "--out", out, "--model", weights]) == 2
    assert "none of the 1 audio files" in capsys.readouterr().err
    assert cli.main(["embed", str(tmp_path / "nowhere"), "--out", out, "--model", weights]) == 2
    assert cli.main(["embed", str(tmp_path / "music"), "--out", out, "--model", "no-such-weights"]) == 2
    assert "no-such-weights is neither a file nor a released checkpoint" in capsys.readouterr().err


def test_the_help_of_embed_names_the_levels_of_folders():
    (command,) = [a for a in cli._parser()._subparsers._group_actions[0].choices.items() if a[0] == "embed"]
    (levels,) = [action for action in command[1]._actions if action.dest == "levels"]
    assert tuple(levels.choices) == folders.LEVELS
