"""Timed notes to mono audio: symusic with the sound font that the pretty_midi package carries, in tune.

Conventions
    A timed note is (program, start_s, end_s, pitch, velocity); program 0..127 is a General MIDI instrument, DRUMS
    the kit.
    Audio is float32 mono, at 16 kHz if nothing else is said. The same notes give the same samples, whatever was
    played before.

Told in: notebooks/01_data.ipynb
"""

from pathlib import Path

import numpy as np

from pawlib import paths
from pawlib.bench.twins import soundfont

SAMPLE_RATE = 16_000
PLAYED_HZ = 44_100  # at least; at 16 kHz itself filters of the sound font are unstable, and it may never end
DRUMS = -1
HIGHEST_PEAK = 64.0  # a note of a filter that has become unstable is far above, many loud voices are below


def sound_font():
    """Path of TimGM6mb.sf2.

    Raises
    ------
    FileNotFoundError
        If pretty_midi is installed without it.
    """
    import importlib.util

    found = importlib.util.find_spec("pretty_midi")
    path = Path(found.origin).with_name("TimGM6mb.sf2") if found else None
    if path is None or not path.is_file():
        raise FileNotFoundError("TimGM6mb.sf2 is not there: it comes with the package pretty_midi, is that installed?")
    return path


def render(notes, n_samples, sample_rate=SAMPLE_RATE):
    """Play timed notes.

    Parameters
    ----------
    notes : iterable of (program, start_s, end_s, pitch, velocity)
    n_samples : int > 0
        Length of the result; what would sound after it is not played.
    sample_rate : int [Hz]
        Of the result; it is played at the first multiple that is PLAYED_HZ or more.

    Returns
    -------
    np.ndarray, float32 [shape=(n_samples,)]

    Raises
    ------
    ValueError
        If no note starts inside the result, or the synthesiser returns something that is not audio.
    """
    import scipy.signal
    import symusic

    duration_s, oversampling = n_samples / sample_rate, -(-PLAYED_HZ // sample_rate)
    by_program = {}
    for program, start_s, end_s, pitch, velocity in notes:
        if start_s < duration_s and end_s > start_s:
            by_program.setdefault(program, []).append((start_s, min(end_s, duration_s) - start_s, pitch, velocity))
    if not by_program:
        raise ValueError(f"no note starts within {duration_s:.3f} s: is the excerpt behind the end of the score?")
    score = symusic.Score(ttype="second")
    for program, rows in sorted(by_program.items()):
        track = symusic.Track(program=max(program, 0), is_drum=program == DRUMS, ttype="second")
        for start_s, length_s, pitch, velocity in sorted(rows):
            track.notes.append(symusic.Note(start_s, length_s, int(pitch), int(velocity), ttype="second"))
        score.tracks.append(track)
    played = np.asarray(_synthesizer(sample_rate * oversampling).render(score, stereo=False), dtype=np.float32)
    audio = played[0, : n_samples * oversampling]
    audio = scipy.signal.resample_poly(audio, 1, oversampling).astype(np.float32)
    audio = np.pad(audio[:n_samples], (0, max(0, n_samples - len(audio))))
    peak = float(np.abs(audio).max())
    if not np.isfinite(peak) or not 0 < peak < HIGHEST_PEAK:
        raise ValueError(f"programs {sorted(by_program)} gave a peak of {peak:g}: one of them cannot be played")
    return audio


def _synthesizer(played_hz):
    """A new synthesiser for every clip: what one of them has played before changes how some instruments sound."""
    import symusic

    return symusic.Synthesizer(sf_path=str(_in_tune()), sample_rate=played_hz, quality=0)


def _in_tune():
    """The sound font with its samples' pitch where the synthesiser looks for it: written once, beside the twins."""
    made = paths.data() / "twins" / "TimGM6mb.in_tune.sf2"
    if not made.is_file():
        made.parent.mkdir(parents=True, exist_ok=True)
        soundfont.in_tune(sound_font(), made)
    return made
