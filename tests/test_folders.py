"""A folder to vectors: which rows, what is left out and why, going on after a stop. What they find: test_alike.py."""

import json
import os
import tracemalloc

import numpy as np
import pyarrow.parquet
import pytest
import soundfile
import torch

from pawlib import crops, model
from pawlib.bench import alike, audio, folders, loop
from pawlib.bench.datasets import folder as reader

RATE = 16_000
TOLERANCE = 1e-4  # float32, batches of another size


@pytest.fixture(scope="module")
def paw():
    torch.manual_seed(0)
    return model.MusicPAW("baseline", whole_seconds=5.6, n_levels=2).eval()  # wholes of 89,600 samples, 2 parts


@pytest.fixture
def in_float32(monkeypatch):
    monkeypatch.setattr(loop, "has_bf16", lambda *_: False)


def noise(seconds, rate=RATE, seed=0, channels=1):
    shape = (round(seconds * rate), channels) if channels > 1 else round(seconds * rate)
    return (0.1 * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def write(path, wave, rate=RATE, **settings):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, rate, **settings)
    return path


@pytest.fixture
def music(tmp_path):
    """Three good files and four that are not."""
    root = tmp_path / "Música 音楽"
    write(root / "long.wav", noise(13, seed=1), subtype="FLOAT")
    write(root / "ganz/kurz ぴ.flac", noise(1, 44_100, seed=2), 44_100)
    write(root / "stereo.ogg", noise(6, 48_000, seed=3, channels=2), 48_000)
    write(root / "silence.wav", np.zeros(RATE))
    (root / "broken.mp3").write_bytes(b"ID3" + bytes(500))
    (root / "notes.txt").write_text("not music")
    (root / ".DS_Store").write_bytes(b"x")
    return root


@pytest.fixture
def out(tmp_path):
    return tmp_path / "embeddings.parquet"


def forbid_encoding(monkeypatch):
    monkeypatch.setattr(folders, "_encoded", lambda model, waves, levels: pytest.fail("encoded again") if waves else [])


# --- vectors ---


def test_vectors_times_and_marks_are_those_of_the_model(music, out, paw, in_float32):
    folders.embed(music, out, paw)
    found = folders.read(out)
    assert found.tracks == ("ganz/kurz ぴ.flac", "long.wav", "stereo.ogg")
    for k, name in enumerate(found.tracks):
        wave, rate = audio.decode(music / name)
        wanted = paw.embed(audio.resample(wave.mean(axis=0), rate, RATE), RATE)
        for level in range(2):
            rows = (found.track == k) & (found.level == level)
            np.testing.assert_allclose(found.vectors[rows], wanted[level][0].numpy(), atol=TOLERANCE, rtol=TOLERANCE)
            times = np.stack([found.start_s[rows], found.end_s[rows]], axis=1)
            np.testing.assert_allclose(times, wanted.times[level].numpy(), rtol=1e-6)
            assert found.repeated[rows].tolist() == wanted.repeated[level].tolist()
            assert found.index[rows].tolist() == list(range(rows.sum()))


def test_bf16_stays_close_to_float32(music, out, paw):
    folders.embed(music, out, paw, "shortest")
    found = folders.read(out)
    wanted = paw.embed(audio.decode(music / "long.wav")[0][0], RATE, levels=[1])[1][0].numpy()
    given = found.vectors[found.track == found.tracks.index("long.wav")]
    cosine = (given * wanted).sum(1) / np.linalg.norm(given, axis=1) / np.linalg.norm(wanted, axis=1)
    assert cosine.min() > 0.999


@pytest.mark.parametrize("levels, wanted", [("all", {0, 1}), ("shortest", {1}), ("top", {0})])
def test_levels_are_chosen(music, out, paw, levels, wanted):
    folders.embed(music, out, paw, levels)
    assert set(folders.read(out).level.tolist()) == wanted


def test_one_level_can_be_read_alone(music, out, paw):
    folders.embed(music, out, paw)
    whole, top = folders.read(out), folders.read(out, levels=[0])
    assert np.array_equal(top.vectors, whole.at(0).vectors) and set(top.level.tolist()) == {0}
    with pytest.raises(ValueError, match=r"no vector of level 1, only of levels \[0\]"):
        top.at(1)


def test_the_file_is_plain_parquet(music, out, paw):
    folders.embed(music, out, paw)
    table = pyarrow.parquet.read_table(out)
    assert table.column_names == ["track", "level", "index", "start_s", "end_s", "repeated", "vector"]
    assert table.schema.field("vector").type == pyarrow.list_(pyarrow.float32(), 512)


def test_the_model_keeps_its_mode(music, out):
    torch.manual_seed(0)
    training = model.MusicPAW("baseline", whole_seconds=5.6, n_levels=2).train()
    before = training.encoder.norm.running_mean.clone()
    folders.embed(music, out, training, "top")
    assert training.training and torch.equal(training.encoder.norm.running_mean, before)


# --- reading ---


@pytest.mark.parametrize("rate, channels", [(8_000, 1), (11_025, 2), (16_000, 1), (44_100, 2), (192_000, 8)])
@pytest.mark.parametrize("seconds", [0.5, 2.0, 4.3])
def test_blocks_give_the_wholes_of_the_file_at_once(tmp_path, monkeypatch, rate, channels, seconds):
    monkeypatch.setattr(audio, "BLOCK_FRAMES", 10_007)
    wave = noise(seconds, rate, channels=channels)
    path = write(tmp_path / "a.wav", wave, rate, subtype="FLOAT")
    given = list(folders.wholes(path, RATE, 32_000))
    mono = audio.resample(audio.decode(path)[0].mean(axis=0), rate, RATE)
    wanted, n_real = crops.split_wholes(torch.from_numpy(mono).unsqueeze(0), 32_000)
    np.testing.assert_allclose(np.stack([whole for whole, _ in given]), wanted[0].numpy(), atol=1e-6)
    assert [n for _, n in given] == [32_000] * (len(given) - 1) + [n_real]


@pytest.mark.parametrize("extension", [".ogg", ".mp3", ".flac"])
def test_codecs_read_in_blocks_as_at_once(tmp_path, monkeypatch, extension):
    monkeypatch.setattr(audio, "BLOCK_FRAMES", 5_003)
    path = write(tmp_path / f"a{extension}", noise(3))
    given = np.concatenate([whole for whole, _ in folders.wholes(path, RATE, 16_000)])
    wanted = audio.decode(path)[0][0]
    np.testing.assert_allclose(given[: len(wanted)], wanted, atol=1e-6)


def test_an_mp3_of_music_reads_in_blocks_as_at_once(tmp_path, monkeypatch):
    """Tones over noise, loud after quiet: frames that borrow bits from those before them."""
    monkeypatch.setattr(audio, "BLOCK_FRAMES", 5_003)
    at = np.arange(6 * 22_050) / 22_050
    tones = sum(np.sin(2 * np.pi * f * at) for f in (220, 331, 441, 1_903)) * (np.sin(9 * at) > 0.2)
    wave = 0.15 * tones + 0.1 * noise(6, 22_050) * (np.sin(5 * at) > 0.5)
    path = write(tmp_path / "a.mp3", np.stack([wave, 0.8 * wave], axis=1), 22_050)
    given = np.concatenate([whole for whole, _ in folders.wholes(path, 22_050, 16_000)])
    wanted = audio.decode(path)[0].mean(axis=0)
    np.testing.assert_allclose(given[: len(wanted)], wanted, atol=1e-6)


def test_memory_does_not_grow_with_the_length_of_a_file(tmp_path):
    paths = [write(tmp_path / f"{minutes}.wav", noise(60 * minutes, 8_000), 8_000) for minutes in (2, 16)]
    peaks = []
    for path in paths:
        tracemalloc.start()
        for _ in folders.wholes(path, RATE, 358_400):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0] and peaks[1] < 30e6  # 16 minutes are 61 MB at 16 kHz


def test_memory_does_not_grow_with_the_number_of_files(tmp_path, paw, monkeypatch):
    first = write(tmp_path / "music/0.wav", noise(23, 8_000), 8_000)  # five wholes
    for k in range(1, 128):
        os.link(first, first.with_name(f"{k}.wav"))
    held = []

    def encoded(_model, waves, levels):
        held.append(tracemalloc.get_traced_memory()[0] + pyarrow.total_allocated_bytes())
        return [[np.ones((10 * 2**level, 512), np.float32) for level in levels] for _ in waves]  # 0.3 MB a file

    monkeypatch.setattr(folders, "_encoded", encoded)
    tracemalloc.start()
    made = folders.embed(tmp_path / "music", tmp_path / "embeddings.parquet", paw, part_files=8)
    tracemalloc.stop()
    assert made.n_tracks == 128
    assert max(held[-20:]) < max(held[20:40]) + 8e6  # the vectors of the 70 files between them are 21 MB


@pytest.mark.parametrize(
    "make, reason",
    [
        (lambda p: write(p, np.zeros(RATE)), "is silent"),
        (lambda p: write(p, noise(1)[:, None] * [1, -1], subtype="FLOAT"), "channels cancel each other"),
        (lambda p: write(p, np.append(noise(2), np.nan), subtype="FLOAT"), r"sample 32000 \(2.000 s\) is NaN"),
        (lambda p: write(p, noise(0.01)), "has 160 samples at 16000 Hz, fewer than the 256"),
        (lambda p: write(p, np.zeros(0)), "no samples"),
        (lambda p: p.write_bytes(b""), r"empty \(0 bytes\)"),
        (lambda p: p.write_text("hello"), "corrupt, cut off or not wav audio"),
        (lambda p: p.write_bytes(write(p, noise(3)).read_bytes()[:40_000]), "is cut off: its header promises"),
        (lambda p: p.symlink_to(p.with_name("nowhere")), "a broken link"),
    ],
)
def test_what_is_of_no_use_says_why(tmp_path, make, reason):
    path = tmp_path / "x.wav"
    make(path)
    with pytest.raises(audio.AudioError, match=reason):
        list(folders.wholes(path, RATE, RATE, min_samples=256))


def test_a_pipe_is_not_waited_for(tmp_path):
    import os

    os.mkfifo(tmp_path / "x.wav")
    with pytest.raises(audio.AudioError, match="pipe"):
        list(folders.wholes(tmp_path / "x.wav", RATE, RATE))


# --- what is left out ---


def test_everything_else_is_listed_with_its_reason(music, out, paw):
    made = folders.embed(music, out, paw)
    listed = {entry["id"]: entry["reason"] for entry in json.loads((out.parent / "embeddings.failed.json").read_text())}
    assert list(listed) == [".DS_Store", "broken.mp3", "notes.txt", "silence.wav"]
    assert "silent" in listed["silence.wav"] and "extension .txt" in listed["notes.txt"] and listed["broken.mp3"]
    assert (made.n_tracks, made.n_new, made.complete) == (3, 3, False)
    assert made.audio_s == pytest.approx(20, abs=0.01)


def test_hidden_files_leave_a_folder_complete(tmp_path, out, paw):
    write(tmp_path / "in/a.wav", noise(1))
    (tmp_path / "in/.DS_Store").write_bytes(b"x")
    made = folders.embed(tmp_path / "in", out, paw, "top")
    assert made.complete and len(made.left_out) == 1


def test_its_own_files_may_lie_in_the_folder(tmp_path, paw):
    write(tmp_path / "a.wav", noise(1))
    for _ in range(2):
        made = folders.embed(tmp_path, tmp_path / "e.parquet", paw, "top")
        assert made.left_out == [] and made.n_tracks == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav", "e.failed.json", "e.parquet"]


def test_where_nothing_can_be_embedded_it_says_so_and_lists_all(tmp_path, out, paw):
    write(tmp_path / "in/a.wav", np.zeros(RATE))
    with pytest.raises(ValueError, match=r"none of the 1 audio files .* the first because a.wav is silent"):
        folders.embed(tmp_path / "in", out, paw)
    assert not out.exists() and "silent" in (out.parent / "embeddings.failed.json").read_text()
    assert not (out.parent / "embeddings.parquet.parts").exists()


# --- going on ---


def test_a_second_call_does_nothing(music, out, paw, monkeypatch):
    folders.embed(music, out, paw)
    before = out.stat().st_mtime_ns
    forbid_encoding(monkeypatch)
    made = folders.embed(music, out, paw)
    assert (made.n_new, made.n_tracks, len(made.left_out)) == (0, 3, 4)
    assert out.stat().st_mtime_ns == before


def test_a_stopped_call_goes_on_after_its_last_part(music, out, paw, monkeypatch):
    real, seen = folders._outcomes, []

    def stopped(*args):
        for n, outcome in enumerate(real(*args)):
            if n == 3:
                raise KeyboardInterrupt
            yield outcome

    monkeypatch.setattr(folders, "_outcomes", stopped)
    with pytest.raises(KeyboardInterrupt):
        folders.embed(music, out, paw, part_files=1)
    assert not out.exists() and len(list((out.parent / "embeddings.parquet.parts").glob("part-*"))) == 3
    monkeypatch.setattr(
        folders, "_outcomes", lambda tracks, *a: (seen.extend(t.id for t in tracks), real(tracks, *a))[1]
    )
    made = folders.embed(music, out, paw)
    assert seen == ["silence.wav", "stereo.ogg"] and made.n_tracks == 3
    at_once = folders.embed(music, out.with_name("at_once.parquet"), paw)
    one, other = folders.read(out), folders.read(at_once.out)
    assert one.tracks == other.tracks and np.allclose(one.vectors, other.vectors, rtol=0.05, atol=0.05)
    assert not (out.parent / "embeddings.parquet.parts").exists()


def test_only_new_and_changed_files_are_embedded_and_those_gone_are_dropped(music, out, paw, monkeypatch):
    folders.embed(music, out, paw)
    before = folders.read(out)
    (music / "stereo.ogg").unlink()
    write(music / "long.wav", noise(2, seed=9))
    write(music / "new.wav", noise(2, seed=10))
    assert folders.embed(music, out, paw).n_new == 2
    after = folders.read(out)
    assert sorted(after.tracks) == ["ganz/kurz ぴ.flac", "long.wav", "new.wav"]
    kept = [e.vectors[e.track == e.tracks.index("ganz/kurz ぴ.flac")] for e in (before, after)]
    assert np.array_equal(*kept)
    assert (after.track == after.tracks.index("long.wav")).sum() == 3
    (music / "new.wav").unlink()
    forbid_encoding(monkeypatch)
    assert folders.embed(music, out, paw).n_tracks == 2 and len(folders.read(out).tracks) == 2


def test_other_weights_or_levels_are_refused(music, out, paw):
    folders.embed(music, out, paw, "top")
    with pytest.raises(ValueError, match=r"made with levels \[0\], this call asks for \[1\]: choose another --out"):
        folders.embed(music, out, paw, "shortest")
    torch.manual_seed(1)
    other = model.MusicPAW("baseline", whole_seconds=5.6, n_levels=2)
    with pytest.raises(ValueError, match="made with weights"):
        folders.embed(music, out, other, "top")


def test_parts_of_other_weights_are_refused_too(music, out, paw, monkeypatch):
    def stopped(*args):
        yield next(folders_outcomes(*args))
        raise KeyboardInterrupt

    folders_outcomes = folders._outcomes
    monkeypatch.setattr(folders, "_outcomes", stopped)
    with pytest.raises(KeyboardInterrupt):
        folders.embed(music, out, paw, "top", part_files=1)
    with pytest.raises(
        ValueError, match=r"part-00000.parquet was made with levels .* delete .*embeddings.parquet.parts"
    ):
        folders.embed(music, out, paw, "all")


def test_another_folder_does_not_empty_the_file(music, tmp_path, out, paw):
    folders.embed(music, out, paw, "top")
    write(tmp_path / "other/b.wav", noise(1))
    with pytest.raises(ValueError, match="embeddings of 3 other tracks"):
        folders.embed(tmp_path / "other", out, paw, "top")
    assert len(folders.read(out).tracks) == 3


@pytest.mark.parametrize(
    "name, content, said",
    [
        ("e.txt", None, "does not end in .parquet"),
        ("e.parquet", b"hello", "cannot be read as parquet"),
        ("folder.parquet", None, "is a folder"),
    ],
)
def test_an_output_that_cannot_be_is_refused(music, tmp_path, paw, name, content, said):
    if content:
        (tmp_path / name).write_bytes(content)
    elif name.startswith("folder"):
        (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match=said):
        folders.embed(music, tmp_path / name, paw)
    if content:
        assert (tmp_path / name).read_bytes() == content


def test_foreign_parquet_is_not_touched(music, out, paw):
    pyarrow.parquet.write_table(pyarrow.table({"a": [1]}), out)
    with pytest.raises(ValueError, match="made by another program"):
        folders.embed(music, out, paw)
    with pytest.raises(ValueError, match="made by another program"):
        folders.read(out)
    with pytest.raises(FileNotFoundError, match="pawlib embed FOLDER"):
        folders.read(out.with_name("nothing.parquet"))


def test_unknown_levels_and_folders_are_refused(music, out, paw):
    with pytest.raises(ValueError, match="expected one of all, shortest, top"):
        folders.embed(music, out, paw, "middle")
    with pytest.raises(FileNotFoundError, match="expected a folder of audio"):
        folders.embed(music / "nowhere", out, paw)


# --- back to the files ---


def test_a_real_copy_is_found_among_real_files(tmp_path, out, paw):
    """Through the files: noise whose colour changes over time, and its copy as mp3 at another rate."""
    random = np.random.default_rng(0)

    def changing(seed):
        steps = np.random.default_rng(seed).uniform(0.02, 0.9, 8)
        parts = [
            np.convolve(random.standard_normal(44_800), np.ones(1 + int(20 * s)), "same") * 0.05 * s for s in steps
        ]
        return np.concatenate(parts).astype(np.float32)

    songs = [changing(seed) for seed in range(4)]
    for k, song in enumerate(songs):
        write(tmp_path / f"in/{k}.flac", song)
    write(tmp_path / "in/copy of 2.mp3", 0.4 * audio.resample(songs[2], RATE, 44_100), 44_100)
    folders.embed(tmp_path / "in", out, paw, "shortest")
    found = folders.read(out)
    named = [(found.tracks[pair.a], found.tracks[pair.b]) for pair in alike.near_duplicates(found)]
    assert named == [("2.flac", "copy of 2.mp3")]


def test_ids_lead_back_to_the_files(music, out, paw):
    folders.embed(music, out, paw, "top")
    with pytest.warns(UserWarning, match="2 files are not audio"):
        paths = {track.id: track.path for track in reader.read(music)}
    assert all(paths[name].is_file() for name in folders.read(out).tracks)
