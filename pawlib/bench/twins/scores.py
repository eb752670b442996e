"""A work of music21's corpus as a table of notes.

Conventions
    A table of notes is a float64 array [shape=(n_notes, 4)]: voice (0 is the highest), onset, duration, pitch.
    Onset and duration are in quarter notes from the start of the score, pitch is a MIDI number.
    Each bar is read once, repeat marks are not followed (a tune played twice would already be an AAB form), grace notes
    are left out, tied notes are one note.

The corpus is a part of the music21 package: nothing is downloaded, and no score is copied into this repository.

Told in: notebooks/01_data.ipynb
"""

import functools
import re
import warnings
from pathlib import Path
from unittest import mock

import numpy as np

VOICE, ONSET, DURATION, PITCH = range(4)


def corpus_folder():
    """Folder of the scores that come with music21.

    Raises
    ------
    FileNotFoundError
        If this music21 was installed without its corpus.
    """
    import music21

    folder = Path(music21.__file__).parent / "corpus"
    if not (folder / "bach").is_dir():
        raise FileNotFoundError(
            f"{folder} holds no scores: was music21 installed as its small build without the corpus?"
        )
    return folder


@functools.lru_cache(maxsize=4)
def tunes_of(path):
    """The tunes of an ABC file, as text by tune number (the X: field).

    Parameters
    ----------
    path : pathlib.Path

    Returns
    -------
    dict int -> str
        In the order of the file; of two tunes with one number the first stays.
    """
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    tunes = {}
    for block in re.split(r"(?m)^(?=X:)", text.replace("\r\n", "\n")):
        head = re.match(r"X:\s*(\d+)", block)
        if head:
            tunes.setdefault(int(head.group(1)), block)
    return tunes


def parse(path, number=None):
    """Parse one score of the corpus with music21.

    Parameters
    ----------
    path : str
        Path inside the corpus, e.g. "bach/bwv269.mxl".
    number : int, optional
        The tune's number inside an ABC book.

    Returns
    -------
    music21.stream.Score

    Raises
    ------
    FileNotFoundError
        If the corpus has no such file or the book no such tune.
    """
    from music21 import converter, stream

    file = corpus_folder() / path
    if not file.is_file():
        raise FileNotFoundError(
            f"music21's corpus has no {path}: is this another version than the registry was made with?"
        )
    no_beams = mock.patch.object(
        stream.Stream, "makeBeams", lambda self, **_: None
    )  # three quarters of ABC's parse time
    with warnings.catch_warnings(), no_beams:
        warnings.simplefilter("ignore")
        if file.suffix != ".abc":
            return converter.parse(file, forceSource=True, storePickle=False)
        tunes = tunes_of(file)
        if number is not None and number not in tunes:
            raise FileNotFoundError(f"{path} has no tune number {number}: is this another version of music21's corpus?")
        return converter.parseData(tunes[number] if number is not None else "\n".join(tunes.values()), format="abc")


def notes_of(score):
    """The notes of a parsed score, each bar once.

    Parameters
    ----------
    score : music21.stream.Score

    Returns
    -------
    np.ndarray, float64 [shape=(n_notes, 4)]
        Voice, onset, duration, pitch, sorted by voice and onset. Of a chord in one voice the highest note stays; a part
        without a note is no voice.
    """
    parts = [part for part in list(score.parts) or [score] if next(_sounding(part), None)]
    rows = [row for voice, part in enumerate(parts) for row in _voice(part, voice)]
    return np.array(rows, dtype=np.float64).reshape(-1, 4)


def load(path, number=None):
    """Parse a score and return its notes: `notes_of(parse(path, number))`."""
    return notes_of(parse(path, number))


def bars_of(score):
    """Where the bars of a parsed score begin.

    Parameters
    ----------
    score : music21.stream.Score

    Returns
    -------
    np.ndarray, float64 [shape=(n_bars,)], quarter notes
        Of the first part, in order. A bar shorter than half the longest is an upbeat or the end before a repeat sign,
        and begins nothing; a score without bars has none.
    """
    part = next(iter(score.parts), score)
    bars = [(float(bar.offset), float(bar.duration.quarterLength)) for bar in part.getElementsByClass("Measure")]
    longest = max((length_q for _, length_q in bars), default=0.0)
    return np.array([start_q for start_q, length_q in bars if length_q >= longest / 2], dtype=np.float64)


def melody(notes):
    """Rows of the top voice."""
    return notes[notes[:, VOICE] == 0]


def n_onsets(notes):
    """How many different onset times a table of notes has, all voices together."""
    return len(np.unique(np.round(notes[:, ONSET], 4)))


def _voice(part, voice):
    """Rows of one part: ties joined, one note at a time."""
    rows = []
    for onset, duration, pitch, tied in sorted(_sounding(part), key=lambda note: (note[0], -note[2])):
        last = rows[-1] if rows else None
        if last and tied and last[PITCH] == pitch and abs(last[ONSET] + last[DURATION] - onset) < 1e-3:
            last[DURATION] += duration
        elif not last or onset > last[ONSET] + 1e-6:
            rows.append([voice, onset, duration, pitch])
    return rows


def _sounding(part):
    """Onset, duration, pitch and whether it is tied to the note before, of all notes of a part."""
    for element in part.flatten().notes:
        duration = float(element.duration.quarterLength)
        if duration > 0 and element.pitches:  # a grace note has no duration, a chord symbol may have no pitch
            tied = element.tie is not None and element.tie.type in ("stop", "continue")
            yield float(element.offset), duration, max(pitch.midi for pitch in element.pitches), tied
