"""Audio files in, float32 waves out: decode and resample, with an error that says what is wrong with the file.

Conventions
    wave : float32 (n_channels, n_samples), full scale is 1.0; an mp3 decoder may overshoot it.
    Rates are in Hz. `decode` keeps the file's own rate and channels; mixing down and resampling are separate steps.
    `mono_blocks` does all three, for files of any length; both refuse the same files for the same reasons.

soundfile (libsndfile) reads wav, flac, ogg and mp3 without FFmpeg: 29 s of mp3 in about 6 ms. The content decides, not
the extension: an mp3 named song.wav is read as mp3.
"""

import re
from pathlib import Path

import numpy as np

EXTENSIONS = (".wav", ".flac", ".ogg", ".mp3")
SILENCE_DB = -80.0
BLOCK_FRAMES = 1 << 18  # of `mono_blocks`, 6 s at 44.1 kHz

# What people find under an audio extension when a download or an export went wrong: first bytes -> what it is, cure.
_OTHER_CONTENT = (
    (b"<", "a web page or XML, probably what a server answered instead of the file", "download it again"),
    (b"PK", "a zip archive", "unpack it and give the folder"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "run `git lfs pull`"),
    (b"\x00\x05\x16\x07", "a macOS resource fork (._ file), not audio", "delete it"),
    (b"\x1aE\xdf\xa3", "Matroska or WebM", "convert it, e.g. `ffmpeg -i FILE out.flac`"),
)
# A streaming writer that cannot seek back leaves one of these as the length in a wav header: the audio is whole.
_UNKNOWN_LENGTHS = (0, 0x7FFFFFFF, 0xFFFFFFFF)


class AudioError(ValueError):
    """A file that cannot be used as audio; the message names the file, the cause and the cure.

    Attributes
    ----------
    path : pathlib.Path
    reason : str
        Cause and cure without the path, for lists such as a store's failed.json.
    """

    def __init__(self, path, reason):
        super().__init__(f"{printable(path)}: {reason}")
        self.path, self.reason = Path(path), reason

    def __reduce__(self):  # comes back whole from a worker process
        return type(self), (self.path, self.reason)


def decode(path, min_seconds=0.0, silence_db=SILENCE_DB):
    """Read a whole audio file at its own rate, or say why it is of no use.

    A cut-off wav or flac is found out; a cut-off ogg or mp3 without a length in its header sounds as far as it goes,
    and only `min_seconds` can tell.

    Parameters
    ----------
    path : path-like
    min_seconds : float [s]
        Anything shorter is refused.
    silence_db : float [dB re full scale]
        A file whose peak lies below this is refused as silent; -inf accepts silence.

    Returns
    -------
    wave : np.ndarray, float32 (n_channels, n_samples)
    sample_rate : int [Hz]

    Raises
    ------
    AudioError
        If the file is missing, empty, not audio, corrupt or cut off, holds NaN, is silent or too short.

    Told in: notebooks/01_data.ipynb
    """
    path = Path(path)
    _check_file(path)
    wave, sample_rate = _read(path)
    peak = _peak(path, wave.T, sample_rate)
    if wave.shape[1] < min_seconds * sample_rate:
        raise AudioError(
            path,
            f"lasts {wave.shape[1] / sample_rate:.3f} s, shorter than the {min_seconds:g} s needed: was the download "
            "cut off? Get a longer file or ask for less",
        )
    _check_heard(path, peak, silence_db)
    return wave, sample_rate


def mono_blocks(path, sample_rate, n_block=None, silence_db=SILENCE_DB):
    """A file of any length at the wanted rate, the mean over its channels, in blocks: memory does not grow with it.

    The blocks, joined, are `resample` of the mean over channels of `decode`. What only the end of a file can show (cut
    off, silent) is raised after its last block: whoever keeps what was made of it must wait.

    Parameters
    ----------
    path : path-like
    sample_rate : int [Hz]
    n_block : int > 0, optional [samples at the wanted rate]
        About so many at a time; at most, and by default, BLOCK_FRAMES of the file's own.
    silence_db : float [dB re full scale]
        As in `decode`.

    Yields
    ------
    np.ndarray, float32 (n_samples,), of any length, 0 too

    Raises
    ------
    AudioError
        As `decode`; and for channels that cancel each other out.

    Told in: notebooks/81_your_music.ipynb
    """
    import soxr

    path = Path(path)
    info(path)  # tells apart what is missing, empty or no audio
    peak, mono_peak, n_read = 0.0, 0.0, 0
    with _straight(path) as file:
        native, promised, log = file.samplerate, file.frames, file.extra_info
        stream = None if native == sample_rate else soxr.ResampleStream(native, sample_rate, 1, "float32", "HQ")
        n_frames = BLOCK_FRAMES if n_block is None else max(1, min(BLOCK_FRAMES, n_block * native // sample_rate))
        while len(block := _next(file, path, n_frames, n_read)):
            mono = mixed_down(block)
            peak = max(peak, _peak(path, block, native, n_read))
            mono_peak = max(mono_peak, float(np.abs(mono).max()))
            n_read += len(block)
            yield mono if stream is None else stream.resample_chunk(mono)
        if stream is not None and n_read:
            yield stream.resample_chunk(np.zeros(0, np.float32), last=True)
    _check_end(path, n_read, promised, log)
    _check_heard(path, peak, silence_db)
    if mono_peak < 10 ** (silence_db / 20):
        raise AudioError(path, "is silent once mixed to mono: its channels cancel each other out, invert one")


def info(path):
    """Length and shape of an audio file from its header: (n_samples, n_channels, sample_rate), nothing decoded.

    Raises
    ------
    AudioError
        As `decode`, for what the header shows.
    """
    import soundfile

    path = Path(path)
    _check_file(path)
    try:
        found = soundfile.info(path)
    except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
        raise AudioError(path, _not_audio(path, error)) from error
    return found.frames, found.channels, found.samplerate


def is_finer_than_16_bits(path):
    """Whether a wav or flac holds more than 16 bits a sample: PCM of 24 or 32, or floating point.

    Raises
    ------
    AudioError
        As `info`.
    """
    import soundfile

    info(path)
    return soundfile.info(path).subtype in ("PCM_24", "PCM_32", "FLOAT", "DOUBLE")


def resample(wave, from_rate, to_rate):
    """Change the sample rate with soxr's high-quality band-limited resampler; untouched where the rates agree.

    30 s of stereo from 44.1 to 16 kHz take 8 ms here, 160 ms with torchaudio's resampler.

    Parameters
    ----------
    wave : np.ndarray, float32 (..., n_samples)
    from_rate, to_rate : int > 0 [Hz]

    Returns
    -------
    np.ndarray, float32 (..., round(n_samples * to_rate / from_rate))

    Raises
    ------
    ValueError
        If a rate is not positive.
    """
    if not (from_rate > 0 and to_rate > 0):
        raise ValueError(f"sample rates are {from_rate} and {to_rate} Hz, expected both above 0")
    wave = np.asarray(wave, dtype=np.float32)
    if from_rate == to_rate:
        return wave
    import soxr

    n_samples = round(wave.shape[-1] * to_rate / from_rate)
    rows = wave.reshape(-1, wave.shape[-1])  # (n_rows, n_samples)
    if rows.size == 0:
        return np.zeros((*wave.shape[:-1], n_samples), np.float32)
    # One row at a time: soxr allows at most 65,536 interleaved channels, and gains nothing from several.
    out = np.stack([_fit(soxr.resample(row, from_rate, to_rate, quality="HQ"), n_samples) for row in rows])
    return out.reshape(*wave.shape[:-1], n_samples)


def mixed_down(frames):
    """Mean over channels: the numbers of `mean(axis=1)`, for a few channels ten times as fast.

    Parameters
    ----------
    frames : np.ndarray, float32 (n_samples, n_channels)

    Returns
    -------
    np.ndarray, float32 (n_samples,)
        A copy.
    """
    mono = frames[:, 0].copy()
    for channel in frames.T[1:]:
        mono += channel
    return mono if frames.shape[1] == 1 else mono / frames.shape[1]


def printable(path):
    """A path as text that every terminal and JSON file can hold, whatever bytes are in the file name."""
    return str(path).encode("utf-8", "backslashreplace").decode("utf-8")


def _fit(row, n_samples):
    """Cut or zero-pad the odd sample, so that the length is the one promised."""
    return row[:n_samples] if len(row) >= n_samples else np.pad(row, (0, n_samples - len(row)))


def _check_file(path):
    if not path.exists():
        hint = "a broken link" if path.is_symlink() else "was it moved, or is the dataset half unpacked?"
        raise AudioError(path, f"file not found: {hint}")
    if path.is_dir():
        raise AudioError(path, "is a folder, expected an audio file")
    if not path.is_file():
        raise AudioError(path, "is no regular file but a pipe or a device: give audio files")
    if path.stat().st_size == 0:
        raise AudioError(path, "is empty (0 bytes): was the download or the copy stopped? Get it again")


def _read(path):
    """Decode with soundfile; (n_channels, n_samples) float32 and the rate."""
    import soundfile

    try:
        with soundfile.SoundFile(path) as file:
            promised, sample_rate, log = file.frames, file.samplerate, file.extra_info
            frames = file.read(dtype="float32", always_2d=True)  # (n_samples, n_channels)
    except PermissionError as error:
        raise AudioError(path, f"may not be read ({error.strerror}): change its rights") from error
    except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
        raise AudioError(path, _not_audio(path, error)) from error
    _check_end(path, len(frames), promised, log)
    return frames.T, sample_rate


def _straight(path):
    """A file that is read from beginning to end.

    soundfile seeks after every block of a file that can be sought; an mp3 decoder then drops what it needs from the
    frames before, and the block begins with noise (measured: errors up to 0.12). So: no seeking.
    """
    import soundfile

    class Straight(soundfile.SoundFile):
        def seekable(self):
            return False

    return Straight(path)


def _next(file, path, n_frames, n_read):
    """The next block, (n_samples, n_channels)."""
    import soundfile

    try:
        return file.read(n_frames, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
        raise AudioError(
            path, f"cannot be decoded beyond {n_read / file.samplerate:.1f} s ({error}): it is corrupt, get it again"
        ) from error


def _peak(path, frames, sample_rate, first=0):
    """Highest absolute value of frames (n_samples, n_channels), `first` of which came before; NaN is refused."""
    if frames.size == 0:
        return 0.0
    peak = max(float(frames.max()), -float(frames.min()))  # NaN or infinite where one sample is
    if not np.isfinite(peak):
        bad = first + int(np.flatnonzero(~np.isfinite(frames).all(axis=1))[0])
        raise AudioError(
            path,
            f"sample {bad} ({bad / sample_rate:.3f} s) is NaN or infinite: the program that wrote this float file "
            "divided by zero. Export it again",
        )
    return peak


def _check_end(path, n_read, promised, log):
    """Refuse a file that ended before its header said (an ogg's header does not say), or at once."""
    declared = re.search(r"^data\s*: (\d+) \(should be (\d+)\)", log, re.MULTILINE)
    if declared and int(declared[1]) > int(declared[2]) and int(declared[1]) not in _UNKNOWN_LENGTHS:
        raise AudioError(
            path, f"is cut off: its header promises {declared[1]} bytes of audio, {declared[2]} are there. Get it again"
        )
    # An mp3 that says its length may lose a decoder's delay of a frame or two, never more than 1 %.
    if path.suffix.lower() != ".ogg" and 0 < promised < 2**62 and n_read < 0.99 * promised:
        raise AudioError(
            path, f"is cut off or corrupt: {n_read} of {promised} samples could be decoded. Get the file again"
        )
    if n_read == 0:
        raise AudioError(path, "holds a header but no samples: was the recording or the copy stopped? Get it again")


def _check_heard(path, peak, silence_db):
    """Refuse silence."""
    if peak < 10 ** (silence_db / 20):
        level = f"{20 * np.log10(peak):.1f} dB" if peak > 0 else "digital silence"
        raise AudioError(path, f"is silent (peak {level}, below {silence_db:g} dB): a muted track or a failed export?")


def _not_audio(path, error):
    """Why libsndfile refused the file, by its first bytes and its extension."""
    with open(path, "rb") as file:
        head = file.read(64)
    for start, what, cure in _OTHER_CONTENT:
        if head.lstrip().startswith(start):
            return f"is {what}: {cure}"
    if head[4:8] == b"ftyp":
        return "is MPEG-4 (AAC or ALAC), which libsndfile cannot read: convert it, e.g. `ffmpeg -i FILE out.flac`"
    said = str(getattr(error, "error_string", error)).rstrip(".")
    if "does not exist" in said:  # libsndfile's words for an mp3 without a single frame
        said = "no audio frame found"
    if path.suffix.lower() not in EXTENSIONS:
        return (
            f"extension {path.suffix or '(none)'} is none of {', '.join(EXTENSIONS)} and the content is no audio known "
            f"here ({said}): convert it, e.g. `ffmpeg -i FILE out.flac`"
        )
    return f"is corrupt, cut off or not {path.suffix[1:]} audio ({said}): get the file again"
