"""From the notes of a score to a clip of which we know what happens when.

A *recipe* (a dict, made by mtat.plan) says which scheme each layer of the clip has; `arrange` carries it out on the
notes of the work, layer by layer:

    voices        what sounds together: voices of the score, or a tune in parallel thirds, or in canon
    form          which excerpt sounds when: straight on, ABA, AAB, ABAB, AABB
    pace          one tempo, accelerando, ritardando                    (note rate of the whole clip stays the same)
    pitch         one key, register rising or falling in octaves, modulation up or down
    instruments   one family, one after the other, or the two in turn
    entries       all voices, voices entering one by one, voices leaving
    loudness      level, crescendo, diminuendo
    parts         events at known times: drums, choir pad, pizzicato, tremolo, trill, pedal note, octave doubling, solo,
                  silence

The two schemes of a pair (ABA and AAB, rising and falling ...) hold the same things in another order.

Conventions
    `lines` is a list of voices, each a float64 array [shape=(n, 3)]: onset, duration, pitch; the first is the melody.
    Score time is in quarter notes (`_q`), clip time in seconds (`_s`).

Told in: notebooks/01_data.ipynb
"""

import numpy as np

from pawlib.bench.twins import render, scores

DURATION_S = 29.124
N_SAMPLES = 465_984
FORMS = {"straight": "A", "aba": "ABA", "aab": "AAB", "abab": "ABAB", "aabb": "AABB"}
SCALES = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
}
MELODY_CENTRE = 69.0
PITCHES = (36, 97)  # outside, some instruments of the sound font have unstable filters
TEMPO_RATIO = 2.0
LOUDNESS_RANGE_DB = 14.0
FADE_S = 0.03
PIZZICATO, CHOIR = 45, 52
TREMOLO_S, TRILL_S = 0.09, 0.075
KICK, SNARE, HAT = 36, 38, 42
VELOCITY = {"melody": 84, "other": 72, "drums": 42, "choir": 46, "pedal": 70, "octave": 66}


def arrange(notes, recipe):
    """Timed notes and level curve of one clip.

    Parameters
    ----------
    notes : np.ndarray [shape=(n_notes, 4)]
        A work as `scores.load` gives it.
    recipe : dict
        One entry of `mtat.plan`.

    Returns
    -------
    list of (program, start_s, end_s, pitch, velocity)
    np.ndarray, float64 [shape=(N_SAMPLES,)]
        Factor for the samples, 0 in a silence.

    Raises
    ------
    ValueError
        If the work is too short to fill the clip even at the lowest note rate.
    """
    rng = np.random.default_rng(recipe["seed"])
    lines = transposed(voices(notes, recipe), recipe)
    lines, length_q = excerpt(lines, recipe, rng)
    timed = timing(lines, length_q, recipe)
    parts = {event["tag"]: event for event in recipe["events"] if event["group"] == "part"}
    played = perform(timed, recipe, parts) + additions(timed, recipe, parts, length_q / DURATION_S)
    return played, level(recipe, parts)


def to_audio(notes, recipe):
    """`arrange`, rendered: float32 [shape=(N_SAMPLES,)], its sounding part at the recipe's `level_db`."""
    played, factor = arrange(notes, recipe)
    audio = render.render(played, N_SAMPLES) * factor
    sounding = audio[factor > 0]
    audio *= 10 ** (recipe["level_db"] / 20) / np.sqrt(np.mean(sounding**2))
    peak = np.abs(audio).max()
    return (audio * min(1.0, 0.98 / peak)).astype(np.float32)


def voices(notes, recipe):
    """The lines that sound together.

    With `texture` "score" they are voices of the score, the outer ones first; "parallel" sets the melody in diatonic
    thirds and octaves below; "canon" lets the other voices play the melody `canon_q` quarter notes behind each other,
    every second one an octave lower.
    """
    n = recipe["n_voices"]
    if recipe["texture"] == "score":
        of_score = [notes[notes[:, scores.VOICE] == voice][:, 1:] for voice in np.unique(notes[:, scores.VOICE])]
        inner = of_score[1:-1] if len(of_score) > 1 else []
        return ([of_score[0]] + of_score[-1:] * (len(of_score) > 1) + inner)[:n]
    tune = scores.melody(notes)[:, 1:]
    if recipe["texture"] == "canon":
        lag = recipe["canon_q"] * np.arange(n)
        return [tune + [lag[voice], 0, -12 * (voice % 2)] for voice in range(n)]
    scale = _scale(tune, recipe)
    third = np.column_stack([tune[:, :2], _steps_below(tune[:, 2], scale, 2)])
    return [tune, third, tune - [0, 0, 12], third - [0, 0, 12]][:n]


def transposed(lines, recipe):
    """The lines moved to the recipe's key, in the octave that puts the melody nearest to MELODY_CENTRE."""
    shift = recipe["key_shift"] + 12 * np.round((MELODY_CENTRE - lines[0][:, 2].mean() - recipe["key_shift"]) / 12)
    return [line + [0, 0, shift] for line in lines]


def excerpt(lines, recipe, rng):
    """The sections of the recipe's form, one after the other.

    Returns
    -------
    list of np.ndarray [shape=(n, 3)]
        Onsets from 0.
    float [quarter notes]
        Length of the clip in score time: as many quarter notes as give the recipe's note rate.
    """
    form = FORMS[recipe["form"]]
    start_q = max(line[0, 0] for line in lines)
    end_q = min((line[:, 0] + line[:, 1]).max() for line in lines)
    onsets = np.unique(np.concatenate([np.round(line[:, 0], 4) for line in lines]))
    onsets = onsets[(onsets >= start_q) & (onsets < end_q)]
    if end_q - start_q < 1 or not len(onsets):
        raise ValueError(f"{recipe['work']}: its voices never sound together, so no excerpt can be taken")
    density = len(onsets) / (end_q - start_q)
    share = len(set(form)) / len(form)
    length_q = min(recipe["rate_hz"] * DURATION_S / density, (end_q - start_q) / share)
    section_q = length_q / len(form)
    slack_q = end_q - start_q - section_q * len(set(form))
    first_q = start_q + np.floor(rng.uniform(0, 1) * slack_q)
    begins = {"A": first_q, "B": end_q - section_q if slack_q < section_q else first_q + section_q}
    cut = [
        np.concatenate([_cut(line, begins[name], section_q, k * section_q) for k, name in enumerate(form)])
        for line in lines
    ]
    return [line for line in cut if len(line)], length_q


def timing(lines, length_q, recipe):
    """Score time to seconds, with the recipe's pace: arrays of start, end, pitch [shape=(n, 3)]."""
    bend = {"steady": 0.0, "accelerando": np.log(TEMPO_RATIO), "ritardando": -np.log(TEMPO_RATIO)}[recipe["pace"]]

    def seconds(q):
        u = np.clip(q / length_q, 0, 1)
        return DURATION_S * (u if bend == 0 else -np.expm1(-bend * u) / -np.expm1(-bend))

    return [np.column_stack([seconds(line[:, 0]), seconds(line[:, 0] + line[:, 1]), line[:, 2]]) for line in lines]


def perform(timed, recipe, parts):
    """The notes of the voices, with instruments, entries, register and the part events that change them."""
    played = []
    for voice, line in enumerate(timed):
        for start_s, end_s, pitch in line:
            if not _sounds(start_s, voice, len(timed), recipe, parts):
                continue
            pitch = in_range(pitch + _shift(start_s, recipe))
            program = _program(start_s, recipe)
            velocity = VELOCITY["melody" if voice == 0 else "other"]
            if voice > 0 and "solo" in parts and start_s < parts["solo"]["start_s"]:
                end_s = min(end_s, parts["solo"]["start_s"])
            if voice == 0 and _in(parts, "pizzicato", start_s):
                program = PIZZICATO
            if _in(parts, "tremolo", start_s):
                played += _repeated(program, start_s, end_s, [pitch], TREMOLO_S, velocity)
            elif voice == 0 and _in(parts, "trill", start_s):
                played += _repeated(program, start_s, end_s, [pitch, pitch + 2], TRILL_S, velocity)
            else:
                played.append((program, start_s, end_s, pitch, velocity))
            if voice == 0 and _in(parts, "octave doubling", start_s):
                played.append((program, start_s, end_s, in_range(pitch + 12), VELOCITY["octave"]))
    return played


def additions(timed, recipe, parts, beat_hz):
    """The part events that add notes: drums on beats of `beat_hz` (halved if fast), choir pad, pedal note."""
    played = []
    tonic = recipe["tonic"] if recipe["tonic"] is not None else int(timed[-1][0, 2]) % 12
    if "drums" in parts:
        while beat_hz > 2.5:
            beat_hz /= 2
        beat_s = 1.0 / beat_hz
        begin_s, end_s = parts["drums"]["start_s"], parts["drums"]["end_s"]
        for k, at_s in enumerate(np.arange(begin_s, end_s - 0.1, beat_s / 2)):
            drum = HAT if k % 2 else (KICK if k % 4 == 0 else SNARE)
            played.append((render.DRUMS, at_s, min(at_s + 0.1, end_s), drum, VELOCITY["drums"]))
    for tag, program, pitches, velocity, step_s in (
        ("choir pad", CHOIR, (48, 55, 60), VELOCITY["choir"], 4.0),
        ("pedal note", None, (36,), VELOCITY["pedal"], 1.2),
    ):
        if tag not in parts:
            continue
        for at_s in np.arange(parts[tag]["start_s"], parts[tag]["end_s"] - 0.05, step_s):
            end_s = min(at_s + step_s, parts[tag]["end_s"])
            chosen = _program(at_s, recipe) if program is None else program
            played += [(chosen, at_s, end_s, p + (tonic + _shift(at_s, recipe)) % 12, velocity) for p in pitches]
    return played


def level(recipe, parts):
    """Level of each sample as a factor [shape=(N_SAMPLES,)]: the loudness scheme, and 0 in a silence."""
    at_s = np.arange(N_SAMPLES) / render.SAMPLE_RATE
    direction = {"level": 0.0, "crescendo": 1.0, "diminuendo": -1.0}[recipe["loudness"]]
    factor = 10 ** (direction * LOUDNESS_RANGE_DB * (at_s / DURATION_S - 0.5) / 20)
    if "silence" in parts:
        away_s = np.maximum(parts["silence"]["start_s"] - at_s, at_s - parts["silence"]["end_s"])
        factor *= np.clip(away_s / FADE_S, 0.0, 1.0)
    return factor


def in_range(pitch):
    """The pitch, moved by octaves into PITCHES."""
    pitch = int(pitch)
    while pitch < PITCHES[0]:
        pitch += 12
    while pitch > PITCHES[1]:
        pitch -= 12
    return pitch


def _cut(line, begin_q, length_q, to_q):
    """Notes that start in [begin_q, begin_q + length_q), cut at its end and moved to to_q."""
    inside = line[(line[:, 0] >= begin_q - 1e-9) & (line[:, 0] < begin_q + length_q - 1e-9)]
    moved = inside + [to_q - begin_q, 0, 0]
    moved[:, 1] = np.minimum(moved[:, 1], to_q + length_q - moved[:, 0])
    return moved


def _scale(tune, recipe):
    """Pitch classes of the scale the tune is in; the seven most frequent where the mode is not known."""
    if recipe["mode"]:
        return {(recipe["tonic_written"] + step) % 12 for step in SCALES[recipe["mode"]]}
    counts = np.bincount(tune[:, 2].astype(int) % 12, minlength=12)
    return set(np.argsort(-counts, kind="stable")[:7].tolist())


def _steps_below(pitches, scale, n_steps):
    """Each pitch moved down by scale steps."""
    below = []
    for pitch in pitches.astype(int):
        left = n_steps
        while left:
            pitch -= 1
            left -= pitch % 12 in scale
        below.append(pitch)
    return np.array(below, dtype=np.float64)


def _sounds(start_s, voice, n_voices, recipe, parts):
    """Whether a voice plays at this time, by the entries scheme and solos."""
    if _in(parts, "solo", start_s) and voice > 0:
        return False
    step_s = DURATION_S / n_voices
    if recipe["entries"] == "entering":
        return start_s >= voice * step_s
    if recipe["entries"] == "leaving":
        return start_s < DURATION_S - voice * step_s
    return True


def _shift(start_s, recipe):
    """Semitones added at this time by the pitch scheme."""
    scheme, k = recipe["pitch"], recipe["modulation"]
    third = min(int(3 * start_s / DURATION_S), 2)
    later = start_s >= DURATION_S / 2
    return {
        "steady": 0,
        "rising": (-12, 0, 12)[third],
        "falling": (12, 0, -12)[third],
        "up": k if later else 0,
        "down": 0 if later else k,
    }[scheme]


def _program(start_s, recipe):
    """The General MIDI program that plays at this time."""
    first, second = recipe["programs"][0], recipe["programs"][-1]
    if recipe["instruments"] == "in turn":
        return (first, second)[int(8 * start_s / DURATION_S) % 2]
    return first if start_s < DURATION_S / 2 else second


def _in(parts, tag, at_s):
    """Whether a part event holds at this time."""
    return tag in parts and parts[tag]["start_s"] <= at_s < parts[tag]["end_s"]


def _repeated(program, start_s, end_s, pitches, step_s, velocity):
    """A note broken up into fast strokes, on the pitches in turn."""
    times = np.arange(start_s, end_s - step_s / 2, step_s)
    if not len(times):
        return [(program, start_s, end_s, pitches[0], velocity)]
    return [(program, t, min(t + step_s, end_s), pitches[k % len(pitches)], velocity) for k, t in enumerate(times)]
