"""folder: any names, any depth; what is not audio is listed, what cannot be used is said."""

import os
import unicodedata

import pytest

from pawlib.bench.datasets import folder, targets

NAMES = ["b.WAV", "a.flac", "sub/曲 № 1.mp3", "sub/deep/песня.ogg", "أغنية.wav", "emoji 🎵 'quote\".mp3"]


def filled(root, names=NAMES):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


def test_files_in_any_script_are_read_in_order_of_id(tmp_path):
    tracks = folder.read(filled(tmp_path))
    assert [track.id for track in tracks] == sorted(NAMES)
    assert all(track.path.is_file() and track.target.shape == (0,) and track.work == track.id for track in tracks)


def test_not_recursive_stays_at_the_top(tmp_path):
    tracks = folder.read(filled(tmp_path), recursive=False)
    assert {track.id for track in tracks} == {name for name in NAMES if "/" not in name}


def test_what_is_no_audio_is_counted_listed_and_left_out(tmp_path):
    filled(tmp_path, ["a.wav", "cover.jpg", "sub/notes.txt", "._a.wav", ".git/b.wav"])
    with pytest.warns(UserWarning, match="3 files are not audio and left out: ._a.wav, cover.jpg, notes.txt"):
        tracks = folder.read(tmp_path)
    assert [track.id for track in tracks] == ["a.wav"]
    others = folder.left_out(tmp_path)
    assert [(other["id"], other["reason"].split()[0]) for other in others] == [
        ("._a.wav", "hidden"),
        ("cover.jpg", "extension"),
        ("sub/notes.txt", "extension"),
    ]


def test_other_extensions_can_be_asked_for(tmp_path):
    filled(tmp_path, ["a.aiff", "b.AIFF"])
    assert len(folder.read(tmp_path, extensions=(".aiff",))) == 2


def test_composed_and_decomposed_names_give_one_id_and_never_collide(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "é.wav") for form in ("NFC", "NFD"))
    assert composed != decomposed
    filled(tmp_path / "mac", [decomposed])
    assert [track.id for track in folder.read(tmp_path / "mac")] == [composed]
    filled(tmp_path / "both", [composed, decomposed])
    assert {track.id for track in folder.read(tmp_path / "both")} == {composed, decomposed}


def test_names_that_are_no_unicode_get_an_id_that_can_be_written(tmp_path):
    try:
        (tmp_path / os.fsdecode(b"caf\xe9.wav")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes only Unicode names")
    (track,) = folder.read(tmp_path)
    assert track.id.encode("utf-8") and track.path.is_file()


def test_missing_empty_and_audioless_folders_and_files_are_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError, match="not there, expected a folder of audio"):
        folder.read(tmp_path / "gone")
    with pytest.raises(ValueError, match="holds nothing, expected .flac"):
        folder.read(tmp_path)
    filled(tmp_path, ["sub/a.wav", "cover.jpg"])
    with pytest.raises(ValueError, match=r"1 files, none of them audio \(subfolders were not looked into"):
        folder.read(tmp_path, recursive=False)
    with pytest.raises(ValueError, match="is a file"):
        folder.read(tmp_path / "cover.jpg")


def test_splits_by_seed_are_the_shares_asked_for_disjoint_and_repeatable(tmp_path):
    filled(tmp_path, [f"{i:02}.wav" for i in range(20)] + ["x.txt"])
    made = folder.splits(tmp_path, valid=0.2, test=0.1, seed=3)
    assert made.counts == (14, 4, 2) and made.name == tmp_path.name and made.labels == ()
    assert {track.id for track in made.tracks} == {f"{i:02}.wav" for i in range(20)} and len(made.missing) == 1
    again = folder.splits(tmp_path, valid=0.2, test=0.1, seed=3)
    other = folder.splits(tmp_path, valid=0.2, test=0.1, seed=4)
    assert [track.id for track in made.tracks] == [track.id for track in again.tracks]
    assert {track.id for track in made.valid} != {track.id for track in other.valid}


@pytest.mark.parametrize("valid, test", [(1.0, 0.0), (-0.1, 0.0), (0.5, 0.5)])
def test_impossible_shares_are_refused(tmp_path, valid, test):
    with pytest.raises(ValueError, match="expected each and their sum in"):
        folder.splits(filled(tmp_path), valid=valid, test=test)


def test_shares_that_leave_nothing_to_train_on_are_refused(tmp_path):
    with pytest.raises(ValueError, match="1 audio files: .* leave none to train on"):
        folder.splits(filled(tmp_path, ["a.wav"]), valid=0.6)


def test_no_tracks_have_no_targets():
    with pytest.raises(ValueError, match="no tracks"):
        targets([])
