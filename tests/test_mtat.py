"""mtat: the split and label rules on hand-made files, the published counts on a full-size imitation of the real csv."""

import csv
import json
import pickle

import numpy as np
import pytest

from pawlib.bench.datasets import Track, mtat, targets

# facts of the released file: rows by split, tagged rows, counts of the top 50 tags, number of tag columns
N_ALL = {"train": 18706 + 3, "valid": 1825, "test": 5329}
N_TAGGED = {"train": 15247 + 3, "valid": 1529, "test": 4332}
TOP_COUNTS = [4852, 4272, 3547, 2954, 2729, 2598, 2519, 2371, 2306, 2056, 1956, 1906, 1826, 1729, 1717, 1474, 1395,
              1296, 1279, 1211, 1184, 1158, 1093, 1086, 1055, 1025, 1016, 1002, 995, 995, 985, 926, 826, 741, 691, 688,
              665, 650, 649, 644, 644, 634, 623, 575, 573, 557, 541, 505, 505, 490]  # fmt: skip
N_COLUMNS = 188


def write_csv(path, header, rows):
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", quotechar='"', quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerows([header, *rows])


def write_info(root, ids, works=None, artists=None):
    header = ["clip_id", "track_number", "title", "artist", "album", "url", "segmentStart", "segmentEnd"]
    rows = [
        [
            i,
            1,
            f"title {i}",
            (artists or {}).get(i, f"artist {i}"),
            "album",
            "u",
            0,
            29,
            (works or {}).get(i, f"o/{i}"),
            "p",
        ]
        for i in ids
    ]
    write_csv(root / "clip_info_final.csv", [*header, "original_url", "mp3_path"], rows)


def make(root, tags, clips, audio=True, twin=None, **info):
    """A small dataset: clips is a list of (id, path, set of tags that hold)."""
    root.mkdir(parents=True, exist_ok=True)
    rows = [[i, *(int(tag in held) for tag in tags), path] for i, path, held in clips]
    write_csv(root / "annotations_final.csv", ["clip_id", *tags, "mp3_path"], rows)
    write_info(root, [i for i, _, _ in clips], **info)
    for _, path, _ in clips if audio else []:
        (root / path).parent.mkdir(exist_ok=True)
        (root / path).touch()
    if twin is not None:
        (root / "twin.json").write_text(json.dumps(twin), encoding="utf-8")
    return root


TWIN = {"name": "mtat-twin", "version": 1, "groups": {"timbre": ["brass"], "order": ["ab", "ba"]}}
CLIPS = [
    ("1", "0/a.flac", {"ab"}),
    ("2", "b/b.flac", {"ab", "brass"}),
    ("3", "c/c.flac", {"ba"}),
    ("4", "d/d.flac", {"ba", "ab"}),
    ("5", "e/e.flac", set()),
    ("6", "f/f.flac", {"brass"}),
]
TAGS = ["brass", "ba", "ab"]


@pytest.fixture
def twin(tmp_path):
    return make(tmp_path / "twin", TAGS, CLIPS, twin=TWIN)


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Annotations of the real file's size, layout and counts, without audio; column order is not that of frequency."""
    root = tmp_path_factory.mktemp("real")
    digits = {"train": "0123456789ab", "valid": "c", "test": "def"}
    names = [part for part, n in N_ALL.items() for _ in range(n)]
    n_rows = len(names)
    tagged = np.concatenate(
        [np.arange(n_tagged) + first for n_tagged, first in zip(N_TAGGED.values(), (0, 18709, 20534), strict=True)]
    )
    tagged = np.random.default_rng(0).permutation(tagged)
    untagged = np.setdiff1d(np.arange(n_rows), tagged)
    held = np.zeros((n_rows, N_COLUMNS), np.uint8)  # columns here in order of frequency
    at = 0
    for column, count in enumerate(TOP_COUNTS):  # laid round the tagged rows, so that each has at least one
        held[tagged[(at + np.arange(count)) % len(tagged)], column] = 1
        at += count
    for column in range(50, N_COLUMNS):  # rare tags, on clips without a frequent one
        held[np.roll(untagged, column)[: 489 - column], column] = 1
    rare = [f"rare {i}" for i in range(N_COLUMNS - 50)]
    # The file's columns in some order that keeps the tied ones (pop before no vocal, ...) as in the canonical list.
    shuffled = np.random.default_rng(1).permutation(N_COLUMNS)
    for tie in ([28, 29], [39, 40], [47, 48]):
        slots = np.sort(np.flatnonzero(np.isin(shuffled, tie)))
        shuffled[slots] = tie
    columns = [(list(mtat.TOP_50) + rare)[i] for i in shuffled]
    held = held[:, shuffled]
    ids = [str(10 * i + 2) for i in range(n_rows)]  # ends in 2: none of the three bad ids by chance
    for row, bad in zip(tagged[tagged < 18709][:3], mtat.BAD_CLIPS, strict=True):
        ids[row] = bad
    rows = [
        [ids[i], *held[i].tolist(), f"{digits[part][i % len(digits[part])]}/clip {i}-0-29.mp3"]
        for i, part in enumerate(names)
    ]
    write_csv(root / "annotations_final.csv", ["clip_id", *columns, "mp3_path"], rows)
    write_info(root, ids)
    return root


def test_the_published_counts_of_all_come_out(real):
    splits = mtat.read(real, split="all", missing="keep")
    assert splits.counts == mtat.COUNTS["all"] == (18706, 1825, 5329)
    assert splits.labels == mtat.TOP_50 and splits.name == "mtat" and splits.groups == {}


def test_the_published_counts_of_tagged_come_out(real):
    splits = mtat.read(real, split="tagged", missing="keep")
    assert splits.counts == mtat.COUNTS["tagged"] == (15247, 1529, 4332)
    assert all(track.target.any() for track in splits.tracks)


def test_the_three_bad_clips_are_left_out_and_named(real):
    splits = mtat.read(real, missing="keep")
    assert {entry["id"] for entry in splits.missing} == set(mtat.BAD_CLIPS)
    assert all("no decodable audio" in entry["reason"] for entry in splits.missing)
    assert not {track.id for track in splits.tracks} & set(mtat.BAD_CLIPS)


def test_the_canonical_labels_are_fifty_and_the_targets_follow_them(real):
    assert len(set(mtat.TOP_50)) == 50
    splits = mtat.read(real, missing="keep")
    found = targets(splits.tracks)
    assert found.shape == (25860, 50) and found.dtype == np.float32
    bad_ones = np.array(TOP_COUNTS) - found.sum(axis=0)
    assert bad_ones.min() >= 0 and 3 <= bad_ones.sum()  # counts are of all rows, the three bad clips among them


def test_another_set_of_counts_warns_and_keeps_the_canonical_order(tmp_path):
    root = make(tmp_path, list(mtat.TOP_50)[::-1], [("1", "0/a.mp3", {"harp"}), ("2", "d/b.mp3", {"piano"})])
    with pytest.warns(UserWarning, match="not the released file.*tag 1 is 'harp', expected 'guitar'"):
        splits = mtat.read(root)
    assert splits.labels == mtat.TOP_50
    assert splits.train[0].target[mtat.TOP_50.index("harp")] == 1 and splits.train[0].target.sum() == 1


def test_a_file_without_the_canonical_tags_is_not_the_real_one(tmp_path):
    with pytest.raises(ValueError, match="lacks 50 of the 50 canonical tags"):
        mtat.read(make(tmp_path, TAGS, CLIPS))


def test_the_folders_digit_decides_the_split(twin):
    splits = mtat.read(twin)
    assert [[track.id for track in part] for part in (splits.train, splits.valid, splits.test)] == [
        ["1", "2"], ["3"], ["4", "5", "6"]
    ]  # fmt: skip
    assert all(track.path.is_file() for track in splits.tracks)
    assert set(mtat.SPLIT_OF) == set(mtat.FOLDERS) and sorted(mtat.SPLIT_OF.values()).count("train") == 12


def test_tagged_leaves_out_clips_without_a_label(twin):
    assert [track.id for track in mtat.read(twin, split="tagged").test] == ["4", "6"]


def test_labels_are_the_most_frequent_first_and_ties_stay_in_column_order(twin):
    splits = mtat.read(twin)
    assert splits.labels == ("ab", "brass", "ba")  # 3, 2, 2
    np.testing.assert_array_equal(splits.train[1].target, [1, 1, 0])


def test_splits_go_to_a_worker_and_back(twin):
    splits = mtat.read(twin)
    copy = pickle.loads(pickle.dumps(splits))
    assert copy.counts == splits.counts == (2, 1, 3) and copy.test[0].path == splits.test[0].path
    assert repr(copy) == "Splits('mtat-twin', 'all': 2/1/3 tracks, 3 labels)"


def test_only_fifty_labels_are_kept(tmp_path):
    tags = [f"tag {i}" for i in range(60)]
    clips = [(str(i), f"0/{i}.flac", set(tags[i:])) for i in range(60)]  # tag i holds in i + 1 clips
    splits = mtat.read(make(tmp_path, tags, clips, twin={"name": "mtat-twin"}))
    assert splits.labels == tuple(reversed(tags[10:]))


def test_the_twins_groups_follow_the_order_of_the_labels(twin):
    splits = mtat.read(twin)
    assert splits.name == "mtat-twin" and splits.groups == {"timbre": ("brass",), "order": ("ab", "ba")}


def test_the_bad_clips_of_the_real_set_are_good_ones_in_a_twin(tmp_path):
    root = make(tmp_path, TAGS, [("35644", "0/a.flac", {"ab"})], twin=TWIN)
    assert [track.id for track in mtat.read(root).train] == ["35644"]


def test_work_is_the_original_url_and_falls_back_on_the_tracks_name(tmp_path):
    works = {"1": "work:bach/bwv1", "2": "work:bach/bwv1", "3": ""}
    splits = mtat.read(make(tmp_path, TAGS, CLIPS, twin=TWIN, works=works))
    assert [track.work for track in splits.train] == ["work:bach/bwv1"] * 2
    assert splits.valid[0].work == "track:artist 3/album/title 3"


def test_tracks_of_the_real_set_know_their_artist_and_a_twins_have_none(tmp_path):
    clips = [("1", "0/a.mp3", {"harp"}), ("2", "d/b.mp3", {"piano"})]
    with pytest.warns(UserWarning, match="not the released file"):
        splits = mtat.read(make(tmp_path / "real", list(mtat.TOP_50), clips, artists={"1": "Bach Soloists"}))
    assert [track.artist for track in splits.tracks] == ["Bach Soloists", "artist 2"]
    assert {track.artist for track in mtat.read(make(tmp_path / "twin", TAGS, CLIPS, twin=TWIN)).tracks} == {""}


def test_artists_that_cross_the_splits_are_counted(tmp_path):
    artists = {"1": "x", "2": "y", "3": "z", "4": "x", "5": "x", "6": "w"}
    root = make(tmp_path, TAGS, CLIPS, twin=TWIN, artists=artists)
    assert mtat.artists(root) == artists
    counted = mtat.crossing(mtat.read(root), mtat.artists(root))
    assert counted == {"n": 4, "n_crossing": 1, "n_test_heard": 2}


def test_clips_without_audio_are_counted_listed_and_left_out(twin):
    (twin / "d/d.flac").unlink()
    with pytest.warns(UserWarning, match="1 of 6 annotated clips .* no audio file, e.g. .*d.flac"):
        splits = mtat.read(twin)
    assert [track.id for track in splits.test] == ["5", "6"] and splits.labels == ("ab", "brass", "ba")
    (entry,) = splits.missing
    assert entry["id"] == "4" and entry["path"] == str(twin / "d/d.flac") and "not there" in entry["reason"]
    assert len(mtat.read(twin, missing="keep").test) == 3
    with pytest.raises(FileNotFoundError, match="1 of 6 annotated clips"):
        mtat.read(twin, missing="error")


def test_half_unpacked_says_which_folders_are_missing(twin):
    for name in ("b/b.flac", "f/f.flac"):
        (twin / name).unlink()
        (twin / name).parent.rmdir()
    with pytest.raises(FileNotFoundError, match=r"half unpacked: .* 2 are missing \(b, f\)"):
        mtat.read(twin)
    assert mtat.read(twin, missing="keep").counts == (2, 1, 3)


def test_folders_without_any_of_the_files_are_no_dataset(twin):
    for _, name, _ in CLIPS:
        (twin / name).unlink()
    with pytest.raises(FileNotFoundError, match="all of them. Does the root lie one folder higher"):
        mtat.read(twin)


def test_parts_not_yet_unpacked_say_how(tmp_path):
    root = make(tmp_path, list(mtat.TOP_50), [("1", "0/a.mp3", {"harp"})], audio=False)
    (root / "mp3.zip.001").touch()
    with pytest.raises(FileNotFoundError, match=r"mp3.zip.001 but none of the folders .*pawlib fetch mtat.*unzip"):
        mtat.read(root)


def test_missing_root_and_files_say_where_to_get_them(tmp_path, twin):
    with pytest.raises(FileNotFoundError, match="gone is not there.*pawlib fetch mtat.*pawlib twins"):
        mtat.read(tmp_path / "gone")
    (twin / "clip_info_final.csv").unlink()
    with pytest.raises(FileNotFoundError, match="clip_info_final.csv is not there"):
        mtat.read(twin)
    (twin / "annotations_final.csv").unlink()
    with pytest.raises(FileNotFoundError, match="annotations_final.csv is not there"):
        mtat.read(twin)


@pytest.mark.parametrize(
    "content, said",
    [
        ("", "no tab-separated header"),
        ("<html>gone</html>\n", "no tab-separated header.*web page"),
        ("clip_id,brass,mp3_path\n1,0,0/a.flac\n", "saved with commas"),
        ("clip_id\tbrass\tmp3_path\n", "a header and no rows"),
        ("brass\tba\tmp3_path\n1\t0\t0/a.flac\n", "expected clip_id, the tags, mp3_path"),
        ("clip_id\tbrass\tbrass\tmp3_path\n1\t0\t0\t0/a.flac\n", "column 'brass' comes twice"),
        ("clip_id\tbrass\tmp3_path\n1\t0\t0/a.flac\n2\t0\n", "line 3: 2 columns, expected 3"),
        ("clip_id\tbrass\tmp3_path\n1\tyes\t0/a.flac\n", "clip 1: tag 'brass' is 'yes', expected 0 or 1"),
        ("clip_id\tbrass\tba\tmp3_path\n1\t10\t\t0/a.flac\n", "clip 1: tag 'brass' is '10', expected 0 or 1"),
        ("clip_id\tbrass\tmp3_path\n1\t0\t0/a.flac\n1\t0\t0/b.flac\n", "clip 1 comes twice"),
        ("clip_id\tbrass\tmp3_path\n1\t0\tg/a.flac\n", "mp3_path is 'g/a.flac', expected one of the folders 0 to f"),
        ("clip_id\tbrass\tmp3_path\n1\t0\t../../etc/x\n", "expected one of the folders"),
        ("clip_id\tbrass\tmp3_path\n1\t0\t0/..\n", "expected one of the folders"),
        ("clip_id\tbrass\tmp3_path\n1\t0\t\n", "expected one of the folders"),
    ],
)
def test_malformed_annotations_are_named_with_their_place(twin, content, said):
    (twin / "annotations_final.csv").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=said):
        mtat.read(twin)


def test_malformed_clip_info_and_twin_json_are_named(twin):
    (twin / "twin.json").write_text('{"name": "mtat-twin", "groups": {"order": ["ghost"]}}')
    with pytest.raises(ValueError, match="twin.json names tag 'ghost'"):
        mtat.read(twin)
    (twin / "twin.json").write_text('{"name": ')
    with pytest.raises(ValueError, match="twin.json is not valid JSON"):
        mtat.read(twin)
    (twin / "twin.json").write_text(json.dumps(TWIN))
    write_info(twin, ["1", "2"])
    with pytest.raises(ValueError, match="no row for 4 of 6 annotated clips, the first is 3"):
        mtat.read(twin)
    write_csv(twin / "clip_info_final.csv", ["clip_id", "title"], [["1", "x"]])
    with pytest.raises(ValueError, match="no column 'original_url'"):
        mtat.read(twin)


@pytest.mark.parametrize("argument", [{"split": "pons"}, {"missing": "ignore"}])
def test_unknown_arguments_name_the_choices(twin, argument):
    with pytest.raises(ValueError, match="is unknown, expected one of"):
        mtat.read(twin, **argument)


def test_events_are_read_in_order_and_checked(tmp_path):
    track = Track("7", tmp_path / "name.with.dots.flac", np.zeros(1), "w")
    path = tmp_path / "name.with.dots.json"
    with pytest.raises(FileNotFoundError, match="only twins know when a tag holds"):
        mtat.events(track)
    later = {"tag": "drums", "group": "part", "start_s": 20.0, "end_s": 25.5}
    sooner = {"tag": "trill", "group": "part", "start_s": 1.5, "end_s": 3.0}
    path.write_text(json.dumps({"clip_id": 7, "duration_s": 29.124, "events": [later, sooner]}))
    assert mtat.events(track) == [sooner, later]
    path.write_text(json.dumps({"clip_id": "8", "events": []}))
    with pytest.raises(ValueError, match="tells of clip 8, expected 7"):
        mtat.events(track)
    path.write_text(json.dumps({"clip_id": "7", "events": [sooner | {"end_s": 1.0}]}))
    with pytest.raises(ValueError, match="does not end after it starts"):
        mtat.events(track)
