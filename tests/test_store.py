"""store: what was decoded comes back to half a step, and no stop, no bad file and no second run harms it."""

import json
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
import soundfile

from pawlib.bench import audio, store
from pawlib.bench.datasets import Track

RATE = 8000
HALF_STEP = 0.5 / 32768 * 1.001


def noise(seed, n_samples=RATE, n_channels=1):
    wave = 0.2 * np.random.default_rng(seed).standard_normal((n_samples, n_channels))
    return wave.clip(-0.99, 0.99).astype(np.float32)


def corpus(folder, n_tracks, n_samples=RATE):
    folder.mkdir(exist_ok=True)
    tracks = []
    for i in range(n_tracks):
        path = folder / f"{i:03}.wav"
        soundfile.write(path, noise(i, n_samples), RATE)
        tracks.append(Track(f"track {i}", path, np.zeros(0, np.float32), f"work {i}"))
    return tracks


def track(path, track_id=None):
    return Track(track_id or path.name, path, np.zeros(0, np.float32), "")


@pytest.fixture
def decoded(monkeypatch):
    """Paths decoded in this process, in order."""
    seen, decode = [], audio.decode
    monkeypatch.setattr(audio, "decode", lambda path, **kwargs: (seen.append(path.name), decode(path, **kwargs))[1])
    return seen


def shards(folder):
    return sorted(path.name for path in folder.glob("shard-*.json"))


# --- what comes back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_workers", [0, 2])
def test_tracks_come_back_as_decoded_at_their_native_rate(tmp_path, n_workers):
    tracks = corpus(tmp_path / "in", 5)
    made = store.prepare(tracks, tmp_path / "store", n_workers=n_workers)
    assert made.ids == tuple(one.id for one in tracks) and len(made) == 5 and made.failed == []
    for one in tracks:
        wave, rate = audio.decode(one.path)
        assert (made.sample_rate(one.id), made.n_samples(one.id), made.n_channels(one.id)) == (rate, RATE, 1)
        read = made.read(one.id)
        assert read.dtype == np.float32
        np.testing.assert_array_equal(read, wave[0])  # 16-bit sources are exact
    made.verify()


def test_a_clip_is_the_slice_of_the_track(tmp_path):
    (one,) = corpus(tmp_path / "in", 1)
    made = store.prepare([one], tmp_path / "store", n_workers=0)
    whole = made.read(one.id)
    np.testing.assert_array_equal(made.read(one.id, 100, 50), whole[100:150])
    np.testing.assert_array_equal(made.read(one.id, 7990), whole[7990:])
    np.testing.assert_array_equal(made.read(one.id, 0, RATE), whole)
    made.read(one.id)[:] = 9  # the caller's copy
    np.testing.assert_array_equal(made.read(one.id), whole)


def test_channels_are_kept_and_mixed_down_on_reading(tmp_path):
    path = tmp_path / "stereo.wav"
    wave = noise(0, 1000, 2)
    soundfile.write(path, wave, 44100, subtype="FLOAT")
    made = store.prepare([track(path, "s")], tmp_path / "store", n_workers=0)
    assert made.n_channels("s") == 2 and made.n_samples("s") == 1000 and made.sample_rate("s") == 44100
    both = made.read("s", 10, 100, mono=False)
    assert both.shape == (2, 100)
    np.testing.assert_allclose(both, wave[10:110].T, atol=HALF_STEP)
    np.testing.assert_allclose(made.read("s", 10, 100), wave[10:110].mean(axis=1), atol=HALF_STEP)


def test_mixed_rates_lengths_and_formats_live_in_one_store(tmp_path):
    tracks = []
    for i, (name, rate, n_channels) in enumerate([("a.flac", 16000, 1), ("b.ogg", 44100, 2), ("c.mp3", 22050, 1)]):
        soundfile.write(tmp_path / name, noise(i, 9000 + i, n_channels), rate)
        tracks.append(track(tmp_path / name))
    made = store.prepare(tracks, tmp_path / "store", n_workers=0)
    for one in tracks:
        wave, rate = audio.decode(one.path)
        assert made.sample_rate(one.id) == rate
        np.testing.assert_allclose(made.read(one.id, mono=False), wave, atol=2 * HALF_STEP)


def test_rounding_is_exact_for_16_bit_within_half_a_step_for_others_and_never_clips():
    steps = np.arange(-32768, 32768).astype(np.float32) / 32768
    values, scale = store.to_int16(steps)
    assert scale == 1 / 32768
    np.testing.assert_array_equal(values * np.float32(scale), steps)
    fine = noise(0)[:, 0]
    values, scale = store.to_int16(fine)
    np.testing.assert_allclose(values * np.float32(scale), fine, atol=HALF_STEP, rtol=0)
    loud = 1.7 * np.sin(np.arange(1000)).astype(np.float32)
    values, scale = store.to_int16(loud)
    np.testing.assert_allclose(values * np.float32(scale), loud, atol=1.71 * HALF_STEP, rtol=0)
    assert abs(values).max() == 32767


@pytest.mark.parametrize("start, n_samples", [(0, RATE + 1), (RATE, 1), (RATE, None), (-1, 10), (0, 0), (5, -2)])
def test_clips_beyond_the_end_are_refused(tmp_path, start, n_samples):
    (one,) = corpus(tmp_path / "in", 1)
    made = store.prepare([one], tmp_path / "store", n_workers=0)
    with pytest.raises(ValueError, match=r"does not lie in track 0 \(8000 samples at 8000 Hz\)"):
        made.read(one.id, start, n_samples)


def test_a_store_goes_to_processes_and_threads(tmp_path):
    tracks = corpus(tmp_path / "in", 4)
    made = store.prepare(tracks, tmp_path / "store", n_workers=0)
    expected = [made.read(one.id).sum() for one in tracks]
    copy = pickle.loads(pickle.dumps(made))
    assert len(pickle.dumps(made)) < 5000
    jobs = [one.id for one in tracks]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda i: copy.read(i).sum(), jobs * 20)) == expected * 20
    with ProcessPoolExecutor(2) as processes:
        assert [read.sum() for read in processes.map(made.read, jobs)] == expected


# --- only what is missing ---------------------------------------------------------------------------------------------


def test_a_second_run_decodes_nothing_and_rewrites_nothing(tmp_path, decoded):
    tracks = corpus(tmp_path / "in", 3)
    store.prepare(tracks, tmp_path / "store", n_workers=0)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").glob("s*")}
    decoded.clear()
    made = store.prepare(tracks, tmp_path / "store", n_workers=0)
    assert decoded == [] and len(made) == 3
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "store").glob("s*")}


def test_a_changed_file_is_decoded_anew_and_the_others_are_not(tmp_path, decoded):
    tracks = corpus(tmp_path / "in", 3)
    store.prepare(tracks, tmp_path / "store", n_workers=0)
    soundfile.write(tracks[1].path, noise(99, 500), RATE)
    decoded.clear()
    made = store.prepare(tracks, tmp_path / "store", n_workers=0)
    assert decoded == ["001.wav"] and made.n_samples("track 1") == 500 and made.n_samples("track 0") == RATE
    assert made.ids == tuple(one.id for one in tracks)


def test_added_tracks_are_decoded_and_dropped_ones_disappear_with_their_shards(tmp_path, decoded):
    tracks = corpus(tmp_path / "in", 6)
    folder = tmp_path / "store"
    store.prepare(tracks[:2], folder, n_workers=0)
    store.prepare(tracks[:4], folder, n_workers=0)
    assert decoded == ["000.wav", "001.wav", "002.wav", "003.wav"] and len(shards(folder)) == 2
    made = store.prepare(tracks[2:4][::-1], folder, n_workers=0)
    assert made.ids == ("track 3", "track 2") and len(shards(folder)) == 1 and len(decoded) == 4
    np.testing.assert_array_equal(made.read("track 2"), audio.decode(tracks[2].path)[0][0])


def test_a_lost_or_shortened_shard_is_told_and_decoded_anew(tmp_path, decoded, monkeypatch):
    monkeypatch.setattr(store, "TRACKS_PER_SHARD", 2)
    tracks = corpus(tmp_path / "in", 4)
    folder = tmp_path / "store"
    store.prepare(tracks, folder, n_workers=0)
    data = folder / "shard-00001.int16"
    data.write_bytes(data.read_bytes()[:-2])
    with pytest.raises(FileNotFoundError, match="shard-00001.int16 has 31998 bytes, expected 32000.*pawlib prepare"):
        store.Store.open(folder)
    data.unlink()
    with pytest.raises(FileNotFoundError, match="shard-00001.int16 is not there"):
        store.Store.open(folder)
    decoded.clear()
    assert len(store.prepare(tracks, folder, n_workers=0)) == 4 and decoded == ["002.wav", "003.wav"]


def test_long_sources_make_small_shards_and_few_tracks_still_feed_every_worker(tmp_path, monkeypatch):
    tracks = corpus(tmp_path / "in", 6)
    sources = {one.id: (100, 0) for one in tracks}
    assert [len(batch) for batch in store._batches(tracks, sources, 1)] == [6]
    assert [len(batch) for batch in store._batches(tracks, sources, 4)] == [2, 2, 2]
    monkeypatch.setattr(store, "_SOURCE_BYTES_PER_SHARD", 250)
    assert [len(batch) for batch in store._batches(tracks, sources, 1)] == [2, 2, 2]
    sources["track 0"] = (9999, 0)
    assert [len(batch) for batch in store._batches(tracks, sources, 1)] == [1, 2, 2, 1]


# --- bad files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_workers", [0, 2])
def test_bad_files_are_listed_with_their_reason_and_end_nothing(tmp_path, n_workers):
    tracks = corpus(tmp_path / "in", 4)
    tracks[1].path.write_bytes(b"")
    tracks[2].path.unlink()
    soundfile.write(tmp_path / "in/nan.wav", np.full(RATE, np.nan, np.float32), RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "in/silent.wav", np.zeros(RATE), RATE)
    tracks += [track(tmp_path / "in/nan.wav"), track(tmp_path / "in/silent.wav")]
    made = store.prepare(tracks, tmp_path / "store", n_workers=n_workers)
    assert made.ids == ("track 0", "track 3")
    assert [failure["id"] for failure in made.failed] == ["track 1", "track 2", "nan.wav", "silent.wav"]
    assert [failure["reason"].split(":")[0] for failure in made.failed][:2] == ["is empty (0 bytes)", "file not found"]
    assert json.loads((tmp_path / "store/failed.json").read_text()) == made.failed
    with pytest.raises(ValueError, match="'track 1' is not in the store .* could not be decoded: is empty"):
        made.read("track 1")
    with pytest.raises(ValueError, match="'ghost' is not in the store .* run `pawlib prepare`"):
        made.read("ghost")
    assert "track 0" in made and "track 1" not in made


def test_a_repaired_file_leaves_the_list(tmp_path):
    tracks = corpus(tmp_path / "in", 2)
    whole = tracks[1].path.read_bytes()
    tracks[1].path.write_bytes(whole[:100])
    assert len(store.prepare(tracks, tmp_path / "store", n_workers=0).failed) == 1
    tracks[1].path.write_bytes(whole)
    made = store.prepare(tracks, tmp_path / "store", n_workers=0)
    assert made.failed == [] and len(made) == 2


def test_too_short_tracks_are_listed_also_when_asked_later(tmp_path):
    tracks = [*corpus(tmp_path / "in", 1), *corpus(tmp_path / "more", 2, n_samples=2 * RATE)[1:]]
    assert len(store.prepare(tracks, tmp_path / "store", n_workers=0)) == 2
    made = store.prepare(tracks, tmp_path / "store", n_workers=0, min_seconds=1.5)
    assert made.ids == ("track 1",) and "shorter than the 1.5 s needed" in made.failed[0]["reason"]


def test_a_file_that_kills_its_worker_is_found_and_listed(tmp_path, monkeypatch):
    tracks = corpus(tmp_path / "in", 9, n_samples=800)
    decode = audio.decode
    monkeypatch.setattr(
        audio, "decode", lambda path, **kwargs: os._exit(11) if path.name == "004.wav" else decode(path, **kwargs)
    )
    made = store.prepare(tracks, tmp_path / "store", n_workers=2)
    assert len(made) == 8
    (failure,) = made.failed
    assert failure["id"] == "track 4" and "ended the process" in failure["reason"]
    for one in tracks[:4] + tracks[5:]:
        np.testing.assert_array_equal(made.read(one.id), decode(one.path)[0][0])


def test_no_tracks_doubled_ids_and_nothing_decodable_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no tracks to prepare"):
        store.prepare([], tmp_path / "store")
    tracks = corpus(tmp_path / "in", 1)
    with pytest.raises(ValueError, match="'track 0' comes twice"):
        store.prepare(tracks * 2, tmp_path / "store")
    tracks[0].path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"none of 1 tracks could be decoded, .*000\.wav is empty"):
        store.prepare(tracks, tmp_path / "store", n_workers=0)
    assert not (tmp_path / "store/store.json").exists()


# --- opening ----------------------------------------------------------------------------------------------------------


def test_a_missing_an_unfinished_and_another_version_are_told_apart(tmp_path):
    folder = tmp_path / "store"
    with pytest.raises(FileNotFoundError, match="store is not there. Run `pawlib prepare`"):
        store.Store.open(folder)
    tracks = corpus(tmp_path / "in", 1)
    store.prepare(tracks, folder, n_workers=0)
    told = json.loads((folder / "store.json").read_text())
    (folder / "store.json").write_text(json.dumps(told | {"version": 99}))
    with pytest.raises(ValueError, match="version 99, this pawlib reads 1"):
        store.Store.open(folder)
    (folder / "store.json").write_text('{"version": 1, ')
    with pytest.raises(ValueError, match="store.json is not valid JSON"):
        store.Store.open(folder)
    (folder / "store.json").unlink()
    with pytest.raises(FileNotFoundError, match="not finished .* finished shards are kept"):
        store.Store.open(folder)
    assert len(store.prepare(tracks, folder, n_workers=0)) == 1


def test_shards_of_another_version_are_decoded_anew(tmp_path, decoded):
    tracks = corpus(tmp_path / "in", 1)
    folder = tmp_path / "store"
    store.prepare(tracks, folder, n_workers=0)
    for name in ("store.json", "shard-00000.json"):
        told = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(told | {"version": 0}))
    store.prepare(tracks, folder, n_workers=0)
    assert len(decoded) == 2 and shards(folder) == ["shard-00001.json"]


def test_verify_names_the_damaged_shard(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "TRACKS_PER_SHARD", 1)
    made = store.prepare(corpus(tmp_path / "in", 2), tmp_path / "store", n_workers=0)
    with open(tmp_path / "store/shard-00001.int16", "r+b") as file:
        file.seek(4000)
        file.write(b"\x55")
    with pytest.raises(ValueError, match=r"1 of 2 shards .* differ .*: shard-00001\. A failing disk"):
        made.verify()


# --- a full disk ------------------------------------------------------------------------------------------------------


def test_too_little_space_is_said_before_anything_is_decoded(tmp_path, monkeypatch, decoded):
    usage = store.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(store.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(OSError, match=r"needs about 67,\d\d\d,\d\d\d bytes, 1,000 are free.*PAWLIB_DATA") as error:
        store.prepare(corpus(tmp_path / "in", 8), tmp_path / "store", n_workers=0)
    assert error.value.errno == store.errno.ENOSPC and error.value.filename == str(tmp_path / "store")
    assert decoded == []


@pytest.mark.parametrize("n_workers", [0, 1])
def test_a_disk_that_fills_up_keeps_finished_shards(tmp_path, n_workers, monkeypatch, decoded):
    """The kernel's own limit on file size stands in for the full disk: writing really fails half-way."""
    monkeypatch.setattr(store, "TRACKS_PER_SHARD", 2)
    short = corpus(tmp_path / "short", 2)
    long = [
        track(one.path.rename(one.path.with_name(f"long {one.path.name}")))
        for one in corpus(tmp_path / "long", 2, n_samples=20 * RATE)
    ]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, before[1]))
    try:
        with pytest.raises(OSError, match=r"disk filled up after .* shard-00001 .*finished shards are kept") as error:
            store.prepare(short + long, tmp_path / "store", n_workers=n_workers)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert error.value.filename == str(tmp_path / "store")
    names = {path.name for path in (tmp_path / "store").iterdir()}
    assert names == {".lock", "shard-00000.int16", "shard-00000.json"}  # no half file
    decoded.clear()
    assert len(store.prepare(short + long, tmp_path / "store", n_workers=0)) == 4
    assert decoded == ["long 000.wav", "long 001.wav"]


# --- stopped, and two at once -----------------------------------------------------------------------------------------

_SLOW = """
import sys, time
from pathlib import Path
import numpy as np
from pawlib.bench import audio, store
from pawlib.bench.datasets import Track
store.TRACKS_PER_SHARD = 2
decode = audio.decode
def slow(path, **kwargs):
    with open(sys.argv[3], "a") as log:
        log.write(path.name + chr(10))
    time.sleep(float(sys.argv[4]))
    return decode(path, **kwargs)
audio.decode = slow
tracks = [Track(p.name, p, np.zeros(0), "") for p in sorted(Path(sys.argv[1]).glob("*.wav"))]
print(len(store.prepare(tracks, sys.argv[2], n_workers=2)), flush=True)
"""


def slow_prepare(tmp_path, log, pause):
    command = [sys.executable, "-c", _SLOW, tmp_path / "in", tmp_path / "store", tmp_path / log, str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_sigkill_loses_only_the_shards_in_work(tmp_path, decoded):
    tracks = [track(one.path) for one in corpus(tmp_path / "in", 12, n_samples=800)]
    folder = tmp_path / "store"
    run = slow_prepare(tmp_path, "log", pause=0.15)
    deadline = time.monotonic() + 60
    while len(shards(folder)) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    kept = shards(folder)
    assert 2 <= len(kept) < 6 and not (folder / "store.json").exists()
    finished = {entry["id"] for name in kept for entry in json.loads((folder / name).read_text())["tracks"]}
    made = store.prepare(tracks, folder, n_workers=0)  # waits until the orphaned workers have gone
    assert made.ids == tuple(one.id for one in tracks)
    assert len(finished) == 2 * len(kept) and not finished & set(decoded)
    for one in tracks:
        np.testing.assert_array_equal(made.read(one.id), audio.decode(one.path)[0][0])
    assert not list(folder.glob(".shard-*"))
    made.verify()


def test_two_prepares_at_once_do_each_track_once(tmp_path):
    corpus(tmp_path / "in", 8, n_samples=800)
    runs = [slow_prepare(tmp_path, "log", pause=0.1) for _ in range(2)]
    told = [run.communicate(timeout=60) for run in runs]
    assert [run.returncode for run in runs] == [0, 0] and [out.strip() for out, _ in told] == ["8", "8"]
    assert sorted((tmp_path / "log").read_text().split()) == [f"{i:03}.wav" for i in range(8)]
    assert sum("another process is preparing this store; waiting" in err for _, err in told) == 1


@pytest.mark.parametrize("subtype", ["PCM_24", "FLOAT"])
def test_a_quiet_recording_of_more_than_16_bits_keeps_16_of_its_own(tmp_path, subtype):
    wave = 0.003 * noise(0, 4410, n_channels=2)  # about -56 dB at its peak
    soundfile.write(tmp_path / "quiet.wav", wave, 44_100, subtype=subtype)
    made = store.prepare([track(tmp_path / "quiet.wav", "quiet")], tmp_path / "store", n_workers=0)
    heard = soundfile.read(tmp_path / "quiet.wav", dtype="float32")[0].T
    assert np.abs(made.read("quiet", mono=False) - heard).max() <= 0.51 * np.abs(heard).max() / 32767
    soundfile.write(tmp_path / "plain.wav", wave, 44_100, subtype="PCM_16")
    made = store.prepare([track(tmp_path / "plain.wav", "plain")], tmp_path / "other", n_workers=0)
    assert (
        np.abs(made.read("plain", mono=False) - soundfile.read(tmp_path / "plain.wav", dtype="float32")[0].T).max() == 0
    )
