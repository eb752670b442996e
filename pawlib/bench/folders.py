"""A folder of anybody's music to one parquet file: the vectors of every clip of every level of every track.

    made = folders.embed("Music", "embeddings.parquet", MusicPAW.load(...))      # what `pawlib embed` calls
    found = folders.read("embeddings.parquet")
    rows, similarity = alike.neighbours(found, level=0, k=5)

One row per clip
    track      path below the folder, forward slashes, composed Unicode (bench.datasets.folder)
    level      0 is the whole of 22.4 s, n_levels - 1 the shortest clip
    index      of the clip among its track's clips of this level, in time order
    start_s, end_s   in seconds from the track's beginning
    repeated   the clip holds audio that was repeated to complete the track's last whole
    vector     512 float32: what `MusicPAW.embed` gives, the encoder's output before block and projector
Rows of a track stand together. The file's metadata (key "pawlib") names weights, levels and source files as JSON.

Files beside embeddings.parquet
    embeddings.failed.json     what was left out, and why: [{"id", "path", "reason"}]
    embeddings.parquet.parts/  while work goes on: finished parts, joined and deleted at the end

Memory. A file is read, mixed down and resampled in blocks, so its length costs nothing but its vectors (5 MB an hour at
all levels, held until the file has ended well); their number costs nothing but their names.

Told in: notebooks/81_your_music.ipynb
"""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import shutil
import sys
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from pawlib import encoders
from pawlib.bench import alike, audio, loop
from pawlib.bench.datasets import folder
from pawlib.bench.embed import BATCH_CLIPS, computing_fast, hash_weights
from pawlib.bench.files import atomic, locked, write_json
from pawlib.bench.progress import progress

LEVELS = ("all", "shortest", "top")
FORMAT = "music-paw embeddings 1"
KEY = b"pawlib"
PART_FILES = 64
PART_ROWS = 16_384
BATCH_WHOLES = 8
ROWS_AT_ONCE = 4096
_NUMBERS = ("level", "index", "start_s", "end_s", "repeated")  # columns between track and vector


@dataclasses.dataclass(frozen=True)
class Embedded:
    """What one call of `embed` found and did.

    out, failed_json : pathlib.Path
    n_tracks : int, tracks whose vectors are in `out`
    n_new : int, those of them that were embedded by this call
    left_out : list of {"id", "path", "reason"}, as in failed_json
    audio_s, wall_s : float [s], length of the new tracks, and what embedding them took
    """

    out: Path
    failed_json: Path
    n_tracks: int
    n_new: int
    left_out: list
    audio_s: float
    wall_s: float

    @property
    def complete(self):
        """Whether nothing but hidden files was left out: no person calls those music."""
        return all(Path(entry["path"]).name.startswith(".") for entry in self.left_out)


class _Heard(NamedTuple):
    """One step through the files: a whole, or the end of a file (its samples, or why it is of no use)."""

    file: int
    whole: np.ndarray | None
    n_samples: int = 0
    reason: str = ""


def embed(root, out, model, levels="all", part_files=PART_FILES):
    """Embed every track of a folder into one parquet file, and list what could not be.

    Stopped at any moment and called again it goes on after the last finished part. On a finished file it embeds what
    is new or has changed, drops what is gone from the folder, and otherwise does nothing.

    Parameters
    ----------
    root : path-like
        Folder of wav, flac, ogg and mp3, subfolders included.
    out : path-like
        Ends in .parquet.
    model : MusicPAW, or any module with sample_rate, n_whole, n_levels, n_parts, mels.n_fft, settings, encoder and
        embed_clips(clips, level)
        On the device it shall compute on.
    levels : "all" | "shortest" | "top"
    part_files : int > 0
        Files after which a part is written: what a stop may cost.

    Returns
    -------
    Embedded

    Raises
    ------
    ValueError
        If the folder holds no audio or none that can be embedded; for an unknown `levels`; if `out` is another kind of
        file, of other weights, levels, or another folder.
    FileNotFoundError
        If there is no such folder.

    Told in: notebooks/81_your_music.ipynb
    """
    out, chosen = _checked_out(out), _chosen(levels, model)
    tracks, others = _listed(root, out)
    failed_json, work = out.with_suffix(".failed.json"), _parts_folder(out)
    work.mkdir(parents=True, exist_ok=True)
    with locked(work, "embedding into this file"):
        work.mkdir(exist_ok=True)  # whoever held the lock before has removed it
        identity = {"format": FORMAT, "weights": _fingerprint(model), "levels": chosen}
        state = _State.of(out, work, tracks, identity, root)
        pending = [track for track in tracks if track.id not in state.kept and track.id not in state.failed]
        began, audio_s, n_new, n_done = time.perf_counter(), 0.0, 0, 0
        outcomes = progress(_outcomes(pending, model, chosen), len(pending), "embedding", "files")
        for part in _parts(outcomes, part_files):
            state.add(part, work)
            audio_s += sum(one.n_samples for one in part) / model.sample_rate
            n_new += sum(not one.reason for one in part)
            n_done += len(part)
            _tell(n_done, audio_s, time.perf_counter() - began, len(pending))
        left_out = sorted([*others, *map(_without_signature, state.failed.values())], key=lambda other: other["id"])
        write_json(failed_json, left_out)
        if not state.kept:
            _remove_parts(work)
            first = next(iter(state.failed.values()))
            raise ValueError(
                f"none of the {len(tracks)} audio files in {audio.printable(root)} could be embedded, the first "
                f"because {first['id']} {first['reason']} (all reasons: {failed_json})"
            )
        state.join(out)
        _remove_parts(work)
    return Embedded(out, failed_json, len(state.kept), n_new, left_out, audio_s, time.perf_counter() - began)


def wholes(path, sample_rate, n_whole, min_samples=1, silence_db=audio.SILENCE_DB):
    """A file of any length as mono wholes at the wanted rate, read in blocks; the last is completed by repetition.

    What `audio.mono_blocks` gives, cut as `crops.split_wholes` cuts; errors at the end come after the last whole.

    Parameters
    ----------
    path : path-like
    sample_rate : int [Hz]
    n_whole : int > 0 [samples]
    min_samples : int [samples]
        Anything shorter, at the wanted rate, is refused.
    silence_db : float [dB re full scale]
        As in `audio.decode`.

    Yields
    ------
    whole : np.ndarray, float32 (n_whole,)
    n_real : int [samples]
        How many of them are the file's own; n_whole in all but the last.

    Raises
    ------
    AudioError
        As `audio.mono_blocks`.

    Told in: notebooks/81_your_music.ipynb
    """
    buffer, first, n_samples = np.zeros(0, np.float32), None, 0
    for block in audio.mono_blocks(path, sample_rate, n_whole, silence_db):
        buffer = np.concatenate([buffer, block])
        n_samples += len(block)
        while len(buffer) >= n_whole:
            first = buffer[:n_whole] if first is None else first
            yield buffer[:n_whole], n_whole
            buffer = buffer[n_whole:]
    if n_samples < min_samples:
        raise audio.AudioError(
            path,
            f"has {n_samples} samples at {sample_rate} Hz, fewer than the {min_samples} of one STFT window: was it cut "
            "off? Get it again",
        )
    if len(buffer):
        missing = n_whole - len(buffer)
        repeated = np.resize(buffer if first is None else first, missing)  # the song from its beginning
        yield np.concatenate([buffer, repeated]), len(buffer)


def read(path, levels=None):
    """Read an embeddings file into arrays.

    Parameters
    ----------
    path : path-like
    levels : sequence of int, optional
        Only these: all levels of 10,000 songs are more than 3 GB.

    Returns
    -------
    alike.Embeddings

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not one of `embed`'s, or damaged.

    Told in: notebooks/81_your_music.ipynb
    """
    import pyarrow.compute
    import pyarrow.parquet

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: make it with `pawlib embed FOLDER --out {path.name}`")
    _metadata(path)  # refuses what is no embeddings file
    names, columns = {}, []
    with pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(ROWS_AT_ONCE):
            if levels is not None:
                batch = batch.filter(pyarrow.compute.is_in(batch["level"], pyarrow.array(list(levels), "int32")))
            track = [names.setdefault(name, len(names)) for name in batch["track"].to_pylist()]
            plain = [batch[name].to_numpy(zero_copy_only=False) for name in _NUMBERS]
            vectors = batch["vector"].flatten().to_numpy().reshape(len(batch), encoders.WIDTH)
            columns.append([np.array(track, np.int64), *plain, vectors])
    joined = [np.concatenate(column) for column in zip(*columns, strict=True)]
    return alike.Embeddings(tuple(names), *joined)


# --- what is there, what is to do -------------------------------------------------------------------------------------


class _State:
    """What is embedded already and where, and what failed.

    sources : list of Path, parquet files, the finished one first
    listed : dict source -> ids of the tracks in it
    kept : dict id -> the source whose rows count
    failed : dict id -> {"id", "path", "reason", "signature"}
    signatures : dict id -> size and time of the file now, for every track of the folder
    """

    def __init__(self, identity):
        self.identity, self.sources, self.listed, self.kept, self.failed = identity, [], {}, {}, {}
        self.signatures = {}

    @classmethod
    def of(cls, out, work, tracks, identity, root):
        """Read the finished file and the parts; what changed since, or is gone from the folder, does not count."""
        state = cls(identity)
        now = state.signatures = {track.id: _signature(track.path) for track in tracks}
        paths = {track.id: track.path for track in tracks}
        there = [out] if out.is_file() else []
        for path in [*there, *sorted(work.glob("part-*.parquet"))]:
            told = _metadata(path)
            _refuse_other(path, out, told["identity"], identity)
            state.sources.append(path)
            state.listed[path] = [entry["id"] for entry in told["tracks"]]
            for entry in told["tracks"]:
                if entry["signature"] == now.get(entry["id"]):
                    state.kept.setdefault(entry["id"], path)
            for entry in told["failed"]:
                if entry["id"] in now and entry["signature"] == _signature(paths[entry["id"]], rights=True):
                    state.failed[entry["id"]] = entry
        state.failed = {track: entry for track, entry in state.failed.items() if track not in state.kept}
        listed = set(itertools.chain.from_iterable(state.listed.values()))
        if listed and listed.isdisjoint(now):
            raise ValueError(
                f"{out} holds the embeddings of {len(listed)} other tracks, e.g. {min(listed)}, none of which is in "
                f"{audio.printable(root)}: choose another --out for this folder"
            )
        return state

    def add(self, part, work):
        """Write a part of finished files, and take it up."""
        number = 1 + max((int(path.stem[5:]) for path in work.glob("part-*.parquet")), default=-1)
        path = work / f"part-{number:05d}.parquet"
        done = [one for one in part if not one.reason]
        failed = [
            {
                "id": one.track.id, "path": audio.printable(one.track.path), "reason": one.reason,
                "signature": _signature(one.track.path, rights=True),
            }
            for one in part if one.reason
        ]  # fmt: skip
        with _writer(path, self._describe([one.track.id for one in done], failed)) as writer:
            for one in done:
                writer.write_batch(one.rows)
        self.sources.append(path)
        self.listed[path] = [one.track.id for one in done]
        self.kept |= {one.track.id: path for one in done}
        self.failed |= {entry["id"]: entry for entry in failed}

    def join(self, out):
        """Write all that is kept as one file, in one step; nothing where it lies there already."""
        import pyarrow
        import pyarrow.parquet

        if self.sources == [out] and set(self.listed[out]) == set(self.kept):
            return
        ids = [name for path in self.sources for name in self.listed[path] if self.kept.get(name) == path]
        with _writer(out, self._describe(ids, list(self.failed.values()))) as writer:
            for path in self.sources:
                stale = {name for name in self.listed[path] if self.kept.get(name) != path}
                with pyarrow.parquet.ParquetFile(path) as file:
                    for batch in file.iter_batches(ROWS_AT_ONCE):
                        if stale:
                            batch = batch.filter(pyarrow.array([t not in stale for t in batch["track"].to_pylist()]))
                        writer.write_batch(batch)

    def _describe(self, ids, failed):
        """What a file with the vectors of these tracks says of itself; `_metadata` reads it back."""
        tracks = [{"id": name, "signature": self.signatures[name]} for name in ids]
        return {"identity": self.identity, "tracks": tracks, "failed": failed}


def _checked_out(out):
    out = Path(out)
    if out.suffix != ".parquet":
        raise ValueError(f"--out {out} does not end in .parquet: give a file name such as {out.stem}.parquet")
    if out.is_dir():
        raise ValueError(f"--out {out} is a folder: give the name of a file in it")
    return out


def _chosen(levels, model):
    if levels not in LEVELS:
        raise ValueError(f"levels={levels!r} is unknown, expected one of {', '.join(LEVELS)}")
    return {"all": list(range(model.n_levels)), "shortest": [model.n_levels - 1], "top": [0]}[levels]


def _listed(root, out):
    """(tracks, files left out) of the folder, our own files not among them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what is no audio goes into the second file
        tracks = folder.read(root)
    ours = {path.resolve() for path in (out, out.with_suffix(".failed.json"))}
    work = _parts_folder(out).resolve()

    def is_ours(path):
        return path.resolve() in ours or work in path.resolve().parents

    return tracks, [other for other in folder.left_out(root) if not is_ours(Path(other["path"]))]


def _parts_folder(out):
    """Where finished parts wait until all are there."""
    return out.with_name(f"{out.name}.parts")


def _signature(path, rights=False):
    """Size and time of a file, by which a changed one is known; with `rights` a time that changes with these, too."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns, *([found.st_ctime_ns] if rights else [])]


def _without_signature(entry):
    return {key: entry[key] for key in ("id", "path", "reason")}


def _fingerprint(model):
    """What the vectors depend on: settings and the encoder's weights."""
    digest = hashlib.sha256(json.dumps(model.settings, sort_keys=True, default=str).encode())
    hash_weights(digest, model.encoder)
    return digest.hexdigest()[:16]


def _refuse_other(path, out, there, wanted):
    """Refuse to mix vectors of two models, or of other levels."""
    for name in wanted:
        if there.get(name) != wanted[name]:
            at = f"or delete {path}" if path == out else f"or delete {path.parent}"
            raise ValueError(
                f"{path} was made with {name} {there.get(name)}, this call asks for {wanted[name]}: choose another "
                f"--out, {at} to begin anew"
            )


def _remove_parts(work):
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(work)


# --- parquet ----------------------------------------------------------------------------------------------------------


def _schema():
    import pyarrow as pa

    numbers = zip(_NUMBERS, (pa.int32(), pa.int32(), pa.float64(), pa.float64(), pa.bool_()), strict=True)
    return pa.schema([("track", pa.string()), *numbers, ("vector", pa.list_(pa.float32(), encoders.WIDTH))])


@contextlib.contextmanager
def _writer(path, told):
    """A parquet writer whose file appears under its name only when it is whole."""
    import pyarrow.parquet

    with atomic(path) as part:
        with pyarrow.parquet.ParquetWriter(part, _schema(), compression="zstd", use_dictionary=["track"]) as writer:
            yield writer
            writer.add_key_value_metadata({KEY: json.dumps(told, ensure_ascii=False).encode()})


def _metadata(path):
    """What a file of ours says of itself."""
    import pyarrow.parquet

    try:
        metadata = pyarrow.parquet.read_metadata(path).metadata or {}
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise ValueError(
            f"{path} cannot be read as parquet ({error}): was it cut off? Delete it to begin anew"
        ) from error
    told = json.loads(metadata[KEY]) if KEY in metadata else {}
    if told.get("identity", {}).get("format") != FORMAT:
        raise ValueError(f"{path} is no {FORMAT!r} file: was it made by another program? Choose another name")
    return told


def _rows(track_id, vectors, n_samples, model):
    """The rows of one track: a pyarrow record batch, level after level.

    vectors : dict level -> list of arrays (M**n, 512), one per whole
    """
    import pyarrow as pa

    columns = {name: [] for name in _NUMBERS}
    for level, found in vectors.items():
        n_clip = model.n_whole // model.n_parts**level
        index = np.arange(sum(map(len, found)))
        values = (np.full(len(index), level), index, index * n_clip / model.sample_rate)
        values += ((index + 1) * n_clip / model.sample_rate, (index + 1) * n_clip > n_samples)
        for name, value in zip(_NUMBERS, values, strict=True):
            columns[name].append(value)
    flat = np.concatenate([whole for found in vectors.values() for whole in found])  # (n_rows, 512)
    schema = _schema()
    plain = [pa.array(np.concatenate(columns[name]), schema.field(name).type) for name in _NUMBERS]
    vector = pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), flat.shape[1])
    return pa.record_batch([pa.array([track_id] * len(flat)), *plain, vector], schema=schema)


# --- the pass over the files ------------------------------------------------------------------------------------------


class _Outcome(NamedTuple):
    """A file that has ended: its rows, or why there are none.

    track : Track
    rows : pyarrow.RecordBatch, or None
    n_samples : int, at the model's rate; 0 where it failed
    reason : str, "" where it did not
    """

    track: object
    rows: object
    n_samples: int
    reason: str


def _parts(outcomes, part_files):
    """Files in lists: as many as a part may hold, by number and by rows."""
    part, n_rows = [], 0
    for outcome in outcomes:
        part.append(outcome)
        n_rows += 0 if outcome.reason else len(outcome.rows)
        if len(part) >= part_files or n_rows >= PART_ROWS:
            yield part
            part, n_rows = [], 0
    if part:
        yield part


def _outcomes(tracks, model, levels):
    """Embed files one after the other; decoding runs ahead in a thread."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        vectors = {level: [] for level in levels}  # of the file that is not yet at its end
        for batch, _ in loop.read_ahead(_batches(tracks, model)):
            encoded = iter(_encoded(model, [heard.whole for heard in batch if heard.whole is not None], levels))
            for heard in batch:
                if heard.whole is not None:
                    for level, found in zip(levels, next(encoded), strict=True):
                        vectors[level].append(found)
                    continue
                track, rows = tracks[heard.file], None
                if not heard.reason:
                    rows = _rows(track.id, vectors, heard.n_samples, model)
                vectors = {level: [] for level in levels}
                yield _Outcome(track, rows, heard.n_samples, heard.reason)
    finally:
        for module, was_training in modes:
            module.training = was_training


def _batches(tracks, model):
    """What is heard, in lists of BATCH_WHOLES wholes: files shorter than that share a list."""
    batch, n_wholes = [], 0
    for k, track in enumerate(tracks):
        for heard in _heard(k, track.path, model):
            batch.append(heard)
            n_wholes += heard.whole is not None
            if n_wholes == BATCH_WHOLES:
                yield batch
                batch, n_wholes = [], 0
    if batch:
        yield batch


def _heard(k, path, model):
    """The wholes of a file, then its end."""
    try:
        n_samples = 0
        for whole, n_real in wholes(path, model.sample_rate, model.n_whole, model.mels.n_fft):
            n_samples += n_real
            yield _Heard(k, whole)
        yield _Heard(k, None, n_samples)
    except Exception as error:  # whatever one file does, the others go on
        yield _Heard(k, None, 0, getattr(error, "reason", None) or f"{type(error).__name__}: {error}")


def _encoded(model, waves, levels):
    """Vectors of some wholes: for each, a list by level of float32 arrays (M**n, 512)."""
    if not waves:
        return []
    x = torch.from_numpy(np.stack(waves)).to(next(model.parameters()).device)  # (B, n_whole)
    by_level = []
    with torch.inference_mode(), computing_fast(model):
        for level in levels:
            clips = x.unflatten(-1, (model.n_parts**level, -1)).flatten(0, 1)  # (B * M**n, n_clip)
            s = torch.cat([model.embed_clips(some, level).float() for some in clips.split(BATCH_CLIPS)])
            by_level.append(s.unflatten(0, (len(waves), -1)).cpu().numpy())
    return list(zip(*by_level, strict=True))


def _tell(n_done, audio_s, wall_s, n_pending):
    """One line after each part but the last: what no bar shows is how fast it is beside real time."""
    if n_done < n_pending:
        tqdm.write(
            f"embedding: {n_done:,} of {n_pending:,} files, {speed(n_done, audio_s, wall_s)}; kept", file=sys.stderr
        )


def speed(n_files, audio_s, wall_s):
    """ "8.1 files/s, 151x real time"."""
    wall_s = max(wall_s, 1e-9)
    return f"{n_files / wall_s:.1f} files/s, {audio_s / wall_s:.0f}x real time"
