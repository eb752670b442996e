"""gtzan: the published split on made-up files of the real layout, the twin's own lists, and errors."""

import json

import numpy as np
import pytest

from pawlib.bench.datasets import gtzan, targets

PER_PART = 2


def some(n=PER_PART):
    """A few ids of each genre and part of the fault-filtered split, the bad one among them."""
    lists = gtzan.fault_filtered()
    parts = {
        part: [i for genre in gtzan.GENRES for i in [one for one in ids if one.startswith(f"{genre}.")][:n]]
        for part, ids in lists.items()
    }
    parts["train"].append("jazz.00054")
    return parts


def make(root, parts, extension=".wav", folder="genres"):
    """Empty files in the layout of the release."""
    for ids in parts.values():
        for track_id in ids:
            path = root / folder / track_id.split(".")[0] / f"{track_id}{extension}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return root


@pytest.fixture
def real(tmp_path):
    return make(tmp_path / "gtzan", some())


def read_some(root, **kwargs):
    with pytest.warns(UserWarning, match="listed tracks"):
        return gtzan.read(root, **kwargs)


def test_the_lists_have_the_published_counts_and_do_not_meet():
    lists = gtzan.fault_filtered()
    assert {part: len(ids) for part, ids in lists.items()} == {"train": 443, "valid": 197, "test": 290}
    assert len(set().union(*lists.values())) == 930
    assert {one.split(".")[0] for ids in lists.values() for one in ids} == set(gtzan.GENRES)


def test_442_of_the_training_tracks_can_be_used(tmp_path):
    splits = gtzan.read(make(tmp_path, gtzan.fault_filtered()))
    assert splits.counts == gtzan.COUNTS["fault_filtered"] == (442, 197, 290)
    (entry,) = splits.missing
    assert entry["id"] == "jazz.00054" and "cannot be decoded" in entry["reason"]
    assert entry["path"] == str(tmp_path / "genres/jazz/jazz.00054.wav")
    assert splits.name == "gtzan" and splits.split == "fault_filtered" and splits.single_label


def test_every_track_has_one_genre_in_alphabetical_columns(tmp_path):
    splits = gtzan.read(make(tmp_path, gtzan.fault_filtered()))
    assert splits.labels == tuple(sorted(splits.labels)) == gtzan.GENRES
    found = targets(splits.tracks)
    assert found.dtype == np.float32 and (found.sum(axis=1) == 1).all()
    for track, row in zip(splits.tracks, found, strict=True):
        assert track.id.startswith(f"{splits.labels[row.argmax()]}.") and track.path.parent.name in track.id
        assert (track.work, track.artist) == (track.id, "")
        assert track.path.is_file()


def test_the_split_can_be_studied_without_audio(tmp_path):
    splits = gtzan.read(tmp_path, missing="keep")
    assert splits.counts == (442, 197, 290) and not splits.train[0].path.exists()


def test_the_root_may_be_the_folder_of_genres_itself(real):
    whole, inside = read_some(real), read_some(real / "genres")
    assert [track.path for track in whole.tracks] == [track.path for track in inside.tracks]
    assert whole.counts == (10 * PER_PART, 10 * PER_PART, 10 * PER_PART)


def test_the_older_build_is_read_and_wav_goes_before_au(tmp_path):
    root = make(tmp_path, some(), extension=".au")
    assert {track.path.suffix for track in read_some(root).tracks} == {".au"}
    first = read_some(root).train[0]
    first.path.with_suffix(".wav").touch()
    assert read_some(root).train[0].path.suffix == ".wav"


def test_files_of_other_systems_and_tracks_outside_the_split_are_no_tracks(real):
    before = {track.id for track in read_some(real).tracks}
    listed = set().union(*gtzan.fault_filtered().values())
    outside = next(f"pop.{k:05d}" for k in range(100) if f"pop.{k:05d}" not in listed)
    for name in ("._pop.00099.wav", f"{outside}.wav", "notes.txt"):
        (real / "genres/pop" / name).write_bytes(b"x" * 211)
    assert {track.id for track in read_some(real).tracks} == before
    lonely = min(one for one in before if one.startswith("rock"))
    (real / f"genres/rock/{lonely}.wav").rename(real / f"genres/rock/._{lonely}.wav")
    assert {track.id for track in read_some(real).tracks} == before - {lonely}


def test_missing_tracks_are_counted_listed_and_refused_on_request(tmp_path):
    root = make(tmp_path, gtzan.fault_filtered())
    gone = gtzan.read(root).test[3]
    gone.path.unlink()
    with pytest.warns(UserWarning, match="1 of 930 listed tracks"):
        splits = gtzan.read(root)
    assert splits.counts == (442, 197, 289)
    assert {entry["id"] for entry in splits.missing} == {"jazz.00054", gone.id}
    with pytest.raises(FileNotFoundError, match=f"1 of 930 listed tracks .*e.g. {gone.id}"):
        gtzan.read(root, missing="error")
    assert gtzan.read(root, missing="keep").counts == (442, 197, 290)


def test_a_missing_folder_says_where_to_get_what(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is not there.*pawlib fetch gtzan.*genres/<genre>.*by hand"):
        gtzan.read(tmp_path / "nowhere")


def test_a_folder_without_genres_names_both_places(tmp_path):
    with pytest.raises(FileNotFoundError, match="neither genres/blues nor blues"):
        gtzan.read(tmp_path)


def test_an_archive_that_is_not_unpacked_is_noticed(tmp_path):
    (tmp_path / "genres.tar.gz").touch()
    with pytest.raises(FileNotFoundError, match="not unpacked.*tar xzf genres.tar.gz"):
        gtzan.read(tmp_path)


def test_missing_genre_folders_are_named(real):
    for genre in ("metal", "pop"):
        for path in (real / "genres" / genre).iterdir():
            path.unlink()
        (real / "genres" / genre).rmdir()
    with pytest.raises(FileNotFoundError, match=r"half unpacked.* 2 are missing \(metal, pop\)"):
        gtzan.read(real)


def test_empty_genre_folders_are_no_dataset(real):
    for path in (real / "genres").rglob("*.wav"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match="all of them"):
        gtzan.read(real)


@pytest.mark.parametrize("argument", [{"split": "random"}, {"missing": "ignore"}])
def test_unknown_arguments_list_the_known_ones(real, argument):
    (name,) = argument
    with pytest.raises(ValueError, match=f"{name}='{argument[name]}' is unknown, expected one of"):
        gtzan.read(real, **argument)


# --- the twin's lists -------------------------------------------------------------------------------------------------

LISTS = {"train": ["reel.00000", "jig.00000"], "valid": ["jig.00001"], "test": ["reel.00001"]}
WORKS = {"reel.00000": "work:a", "reel.00001": "work:b", "jig.00000": "work:c", "jig.00001": "work:d"}
TWIN = {"name": "gtzan-twin", "classes": ["jig", "reel"], "splits": LISTS, "works": WORKS}


@pytest.fixture
def twin(tmp_path):
    root = make(tmp_path / "twin", LISTS)
    (root / "twin.json").write_text(json.dumps(TWIN))
    return root


def test_a_twin_is_split_as_its_card_says(twin):
    splits = gtzan.read(twin)
    assert {part: [track.id for track in getattr(splits, part)] for part in LISTS} == LISTS
    assert splits.labels == ("jig", "reel") and splits.single_label and splits.missing == []
    assert (splits.name, splits.split) == ("gtzan-twin", "by_work")
    assert {track.id: track.work for track in splits.tracks} == WORKS
    np.testing.assert_array_equal(targets(splits.train), [[0, 1], [1, 0]])


@pytest.mark.parametrize("key", ["classes", "splits", "works"])
def test_a_card_of_another_dataset_is_refused(twin, key):
    (twin / "twin.json").write_text(json.dumps({k: v for k, v in TWIN.items() if k != key}))
    with pytest.raises(ValueError, match=f"twin.json lacks '{key}'.*pawlib twins gtzan"):
        gtzan.read(twin)


def test_a_track_of_no_class_or_work_is_named(twin):
    for told in ({**TWIN, "classes": ["reel"]}, {**TWIN, "works": {k: v for k, v in WORKS.items() if "jig" not in k}}):
        (twin / "twin.json").write_text(json.dumps(told))
        with pytest.raises(ValueError, match="lists 'jig.00000'"):
            gtzan.read(twin)
