"""dcase2016: four folds, the final evaluation, marked spans and validation, on made-up files in the real layout."""

import json
import warnings

import numpy as np
import pytest
import soundfile

from pawlib.bench import store
from pawlib.bench.datasets import dcase2016, targets

N_RECORDINGS, N_PIECES = 8, 3  # a scene has 8 recordings of 3 pieces: 360 files
D, E = dcase2016.DEVELOPMENT, dcase2016.EVALUATION


def recording(scene, i):
    return f"{'abcdefghijklmno'[scene]}{i:03}"


def piece(scene, i, k):
    return f"audio/{recording(scene, i)}_{30 * k}_{30 * k + 30}.wav"


def write(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join("\t".join(line) + "\n" for line in lines), encoding="utf-8")


@pytest.fixture
def root(tmp_path):
    """Both folders; fold f tests recordings 2 f and 2 f + 1 of every scene. Audio files are empty."""
    files = {
        piece(s, i, k): (scene, i)
        for s, scene in enumerate(dcase2016.CLASSES)
        for i in range(N_RECORDINGS)
        for k in range(N_PIECES)
    }
    write(tmp_path / D / "meta.txt", [(name, scene) for name, (scene, _) in files.items()])
    for fold in range(4):
        setup = tmp_path / D / "evaluation_setup"
        test = [(name, scene) for name, (scene, i) in files.items() if i // 2 == fold]
        write(setup / f"fold{fold + 1}_train.txt", [(n, s) for n, (s, i) in files.items() if i // 2 != fold])
        write(setup / f"fold{fold + 1}_test.txt", [(name,) for name, _ in test])
        write(setup / f"fold{fold + 1}_evaluate.txt", test)
    write(
        tmp_path / D / "error.txt",
        [(piece(0, 2, 0), "5.0", "6.5", "error"), (piece(0, 2, 0), "6.0", "8.25", "mobile"),
         (piece(0, 2, 0), "1", "2", "error"), (piece(1, 0, 1), "0", "3.5", "error")],
    )  # fmt: skip
    evaluation = [(f"audio/{n + 1}.wav", scene, f"audio/z{n:03}_0_30.wav") for n, scene in enumerate(dcase2016.CLASSES)]
    write(tmp_path / E / "evaluation_setup" / "evaluate.txt", evaluation)
    write(tmp_path / E / "evaluation_setup" / "test.txt", [(name,) for name, _, _ in evaluation])
    for folder, names in ((D, files), (E, [name for name, _, _ in evaluation])):
        (tmp_path / folder / "audio").mkdir()
        for name in names:
            (tmp_path / folder / name).touch()
    return tmp_path


def read(root, *args, **kwargs):
    """Read without the warning that these 360 files are not the released 1,170."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*the released set has 1,170")
        return dcase2016.read(root, *args, **kwargs)


def ids(tracks):
    return {track.id for track in tracks}


# --- splits ---


def test_a_fold_has_all_its_files_once_and_no_recording_on_both_sides(root):
    for fold in range(4):
        splits = read(root, f"fold{fold + 1}")
        assert len(ids(splits.tracks)) == len(splits.tracks) == 360
        assert len(splits.test) == 15 * 2 * 3
        assert {t.work[1:] for t in splits.test} == {f"{2 * fold:03}", f"{2 * fold + 1:03}"}
        assert not {t.work for t in splits.test} & {t.work for t in [*splits.train, *splits.valid]}
        assert not {t.work for t in splits.train} & {t.work for t in splits.valid}


def test_the_four_folds_test_every_file_once(root):
    tested = [track.id for fold in dcase2016.FOLDS for track in read(root, fold).test]
    assert len(tested) == len(set(tested)) == 360


def test_tracks_know_file_scene_and_recording(root):
    splits = read(root, "fold2")
    assert splits.labels == dcase2016.CLASSES and splits.single_label
    assert (splits.name, splits.split) == ("dcase2016", "fold2")
    found = targets(splits.tracks)
    assert found.dtype == np.float32 and (found.sum(axis=1) == 1).all()
    for track, row in zip(splits.tracks, found, strict=True):
        assert track.id.startswith(f"{track.work}_") and track.path == root / D / "audio" / f"{track.id}.wav"
        assert track.work[0] == "abcdefghijklmno"[row.argmax()]
        assert track.cut == ()


def test_a_scene_may_have_a_slash_in_its_name(root):
    assert "cafe/restaurant" in read(root).labels


def test_the_final_evaluation_trains_on_the_whole_development_set(root):
    splits = read(root, "evaluation")
    assert len(splits.train) + len(splits.valid) == 360 and len(splits.test) == 15
    assert splits.test[0].id == "evaluation_1" and splits.test[0].path == root / E / "audio" / "1.wav"
    assert splits.test[0].work == "z000" and splits.test[0].target.argmax() == 0


def test_the_root_may_be_the_development_folder_itself(root):
    assert ids(read(root / D).test) == ids(read(root).test)
    assert len(read(root / D, "evaluation").test) == 15


def test_a_store_holds_every_file_of_both_sets_once(root):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = dcase2016.all_tracks(root)
        assert len(found) == len(ids(found)) == 375
        for path in sorted((root / E).rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        (root / E).rmdir()
        assert len(dcase2016.all_tracks(root)) == 360


# --- validation ---


def test_validation_is_whole_recordings_of_every_scene_a_fifth_at_most(root):
    splits = read(root, "fold1")
    for scene in range(15):
        own = {t.work for t in splits.valid if t.target.argmax() == scene}
        assert len(own) == 1  # 18 training files, a fifth is 3.6, a recording is 3
    assert len(splits.valid) == 15 * 3


def test_validation_needs_no_seed_and_grows_with_its_share(root):
    first, again = ids(read(root).valid), ids(read(root).valid)
    assert first == again
    half = ids(read(root, valid_share=0.5).valid)
    assert first < half and len(half) == 15 * 9
    assert read(root, valid_share=0).valid == []


def test_validation_draws_in_one_order_whatever_the_fold(root):
    for scene in range(15):
        chosen = [{t.work for t in read(root, fold).valid if t.target.argmax() == scene} for fold in dcase2016.FOLDS]
        assert len(set().union(*chosen)) <= 2  # the first by hash, and the second where that one is tested


def test_validation_never_takes_a_scene_s_last_recording():
    files = [dcase2016._File(f"x_{k}", None, "home", "x") for k in range(3)]
    assert dcase2016._validating(files, 0.9) == set()
    more = [*files, dcase2016._File("y_0", None, "home", "y")]
    assert len(dcase2016._validating(more, 0.9)) == 1


# --- error.txt ---


def test_marked_files_are_kept_by_default(root):
    assert piece(0, 2, 0)[6:-4] in ids(read(root, "fold1").tracks)


def test_marked_files_are_dropped_from_training_and_listed(root):
    splits = read(root, "fold1", errors="drop")
    (entry,) = splits.missing
    assert entry["id"] == "a002_0_30" and "marks 4.2 s of it" in entry["reason"]  # 5..8.25 and 1..2
    assert "a002_0_30" not in ids(splits.tracks)
    assert "b000_30_60" in ids(splits.test)  # marked, but a test file
    everywhere = read(root, "fold1", errors="drop", errors_in="all")
    assert {entry["id"] for entry in everywhere.missing} == {"a002_0_30", "b000_30_60"}
    assert "b000_30_60" not in ids(everywhere.tracks)


def test_marked_spans_are_named_in_order_and_joined(root):
    by_id = {track.id: track.cut for track in read(root, "fold1", errors="cut").tracks}
    assert by_id.pop("a002_0_30") == ((1.0, 2.0), (5.0, 8.25))
    assert set(by_id.values()) == {()}
    everywhere = {track.id: track.cut for track in read(root, "fold1", errors="cut", errors_in="all").tracks}
    assert everywhere["b000_30_60"] == ((0.0, 3.5),)


def test_errors_may_be_listed_without_the_folder(root):
    path = root / D / "error.txt"
    path.write_text(path.read_text().replace("audio/", ""))
    assert len(read(root, errors="drop").missing) == 1


# --- audio ---


def test_files_that_are_not_there_are_reported_kept_or_refused(root):
    (root / D / piece(3, 1, 0)).unlink()
    with pytest.warns(UserWarning, match="1 of 360 listed files have no audio, e.g. .*d001_0_30.wav"):
        splits = read(root)
    assert [entry["id"] for entry in splits.missing] == ["d001_0_30"] and len(splits.tracks) == 359
    assert len(read(root, missing="keep").tracks) == 360
    with pytest.raises(FileNotFoundError, match="Run `pawlib fetch dcase2016`"):
        read(root, missing="error")


def test_nothing_there_at_all_is_an_error(root):
    for path in (root / D / "audio").iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match="360 of 360 .*: all of them"):
        read(root)
    (root / D / "audio").rmdir()
    (root / f"{D}.audio.1.zip").touch()
    with pytest.raises(FileNotFoundError, match=r"audio is not there .*audio.1.zip lie there, not unpacked"):
        read(root)
    assert len(read(root, missing="keep").tracks) == 360


def test_24_bit_stereo_at_44100_hz_passes_through_the_store(root, tmp_path):
    rng = np.random.default_rng(0)
    splits = read(root)
    some = splits.train[:2]
    for track in some:
        wave = 0.2 * rng.standard_normal((4410, 2))
        soundfile.write(track.path, wave, 44_100, subtype="PCM_24")
    made = store.prepare(some, tmp_path / "store", n_workers=0)
    track = some[0]
    assert (made.sample_rate(track.id), made.n_channels(track.id)) == (44_100, 2)
    original = soundfile.read(track.path, dtype="float32")[0].T
    stereo = made.read(track.id, mono=False)
    assert stereo.shape == (2, 4410)
    np.testing.assert_allclose(stereo, original, atol=0.6 / 32768)
    np.testing.assert_allclose(made.read(track.id), original.mean(axis=0), atol=0.6 / 32768)


# --- the twin, and other releases ---


def test_a_twin_says_its_name_and_classes(root):
    (root / "twin.json").write_text(
        json.dumps({"name": "dcase2016-twin-toy", "classes": list(dcase2016.CLASSES[::-1])})
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        splits = dcase2016.read(root)
    assert splits.name == "dcase2016-twin-toy" and splits.labels == dcase2016.CLASSES[::-1]
    (root / "twin.json").write_text(json.dumps({"classes": ["a", "a"]}))
    with pytest.raises(ValueError, match="expected a list of different names"):
        dcase2016.read(root)


def test_another_number_of_files_than_the_release_s_is_warned_of(root):
    with pytest.warns(UserWarning, match="lists 360 files, the released set has 1,170"):
        dcase2016.read(root)


def test_a_recording_on_both_sides_is_warned_of(root):
    path = root / E / "evaluation_setup" / "evaluate.txt"
    path.write_text(path.read_text().replace("z003_0_30", "d002_90_120"))
    with pytest.warns(UserWarning, match="1 recordings have files in training and in test, e.g. d002"):
        read(root, "evaluation")


def test_the_archives_have_an_address_and_a_sum_each():
    assert len(dcase2016.MD5) == 16 and all(len(md5) == 32 for md5 in dcase2016.MD5.values())
    assert len(set(dcase2016.MD5.values())) == 16
    assert {name.split(".")[0] for name in dcase2016.MD5} == set(dcase2016.ADDRESSES)


# --- errors ---


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"split": "fold5"}, "split='fold5' is unknown"),
        ({"missing": "ignore"}, "missing='ignore' is unknown"),
        ({"errors": "mute"}, "errors='mute' is unknown"),
        ({"errors_in": "test"}, "errors_in='test' is unknown"),
        ({"valid_share": 1}, "valid_share=1 is no share"),
    ],
)
def test_unknown_arguments_are_refused(root, arguments, match):
    with pytest.raises(ValueError, match=match):
        dcase2016.read(root, **arguments)


def test_a_root_that_is_not_one_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is not there, expected the folder .*pawlib fetch dcase2016"):
        dcase2016.read(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="one folder too high or too low"):
        dcase2016.read(tmp_path)
    (tmp_path / f"{D}.meta.zip").touch()
    with pytest.raises(FileNotFoundError, match="1 archives lie there, not unpacked, e.g. .*meta.zip"):
        dcase2016.read(tmp_path)


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("name", "old", "new", "match"),
    [
        ("meta.txt", "\tbeach", "\tdesert", r"meta.txt, line 1: scene 'desert' is unknown"),
        ("meta.txt", "\tbeach", " beach", r"meta.txt, line 1: 1 columns, expected 2"),
        ("meta.txt", "a000_0_30.wav", "a000.wav", r"line 1: 'audio/a000.wav' names no recording"),
        ("meta.txt", "a000_0_30.wav", "a000_30_0.wav", "with the start before the end"),
        ("meta.txt", "audio/a000_0_30.wav", "../a000_0_30.wav", "expected audio/NAME.wav"),
        ("meta.txt", "a000_30_60", "a000_0_30", r"line 2: 'audio/a000_0_30.wav' comes twice"),
        ("evaluation_setup/fold1_train.txt", "\tbeach", "\tbus", r"is 'bus' here and 'beach' in meta.txt"),
        ("evaluation_setup/fold1_train.txt", "a002_0_30", "a099_0_30", "is not in meta.txt"),
        ("evaluation_setup/fold1_train.txt", "a002_0_30", "a000_0_30", "is in fold1_train.txt and in fold1_test.txt"),
        (
            "evaluation_setup/fold1_test.txt",
            "audio/a000_0_30.wav\n",
            "",
            "list different files, the first is .*a000_0_30",
        ),
    ],
)
def test_broken_lists_name_file_line_and_value(root, name, old, new, match):
    edit(root / D / name, old, new)
    with pytest.raises(ValueError, match=match):
        read(root)


def test_broken_spans_and_evaluation_lists_are_refused(root):
    edit(root / D / "error.txt", "6.5", "4.5")
    with pytest.raises(ValueError, match="error.txt, line 1: onset '5.0' and offset '4.5'"):
        read(root, errors="cut")
    edit(root / D / "error.txt", "4.5", "six")
    with pytest.raises(ValueError, match="offset 'six', expected seconds"):
        read(root, errors="drop")
    path = root / E / "evaluation_setup" / "evaluate.txt"
    edit(path, "audio/2.wav", "audio/1.wav")
    with pytest.raises(ValueError, match="line 2: 'audio/1.wav' comes twice"):
        read(root, "evaluation")
    path.unlink()
    with pytest.raises(FileNotFoundError, match="test.txt beside it names no scenes"):
        read(root, "evaluation")


def test_missing_lists_are_named(root):
    (root / D / "error.txt").unlink()
    assert len(read(root).tracks) == 360  # not needed to keep everything
    with pytest.raises(FileNotFoundError, match="error.txt is not there"):
        read(root, errors="cut")
    (root / D / "evaluation_setup" / "fold3_train.txt").write_text("\n")
    with pytest.raises(ValueError, match="fold3_train.txt is empty"):
        read(root, "fold3")
