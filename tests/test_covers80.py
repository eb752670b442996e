"""Covers80's reader: the two lists are the dataset, and every kind of damage is named."""

import pytest

from pawlib.bench.datasets import covers80

pytestmark = pytest.mark.filterwarnings("ignore:.*released list")
SONGS = ("Abracadabra", "Let_It_Be", "Tomorrow_Never_Knows")


@pytest.fixture
def root(tmp_path):
    """Three songs in two recordings, and one recording more that no list names."""
    folder = tmp_path / "covers80/coversongs/covers32k"
    for k, song in enumerate(SONGS):
        (folder / song).mkdir(parents=True)
        for artist in ("one", "two"):
            (folder / song / f"{artist}+Album+{k:02d}-{song}.mp3").write_bytes(b"x")
    (folder / "Let_It_Be/three+Album+01-Let_It_Be.mp3").write_bytes(b"x")
    (folder / "Let_It_Be/._three+Album+01-Let_It_Be.mp3").write_bytes(b"x")
    for list_name, artist in zip(covers80.LISTS, ("one", "two"), strict=True):
        lines = [f"{song}/{artist}+Album+{k:02d}-{song}" for k, song in enumerate(SONGS)]
        (folder / list_name).write_text("\n".join(lines) + "\n")
    return tmp_path / "covers80"


@pytest.fixture
def folder(root):
    return root / "coversongs/covers32k"


def quiet(root, **how):
    with pytest.warns(UserWarning, match="has 3 songs, the released list 80"):
        return covers80.read(root, **how)


def test_the_lists_are_read_and_not_the_folder(root):
    splits = quiet(root)
    assert splits.counts == (0, 0, 6) and splits.name == "covers80" and splits.labels == ()
    assert [track.work for track in splits.test] == [*SONGS, *SONGS]
    assert splits.test[0].id == "Abracadabra/one+Album+00-Abracadabra" and splits.test[0].artist == "one"
    assert all(track.path.is_file() and not track.target.size for track in splits.test)
    assert covers80.unlisted(root) == ["Let_It_Be/three+Album+01-Let_It_Be"]


def test_the_root_may_be_any_of_the_three_folders(root, folder):
    assert [t.id for t in quiet(root).test] == [t.id for t in quiet(folder).test]
    assert [t.id for t in quiet(root).test] == [t.id for t in quiet(folder.parent).test]


def test_a_missing_recording_is_counted_and_left_out(root, folder):
    gone = folder / "Let_It_Be/two+Album+01-Let_It_Be.mp3"
    gone.unlink()
    with pytest.warns(UserWarning, match="1 of 6 listed .* 1 songs lack a recording"):
        splits = covers80.read(root)
    assert splits.counts == (0, 0, 5) and splits.missing[0]["path"] == str(gone)
    assert quiet(root, missing="keep").counts == (0, 0, 6)
    with pytest.warns(UserWarning), pytest.raises(FileNotFoundError, match="1 of 6 .* stopped"):
        covers80.read(root, missing="error")


def test_what_is_not_there_says_how_to_get_it(root, folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is not there.*pawlib fetch covers80"):
        covers80.read(tmp_path / "nowhere")
    for song in SONGS:
        for path in (folder / song).glob("*.mp3"):
            path.unlink()
    with pytest.warns(UserWarning), pytest.raises(FileNotFoundError, match="all of them"):
        covers80.read(root)
    (folder / "list2.list").unlink()
    with pytest.raises(FileNotFoundError, match="holds list1.list and no list2.list"):
        covers80.read(root)
    (folder / "list1.list").unlink()
    with pytest.raises(FileNotFoundError, match="too high or too low"):
        covers80.read(root)
    (root / "covers80.tgz").touch()
    with pytest.raises(FileNotFoundError, match="not unpacked"):
        covers80.read(root)
    with pytest.raises(ValueError, match="missing='no'"):
        covers80.read(root, missing="no")


@pytest.mark.parametrize(
    ("lines", "match"),
    [
        (["Abracadabra/two+Album+00-Abracadabra"], "3 recordings and list2.list 1"),
        (["", ""], "names no recording"),
        (["Abracadabra", "b/c", "d/e"], "line 1: 'Abracadabra' is no recording"),
        (["../b/c", "b/c", "d/e"], "line 1: '../b/c' is no recording"),
        (["../c", "b/c", "d/e"], "line 1: '../c' is no recording"),
        (["Let_It_Be/x", "Abracadabra/x", "Tomorrow_Never_Knows/x"], "line 1 of the lists: .* two songs"),
        (["Abracadabra/one+Album+00-Abracadabra", "Let_It_Be/x", "Tomorrow_Never_Knows/x"], "comes twice"),
    ],
)
def test_a_damaged_list_is_refused_by_line(root, folder, lines, match):
    (folder / "list2.list").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=match):
        covers80.read(root)


def test_a_song_that_comes_twice_is_refused(root, folder):
    for name in covers80.LISTS:
        lines = (folder / name).read_text().splitlines()
        (folder / name).write_text("\n".join([*lines, lines[0] + "_again"]))
    with pytest.raises(ValueError, match="'Abracadabra' comes twice"):
        covers80.read(root)


def test_lists_of_another_encoding_and_with_extensions_are_read(root, folder):
    (folder / "list1.list").write_bytes(
        b"Abracadabra/b\xe9la+Album+00-Abracadabra.mp3\r\nLet_It_Be/one+Album+01-Let_It_Be\r\n"
        b"Tomorrow_Never_Knows/one+Album+02-Tomorrow_Never_Knows\r\n\r\n"
    )
    with pytest.warns(UserWarning):
        assert covers80.read(root, missing="keep").test[0].id == "Abracadabra/béla+Album+00-Abracadabra"
