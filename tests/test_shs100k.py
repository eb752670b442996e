"""SHS100K's reader: three lists, a folder of what could be had, and what survives of the published counts."""

import numpy as np
import pytest

from pawlib.bench.datasets import shs100k

pytestmark = pytest.mark.filterwarnings("ignore:.*as published")
LISTS = {"train": ["1_0", "1_2", "2_0", "2_1"], "valid": ["3_0", "3_1"], "test": ["4_0", "4_1", "5_7", "5_8"]}


def write(root, lists=LISTS):
    for part, name in shs100k.FILES["sub"].items():
        np.save(root / name.removesuffix(".npy"), np.array(lists[part]))


@pytest.fixture
def root(tmp_path):
    (tmp_path / "audio").mkdir()
    write(tmp_path)
    for part in LISTS.values():
        for one in part:
            (tmp_path / f"audio/{one}.mp3").write_bytes(b"x")
    return tmp_path


def quiet(root, **how):
    with pytest.warns(UserWarning, match="lists .* as published"):
        return shs100k.read(root, **how)


def test_parts_works_and_paths(root):
    splits = quiet(root)
    assert splits.counts == (4, 2, 4) and (splits.name, splits.split, splits.labels) == ("shs100k", "sub", ())
    assert [track.id for track in splits.train] == LISTS["train"]
    assert [track.work for track in splits.test] == ["4", "4", "5", "5"]
    assert all(track.path.is_file() for track in splits.tracks) and splits.missing == []


def test_what_survives_is_told_beside_what_is_listed(root):
    for one in ("2_0", "2_1", "5_8"):
        (root / f"audio/{one}.mp3").unlink()
    with pytest.warns(UserWarning) as told:
        splits = shs100k.read(root)
    said = " ".join(str(one.message) for one in told)
    assert "train 2 of 4 recordings, 1 of 2 songs; valid 2 of 2 recordings, 1 of 1 songs" in said
    assert "test 3 of 4 recordings, 2 of 2 songs; 1 songs of test have one recording left" in said
    assert splits.counts == (2, 2, 3) and {one["id"] for one in splits.missing} == {"2_0", "2_1", "5_8"}
    assert shs100k.surviving(splits).startswith("train 2 of 10,003 recordings, 1 of 707 songs; valid 2 of 1,004")
    assert quiet(root, missing="keep").counts == (4, 2, 4)
    with pytest.warns(UserWarning), pytest.raises(FileNotFoundError, match="3 of 10 listed .* e.g. 2_0"):
        shs100k.read(root, missing="error")


def test_any_extension_counts_and_of_two_files_one_is_taken(root):
    (root / "audio/1_0.mp3").rename(root / "audio/1_0.FLAC")
    (root / "audio/1_2.wav").write_bytes(b"x")
    (root / "audio/2_0.mp3").rename(root / "audio/2_0.webm")
    (root / "audio/.2_0.mp3").write_bytes(b"x")
    with pytest.warns(UserWarning):
        splits = shs100k.read(root)
    assert [track.path.name for track in splits.train] == ["1_0.FLAC", "1_2.wav", "2_1.mp3"]


def test_what_is_not_there_says_what_to_place_where(root, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is not there"):
        shs100k.read(tmp_path / "nowhere")
    for path in (root / "audio").iterdir():
        path.unlink()
    with pytest.warns(UserWarning), pytest.raises(FileNotFoundError, match="all of them.*<set>_<version>.mp3"):
        shs100k.read(root)
    (root / "audio").rmdir()
    with pytest.warns(UserWarning), pytest.raises(FileNotFoundError, match="nothing to hear"):
        shs100k.read(root)
    assert quiet(root, missing="keep").counts == (4, 2, 4)
    (root / "SHS_VAL_SUB.npy").unlink()
    with pytest.raises(FileNotFoundError, match="SHS_VAL_SUB.npy is not there.*pawlib fetch shs100k-sub"):
        shs100k.read(root)
    for how in ({"split": "all"}, {"missing": "no"}, {"leaks": "no"}):
        with pytest.raises(ValueError, match="is unknown"):
            shs100k.read(root, **how)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"<html>404", "no array of strings"),
        (b"", "no array of strings"),
        (np.array([["1_0", "1_1"]]), "shape"),
        (np.array([], dtype=str), "shape"),
        (np.array(["1_0", "1-1"]), "entry 2: '1-1' is no recording"),
        (np.array(["1_0", "1_x"]), "entry 2"),
        (np.array(["1_0", "1_0"]), "'1_0' comes twice"),
        (np.array([3, 4]), "entry 1: '3'"),
    ],
)
def test_a_damaged_array_is_refused(root, content, match):
    path = root / "SHS_TRAIN_SUB.npy"
    path.write_bytes(content) if isinstance(content, bytes) else np.save(path, content)
    with pytest.raises(ValueError, match=match):
        shs100k.read(root)


def test_an_array_of_objects_is_read_as_strings_and_nothing_it_names_is_run(root):
    path = root / "SHS_TRAIN_SUB.npy"
    np.save(path, np.array(LISTS["train"], dtype=object), allow_pickle=True)
    assert [track.id for track in quiet(root).train] == LISTS["train"]

    class Malicious:
        def __reduce__(self):
            return (root / "was_here").mkdir, ()

    np.save(path, np.array([*LISTS["train"], Malicious()], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="SHS_TRAIN_SUB.npy is no array of strings: it wants .*nothing of it was run"):
        shs100k.read(root)
    assert not (root / "was_here").exists()


def full(root, **changes):
    lists = {"train": "1\t0\n1\t1\n9\t0\n", "valid": "9\t1\n9\t2\n", "test": "4\t0\n4\t1\n"} | changes
    for part, name in shs100k.FILES["full"].items():
        (root / "meta").mkdir(exist_ok=True)
        (root / "meta" / name).write_text(lists[part])


def test_a_song_that_crosses_the_parts_is_named_and_stays_in_the_later(root):
    full(root)
    with pytest.warns(UserWarning, match="1 songs cross the parts, 9 is in train and valid: left in the later part"):
        splits = shs100k.read(root, "full", missing="keep")
    assert [t.id for t in splits.train] == ["1_0", "1_1"] and [t.id for t in splits.valid] == ["9_1", "9_2"]
    assert [one["id"] for one in splits.missing] == ["9_0"] and splits.split == "full"
    with pytest.warns(UserWarning, match="kept in both"):
        assert shs100k.read(root, "full", missing="keep", leaks="keep").counts == (3, 2, 2)


def test_the_two_leaking_songs_of_the_published_lists_are_found(root):
    full(root, train="5982\t0\n1\t0\n", valid="5982\t1\n8110\t0\n", test="8110\t1\n4\t0\n")
    with pytest.warns(UserWarning, match="5982 is in train and valid, 8110 is in valid and test"):
        splits = shs100k.read(root, "full", missing="keep")
    assert shs100k.LEAKING == {"5982": ("train", "valid"), "8110": ("valid", "test")}
    works = [{track.work for track in part} for part in (splits.train, splits.valid, splits.test)]
    assert works == [{"1"}, {"5982"}, {"8110", "4"}]


def test_a_damaged_line_of_the_full_lists_is_refused(root):
    full(root, test="4\t0\nfour\t1\n")
    with pytest.raises(ValueError, match="line 2: 'four_1'"):
        shs100k.read(root, "full")
    full(root, test="")
    with pytest.raises(ValueError, match="names no recording"):
        shs100k.read(root, "full")


def test_the_file_list_gives_title_performer_and_address(root):
    (root / "list").write_text("1\t0\tYesterday\tThe\tBeatles\thttp://x/1\t1\n1\t2\tYesterday\tB\thttp://x/2\t0\n")
    assert shs100k.info(root)["1_0"] == {
        "title": "Yesterday",
        "performer": "The Beatles",
        "url": "http://x/1",
        "status": "1",
    }
    assert quiet(root).train[0].artist == "The Beatles"
    (root / "list").write_text("1\t0\tYesterday\n")
    with pytest.raises(ValueError, match="line 1: .* has not the columns"):
        shs100k.info(root)
    (root / "list").unlink()
    with pytest.raises(FileNotFoundError, match="pawlib fetch"):
        shs100k.info(root)
