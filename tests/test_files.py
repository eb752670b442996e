"""pawlib/bench/files.py: a file is the old one or the new one, and a broken JSON is named."""

import errno
import json
import stat

import pytest

from pawlib.bench import files


def test_a_finished_file_replaces_the_old_one(tmp_path):
    path = tmp_path / "folder" / "row.txt"
    for text in ("first", "second"):
        with files.atomic(path) as part:
            assert part.parent == path.parent and part != path
            part.write_text(text)
        assert path.read_text() == text
    assert [p.name for p in path.parent.iterdir()] == ["row.txt"]


def test_nothing_is_seen_before_the_end(tmp_path):
    path = tmp_path / "row.txt"
    with files.atomic(path) as part:
        part.write_text("half")
        assert not path.exists()


@pytest.mark.parametrize("error", [RuntimeError("stop"), KeyboardInterrupt(), OSError("odd")])
def test_an_error_leaves_the_old_file_and_no_rest(tmp_path, error):
    path = tmp_path / "row.txt"
    path.write_text("old")
    with pytest.raises(type(error)), files.atomic(path) as part:
        part.write_text("half of the new")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_reported_with_the_name_of_the_file(tmp_path):
    path = tmp_path / "store.bin"
    with pytest.raises(OSError, match="No space left on device while writing.*store.bin") as raised, files.atomic(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert raised.value.errno == errno.ENOSPC
    assert not list(tmp_path.iterdir())


def test_an_error_about_another_file_keeps_its_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="song.wav"), files.atomic(tmp_path / "row.txt"):
        open(tmp_path / "song.wav")


def test_a_written_file_has_the_usual_rights(tmp_path):
    files.write_json(tmp_path / "row.json", 1)
    assert stat.S_IMODE((tmp_path / "row.json").stat().st_mode) == 0o644


def test_json_comes_back_with_its_order_and_letters(tmp_path):
    row = {"system": "music_paw", "metrics": {"roc_auc": 0.5}, "work": "Dvořák", "a": [1, None, True]}
    files.write_json(tmp_path / "row.json", row)
    assert list(files.read_json(tmp_path / "row.json").items()) == list(row.items())
    text = (tmp_path / "row.json").read_text(encoding="utf-8")
    assert "Dvořák" in text and text.endswith("}\n")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}])
def test_what_is_no_json_is_refused_and_the_old_file_stays(tmp_path, value):
    path = tmp_path / "row.json"
    files.write_json(path, {"old": 1})
    with pytest.raises((ValueError, TypeError), match="JSON"):
        files.write_json(path, {"new": value})
    assert json.loads(path.read_text()) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_broken_json_file_is_named(tmp_path):
    path = tmp_path / "row.json"
    path.write_text('{"half": ')
    with pytest.raises(ValueError, match=r"row\.json is not valid JSON .*line 1.*cut off while copying"):
        files.read_json(path)


def test_a_missing_json_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.json"):
        files.read_json(tmp_path / "none.json")
