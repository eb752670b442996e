"""Audio decoded once and memory-mapped: a crop is a slice, whatever the file format was.

Conventions
    folder/shard-00000.int16   samples of up to 128 tracks, one after the other, channels interleaved, native rate
    folder/shard-00000.json    its tracks (id, offset, n_samples, n_channels, sample_rate, scale, the source file's size
                               and time), its SHA-256 and that of this list; written last, so a shard with a JSON is
                               whole
    folder/failed.json         what could not be decoded: [{"id", "path", "reason"}]
    folder/store.json          version, and where each track lies, in the tracks' order; written last of all

Rounding. A sample x is kept as rint(x / scale), scale = 1 / 32768: exact for 16-bit sources, at most half a step
(-96 dB) off for others. A track whose peak does not fit (mp3 decoders overshoot full scale) has scale = peak / 32767:
nothing is ever clipped. So has every wav or flac of more than 16 bits: half a step is then 96 dB below its own peak,
however quiet a room was recorded. No pickle anywhere: samples and JSON.

Stopping `prepare` at any moment, SIGKILL included, loses the shards being written and no finished one.
"""

import contextlib
import errno
import faulthandler
import functools
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections import deque
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np

from pawlib.bench import audio
from pawlib.bench.files import atomic, locked, read_json, write_json
from pawlib.bench.progress import progress

VERSION = 1
TRACKS_PER_SHARD = 128
_SOURCE_BYTES_PER_SHARD = 256 * 2**20  # long albums make shards of fewer tracks
_SPARE_BYTES = 64 * 2**20
_MOST_EXPANSION = 200  # decoded bytes per byte of a file: 8 kbit/s speech has 176; more is a header that lies
LIMIT_S = 300.0  # for a file; decoding an hour takes a second or two
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Store:
    """Decoded tracks of one corpus; open it with `Store.open`, make it with `prepare`.

    Reading is safe from threads and processes; the object is small and goes to workers as it is.

    Attributes
    ----------
    folder : pathlib.Path
    ids : tuple of str
        In the order `prepare` was given.

    Told in: notebooks/01_data.ipynb
    """

    def __init__(self, folder, shards, where):
        self.folder = Path(folder)
        self._shards = shards  # name -> JSON of the shard
        self._where = where  # id -> (shard name, entry)
        self._maps = {}

    @classmethod
    def open(cls, folder):
        """Open a finished store.

        Raises
        ------
        FileNotFoundError
            If there is none, or it is not finished, or a shard of it is gone.
        ValueError
            If it was made by another version, or a file in it is broken.
        """
        folder = Path(folder)
        index = folder / "store.json"
        if not index.is_file():
            started = any(folder.glob("shard-*"))
            state = "is not finished (no store.json): its preparation was stopped" if started else "is not there"
            raise FileNotFoundError(
                f"the store {folder} {state}. Run `pawlib prepare` for this dataset"
                + (", finished shards are kept" if started else "")
            )
        told = read_json(index)
        version = told.get("version") if isinstance(told, dict) else None
        if version != VERSION:
            raise ValueError(
                f"the store {folder} is of version {version}, this pawlib reads {VERSION}: run "
                "`pawlib prepare` "
                "again, it decodes anew"
            )
        names = told.get("shards", [])
        shards = {name: _open_shard(folder, name) for name in names}
        where = {}
        try:
            for track_id, shard, row in told["tracks"]:
                entry = shards[names[shard]]["tracks"][row]
                if entry["id"] != track_id:
                    raise ValueError(f"{track_id} is pointed to where {entry['id']} lies")
                where[track_id] = names[shard], entry
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ValueError(
                f"{index} does not fit its shards ({error}): a failing disk or an edit? Run `pawlib prepare` again, "
                "it writes this file anew"
            ) from error
        return cls(folder, shards, where)

    @property
    def ids(self):
        return tuple(self._where)

    @functools.cached_property
    def failed(self):
        """What could not be decoded: list of {"id", "path", "reason"}."""
        path = self.folder / "failed.json"
        return read_json(path) if path.is_file() else []

    def __len__(self):
        return len(self._where)

    def __contains__(self, track_id):
        return track_id in self._where

    def __repr__(self):
        return f"Store({str(self.folder)!r}: {len(self):,} tracks, {len(self.failed):,} failed)"

    def sample_rate(self, track_id):
        """Native rate of a track [Hz]."""
        return self._entry(track_id)[1]["sample_rate"]

    def n_samples(self, track_id):
        """Length of a track at its native rate [samples]."""
        return self._entry(track_id)[1]["n_samples"]

    def n_channels(self, track_id):
        """Channels of a track."""
        return self._entry(track_id)[1]["n_channels"]

    def read(self, track_id, start=0, n_samples=None, mono=True):
        """Read a clip at the track's native rate.

        Parameters
        ----------
        track_id : str
        start : int >= 0 [samples]
        n_samples : int > 0, optional [samples]
            To the end of the track if not given.
        mono : bool
            Mean over channels; with False all channels.

        Returns
        -------
        np.ndarray, float32 (n_samples,), or (n_channels, n_samples) with mono=False

        Raises
        ------
        ValueError
            If the track is not in the store, or the clip reaches beyond its end.
        """
        shard, entry = self._entry(track_id)
        there, n_channels = entry["n_samples"], entry["n_channels"]
        n_samples = there - start if n_samples is None else n_samples
        if start < 0 or n_samples <= 0 or start + n_samples > there:
            raise ValueError(
                f"clip of {n_samples} samples from {start} does not lie in {track_id} ({there} samples at "
                f"{entry['sample_rate']} Hz): is the track too short, or the start at another rate?"
            )
        first = entry["offset"] + start * n_channels
        values = self._map(shard)[first : first + n_samples * n_channels]
        wave = np.multiply(values, np.float32(entry["scale"]), dtype=np.float32)
        if n_channels == 1:
            return wave if mono else wave[None]
        wave = wave.reshape(n_samples, n_channels)
        return wave.mean(axis=1) if mono else np.ascontiguousarray(wave.T)

    def verify(self):
        """Compare every shard with its checksum; about 1 s per GB.

        Raises
        ------
        ValueError
            Naming the damaged shards.
        """
        damaged = [
            name
            for name, shard in progress(self._shards.items(), what="verifying", unit="shards")
            if _sha256(self.folder / f"{name}.int16") != shard["sha256"]
        ]
        if damaged:
            raise ValueError(
                f"{len(damaged)} of {len(self._shards)} shards of {self.folder} differ from their checksum: "
                f"{', '.join(damaged)}. A failing disk or an edit? Delete these files (.int16 and .json) and run "
                "`pawlib prepare` again, it decodes them anew"
            )

    def _entry(self, track_id):
        try:
            return self._where[track_id]
        except KeyError:
            reason = next((f"it could not be decoded: {f['reason']}" for f in self.failed if f["id"] == track_id), None)
            raise ValueError(
                f"track {track_id!r} is not in the store {self.folder}: "
                f"{reason or 'run `pawlib prepare` for its dataset'}"
            ) from None

    def _map(self, shard):
        """The shard's samples, mapped on first use in each process (two threads may map it twice: harmless)."""
        found = self._maps.get(shard)
        if found is None:
            memory = np.memmap(self.folder / f"{shard}.int16", dtype="<i2", mode="r")
            found = self._maps[shard] = memory.view(np.ndarray)  # plain slices are 10 times cheaper than memmap's
        return found

    def __getstate__(self):  # to a worker: the index goes along, the maps are opened there
        return {**self.__dict__, "_maps": {}}


def prepare(tracks, folder, n_workers=None, min_seconds=0.0, silence_db=audio.SILENCE_DB):
    """Decode tracks once, in parallel, into a store; only what is missing or has changed is decoded.

    One bad file never ends the run: it is listed in failed.json with the reason. Call it again after a stop; a second
    `prepare` on the same folder waits for the first.

    Parameters
    ----------
    tracks : sequence of Track
        Only `id` and `path` are used.
    folder : path-like
    n_workers : int, optional
        Processes; all cores if not given, 0 decodes in this process.
    min_seconds : float [s]
        Shorter tracks are listed as failed.
    silence_db : float [dB re full scale]
        Tracks whose peak lies below are listed as failed.

    Returns
    -------
    Store

    Raises
    ------
    ValueError
        If there are no tracks, an id comes twice, or no track could be decoded.
    OSError
        If the disk is full or about to be (errno.ENOSPC), naming folder and bytes; finished shards are kept.

    Told in: notebooks/01_data.ipynb
    """
    tracks, folder = list(tracks), Path(folder)
    _check_ids(tracks)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, "preparing this store"):
        for stale in folder.glob(".shard-*.part"):  # left by a killed run
            stale.unlink(missing_ok=True)
        sources = {track.id: _source(track.path) for track in tracks}
        done, shards = _finished(folder, sources, min_seconds)
        pending = [track for track in tracks if track.id not in done]
        n_workers = _cores() if n_workers is None else n_workers
        batches = _batches(pending, sources, n_workers)
        _check_space(folder, pending)
        number = 1 + max((int(path.name[6:11]) for path in folder.glob("shard-*")), default=-1)
        jobs = [(f"shard-{number + i:05d}", batch) for i, batch in enumerate(batches)]
        write = functools.partial(_write_shard, folder, min_seconds=min_seconds, silence_db=silence_db)
        failed = []
        told = progress(_run(jobs, write, n_workers), total=len(pending), what="decoding", unit="songs")
        for failure in told:
            failed += [failure] if failure else []
        if pending:
            done, shards = _finished(folder, sources, min_seconds)
        place = {track.id: i for i, track in enumerate(tracks)}
        failed.sort(key=lambda failure: place[failure["id"]])
        write_json(folder / "failed.json", failed)
        if not done:
            raise ValueError(
                f"none of {len(tracks)} tracks could be decoded, the first because {failed[0]['path']} "
                f"{failed[0]['reason']} "
                f"(all reasons: {folder / 'failed.json'})"
            )
        _write_index(folder, [track.id for track in tracks if track.id in done], done, shards)
    return Store.open(folder)


# --- what is there, what is to do -------------------------------------------------------------------------------------


def _check_ids(tracks):
    if not tracks:
        raise ValueError("no tracks to prepare: is the dataset empty?")
    seen = set()
    for track in tracks:
        if track.id in seen:
            raise ValueError(
                f"track id {track.id!r} comes twice, expected each once: are two folders of one dataset joined?"
            )
        seen.add(track.id)


def _source(path):
    """(size, time) of a source file; what a changed file differs in."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _finished(folder, sources, min_seconds):
    """Tracks that whole shards hold in their present form: id -> (shard, row), and the shards by name."""
    done, shards = {}, {}
    for path in sorted(folder.glob("shard-*.json")):
        try:
            shard = _open_shard(folder, path.stem)
        except (ValueError, OSError):
            continue  # of another version, or broken: decoded anew, deleted at the end
        shards[path.stem] = shard
        for row, entry in enumerate(shard["tracks"]):
            long_enough = entry["n_samples"] >= min_seconds * entry["sample_rate"]
            if long_enough and sources.get(entry["id"]) == (entry["size"], entry["mtime_ns"]):
                done[entry["id"]] = path.stem, row
    return done, shards


def _open_shard(folder, name):
    shard = read_json(folder / f"{name}.json")
    if not isinstance(shard, dict) or shard.get("version") != VERSION:
        raise ValueError(f"{folder / name}.json is not a shard of version {VERSION}: run `pawlib prepare` again")
    written = shard.pop("json_sha256", None)  # older ones have none
    if {"n_values", "sha256", "tracks"} - set(shard) or written not in (None, _sha256_of(shard)):
        raise ValueError(
            f"{folder / name}.json is not what was written: a failing disk or an edit? Run `pawlib prepare` again, it "
            "decodes these tracks anew"
        )
    data = folder / f"{name}.int16"
    if not data.is_file() or data.stat().st_size != 2 * shard["n_values"]:
        there = f"has {data.stat().st_size} bytes" if data.is_file() else "is not there"
        raise FileNotFoundError(
            f"{data} {there}, expected {2 * shard['n_values']} bytes: was the store copied in part? Run `pawlib "
            "prepare` "
            "again, it decodes what is missing"
        )
    return shard


def _batches(tracks, sources, n_workers):
    """Cut the tracks into shards: at most 128 tracks and 256 MiB of source files, and work for every worker."""
    at_most = min(TRACKS_PER_SHARD, -(-len(tracks) // max(1, n_workers)))
    batches, n_bytes = [], 0
    for track in tracks:
        size = (sources[track.id] or (0, 0))[0]
        if not batches or len(batches[-1]) >= at_most or n_bytes + size > _SOURCE_BYTES_PER_SHARD:
            batches.append([])
            n_bytes = 0
        batches[-1].append((track.id, Path(track.path)))
        n_bytes += size
    return batches


def _check_space(folder, tracks):
    """Refuse to begin what the disk cannot hold, by the headers of up to 64 tracks."""
    sizes = []
    for track in tracks[:: max(1, len(tracks) // 64)]:
        with contextlib.suppress(audio.AudioError):
            n_samples, n_channels, _ = audio.info(track.path)
            most = _MOST_EXPANSION * os.stat(track.path).st_size
            sizes.append(min(2 * n_samples * n_channels, most))
    if not sizes:
        return
    needed = int(1.05 * len(tracks) * sum(sizes) / len(sizes)) + _SPARE_BYTES
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            errno.ENOSPC,
            f"decoding {len(tracks):,} tracks needs about {needed:,} bytes, {free:,} are free. Free "
            f"{needed - free:,} bytes "
            "or set PAWLIB_DATA to a folder on a larger disk, and run again: finished shards are kept",
            str(folder),
        )


def _write_index(folder, ids, done, shards):
    """Write store.json, then delete shards that nothing points to."""
    names = sorted({done[track_id][0] for track_id in ids})
    number = {name: i for i, name in enumerate(names)}
    index = {
        "version": VERSION,
        "n_tracks": len(ids),
        "shards": names,
        "tracks": [[track_id, number[done[track_id][0]], done[track_id][1]] for track_id in ids],
    }
    old = folder / "store.json"
    there = None
    with contextlib.suppress(ValueError, FileNotFoundError):  # damaged, or none
        there = read_json(old)
    if there != index:
        write_json(old, index)
    for path in folder.glob("shard-*"):
        if path.stem not in number:
            path.unlink(missing_ok=True)


# --- decoding ---------------------------------------------------------------------------------------------------------


def _run(jobs, write, n_workers):
    """Write all shards; yields once per track: None, or its failure."""
    if n_workers == 0:
        for name, batch in jobs:
            yield from _told(batch, write(name, batch))
        return
    queue = deque(jobs)
    while queue:
        yield from _run_pool(queue, write, min(n_workers, len(queue)))


def _run_pool(queue, write, n_workers):
    """Work the queue off with a pool. A file that kills its worker (a bug in a decoder, no memory) breaks the pool:
    the shards then in work go back in halves, until it is found alone and listed."""
    running = {}
    with ProcessPoolExecutor(n_workers, initializer=_start_worker, initargs=(os.getpid(),)) as pool:
        while queue or running:
            while queue and len(running) < n_workers:
                job = queue.popleft()
                running[pool.submit(write, *job)] = job
            done = wait(running, return_when=FIRST_COMPLETED).done
            broken = any(isinstance(future.exception(), BrokenProcessPool) for future in done)
            for future in done:
                if not isinstance(future.exception(), BrokenProcessPool):
                    yield from _told(running.pop(future)[1], future.result())
            if broken:
                break
    yield from _after_a_break(list(running.values()), queue, write)


def _after_a_break(jobs, queue, write):
    """Put the shards of a broken pool back in halves; whichever of them killed it, a single track is tried alone."""
    for name, batch in jobs:
        if len(batch) > 1:
            half = len(batch) // 2
            queue.append((name, batch[:half]))
            queue.append((f"{name}-{half}", batch[half:]))
        elif len(jobs) > 1:
            yield from _run_pool(deque([(name, batch)]), write, 1)
        else:
            reason = (
                f"ended the process that decoded it, or was not done after {LIMIT_S:g} s: corrupt in a way the decoder "
                "does not survive, or out of memory"
            )
            yield {"id": batch[0][0], "path": audio.printable(batch[0][1]), "reason": reason}


def _told(batch, failures):
    yield from failures
    yield from [None] * (len(batch) - len(failures))


def _write_shard(folder, name, batch, min_seconds, silence_db):
    """Decode a batch into one shard; returns the failures. Runs in a worker.

    Raises
    ------
    OSError
        If the shard cannot be written.
    """
    entries, failures, offset = [], [], 0
    try:
        with atomic(folder / f"{name}.int16") as temporary:
            digest = hashlib.sha256()
            with open(temporary, "wb") as file:
                for track_id, path in batch:
                    try:
                        with _within_limit():
                            entry, values = _encode(track_id, path, min_seconds, silence_db)
                    except Exception as error:  # whatever one file does, the others go on
                        reason = getattr(error, "reason", f"{type(error).__name__}: {error}")
                        failures.append({"id": track_id, "path": audio.printable(path), "reason": reason})
                        continue
                    file.write(values)
                    digest.update(values)
                    entries.append({**entry, "offset": offset})
                    offset += values.size
            if not entries:
                raise _NothingDecoded
        told = {"version": VERSION, "n_values": offset, "sha256": digest.hexdigest(), "tracks": entries}
        write_json(folder / f"{name}.json", {**told, "json_sha256": _sha256_of(told)})
    except _NothingDecoded:
        pass
    except OSError as error:
        if error.errno not in _FULL:
            raise
        size = sum((_source(path) or (0, 0))[0] for _, path in batch)
        raise OSError(
            error.errno,
            f"the disk filled up after {2 * offset:,} bytes of {name} ({len(batch)} tracks, {size:,} bytes "
            "encoded). Free "
            "space or set PAWLIB_DATA to a folder on a larger disk, and run again: finished shards are kept",
            str(folder),
        ) from error
    return failures


@contextlib.contextmanager
def _within_limit():
    """End this worker if a decoder does not come back; the watchdog is a thread of C, so it ends code of C, too."""
    if multiprocessing.parent_process() is None:  # no worker: nobody would go on
        yield
        return
    with open(os.devnull, "w") as nowhere:
        faulthandler.dump_traceback_later(LIMIT_S, exit=True, file=nowhere)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()


class _NothingDecoded(Exception):
    """No track of a batch could be decoded, so no shard is written."""


def _encode(track_id, path, min_seconds, silence_db):
    """Decode one track to int16: its entry without the offset, and the values, interleaved."""
    source = _source(path)  # before decoding: a file that changes meanwhile is decoded anew next time
    wave, sample_rate = audio.decode(path, min_seconds=min_seconds, silence_db=silence_db)
    n_channels, n_samples = wave.shape
    fill = audio.is_finer_than_16_bits(path)
    values, scale = to_int16(np.ascontiguousarray(wave.T).reshape(-1), fill)  # (n_samples * n_channels,)
    entry = {
        "id": track_id,
        "n_samples": n_samples,
        "n_channels": n_channels,
        "sample_rate": sample_rate,
        "scale": scale,
        "size": source[0],
        "mtime_ns": source[1],
    }
    return entry, values


def to_int16(wave, fill=False):
    """Round a wave to int16 without clipping: (values, scale), wave = values * scale to half a step.

    scale is 1 / 32768 (exact for 16-bit sources), or peak / 32767 where the peak does not fit, and with `fill` always.
    """
    scale = 1 / 32768
    if wave.size and ((fill and wave.any()) or wave.max() > 32767 / 32768 or wave.min() < -1.0):
        scale = float(np.abs(wave).max()) / 32767
    steps = wave / np.float32(scale)
    return np.rint(steps, out=steps).clip(-32768, 32767, out=steps).astype("<i2"), scale


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sha256_of(told):
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _start_worker(parent):
    """Leave Ctrl-C to the parent, and end with it: an orphan would hold the lock for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch():
        while os.getppid() == parent:
            time.sleep(0.3)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
