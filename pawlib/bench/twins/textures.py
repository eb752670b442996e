"""Sounds of the synthetic scenes: noise textures, resonances and timed events, made of numbers alone.

Conventions
    A canvas is a stretch of audio to be painted: n_samples at `rate`, a random generator, and what was put where.
    bed     : float32 array (n_samples,), the texture that is always there, of unit power when it is mixed
    front   : float32 array (2, n_samples), the scene's events, left and right
    passing : float32 array (2, n_samples), what passes by in any scene
    Every scene is a function of a canvas that paints the first two; its parameters are drawn anew for each recording.
    Nothing is recorded, nothing downloaded; the names say which place a recipe was thought of for, and no more than
    that.

Every scene has one clue that fills the whole recording (how its bed swells, what hums in it) and one or two kinds of
events with a timing of their own. Passers-by (`passers_by`) are painted into every scene alike, and every recording
drifts in level (`drift`): how often and how far levels change, which plain statistics hear, then says little of a
scene; what comes when says it still.

Told in: notebooks/50_scene_systems.ipynb
"""

import numpy as np
import scipy.fft

CONTROL_HZ = 50  # of slow curves
FLOOR_DB = -14.0  # broadband noise under every bed, so that no band is empty
SCALE_OCTAVES = 0.6  # a recording's events are transposed by up to this
ALIKE_DB = (-1.0, 5.0)  # power of what lies under every scene alike, against the scene's own bed


class Canvas:
    """A stretch of audio to be painted.

    Parameters
    ----------
    seconds : float [s]
    rate : int [Hz]
    rng : np.random.Generator

    Attributes
    ----------
    bed, front, passing : np.ndarray, float32
        As in the module's map.
    events : list of (what, onset [s])
        Of `front` and `passing`, in the order they were painted.
    scale : float
        What the frequencies of all events, and of hums, are multiplied with in this recording.
    """

    def __init__(self, seconds, rate, rng):
        self.seconds, self.rate, self.rng = seconds, rate, rng
        self.n_samples = round(seconds * rate)
        self.bed = np.zeros(self.n_samples, np.float32)
        self.front = np.zeros((2, self.n_samples), np.float32)
        self.passing = np.zeros((2, self.n_samples), np.float32)
        self.events = []
        self.scale = 2 ** rng.uniform(-SCALE_OCTAVES, SCALE_OCTAVES)

    def put(self, what, onset_s, sound, gain=1.0, pan=None, passing=False):
        """Add a sound (n,) to the front at a time; what reaches over the end is cut off.

        Parameters
        ----------
        what : str or None
            For the list of events; None where the sound belongs to the event before.
        onset_s : float [s]
        sound : np.ndarray [shape=(n,)]
        gain : float
        pan : float in 0..1, optional
            0 left, 1 right; drawn where not given.
        passing : bool
            Whether it belongs to what passes by, and not to the scene.
        """
        first = round(onset_s * self.rate)
        if not 0 <= first < self.n_samples:
            return
        sound = sound[: self.n_samples - first] * np.float32(gain)
        pan = self.rng.uniform(0.15, 0.85) if pan is None else pan
        layer = self.passing if passing else self.front
        for channel, weight in enumerate((np.cos(pan * np.pi / 2), np.sin(pan * np.pi / 2))):
            layer[channel, first : first + len(sound)] += np.float32(weight) * sound
        if what:
            self.events.append((what, round(float(onset_s), 3)))

    def between(self, low, high):
        """A number drawn evenly."""
        return float(self.rng.uniform(low, high))

    # --- when ---

    def now_and_then(self, every_s):
        """Onsets without memory, one every so often on average: array [s]."""
        gaps = self.rng.exponential(every_s, max(8, int(3 * self.seconds / every_s) + 8))
        at = np.cumsum(gaps)
        at = at[at < self.seconds]
        return at if len(at) else np.array([self.between(0, 0.8 * self.seconds)])  # no scene without its events

    def in_step(self, period_s, jitter=0.05):
        """Onsets in step, each off by a share of the period: array [s]."""
        at = np.arange(self.between(0, period_s), self.seconds, period_s)
        return np.clip(at + period_s * jitter * self.rng.standard_normal(len(at)), 0, None)

    def in_groups(self, every_s, n, gap_s, jitter=0.15):
        """Groups of n onsets (n a pair: drawn between) a gap apart; groups come now and then: array [s]."""
        found = []
        for start in self.now_and_then(every_s):
            some = n if isinstance(n, int) else int(self.rng.integers(n[0], n[1] + 1))
            gaps = gap_s * (1 + jitter * self.rng.standard_normal(some))
            found.append(start + np.cumsum(np.abs(gaps)) - gap_s)
        return np.concatenate(found)

    # --- what ---

    def noise(self, low_hz=30.0, high_hz=20_000.0, tilt_db=-3.0, seconds=None):
        """Noise between two frequencies, falling by `tilt_db` an octave, of unit power: float32 (n,)."""
        n = self.n_samples if seconds is None else max(64, round(seconds * self.rate))
        size = scipy.fft.next_fast_len(n, real=True)
        f = np.fft.rfftfreq(size, 1 / self.rate).astype(np.float32)
        high_hz = min(high_hz, 0.49 * self.rate)
        gain = np.zeros_like(f)
        inside = (f > low_hz / 2) & (f < high_hz * 1.5)
        x = f[inside]
        gain[inside] = (np.maximum(x, 20) / 1000) ** (tilt_db / 6.02)
        gain[inside] /= np.sqrt((1 + (low_hz / x) ** 8) * (1 + (x / high_hz) ** 8))
        spectrum = self.rng.standard_normal((len(f), 2), dtype=np.float32).view(np.complex64)[:, 0] * gain
        wave = scipy.fft.irfft(spectrum, size)[:n]
        return wave / np.sqrt(np.mean(wave**2) + 1e-20)

    def curve(self, points, every_s):
        """A slow curve through points `every_s` apart, as samples: float32 (n_samples,)."""
        t = np.arange(0, self.seconds + 1 / CONTROL_HZ, 1 / CONTROL_HZ)
        slow = np.interp(t, np.arange(len(points)) * every_s, points)
        return np.interp(np.arange(self.n_samples) / self.rate, t, slow).astype(np.float32)

    def wander(self, low, high, every_s):
        """A curve between points drawn evenly: float32 (n_samples,)."""
        return self.curve(self.rng.uniform(low, high, int(self.seconds / every_s) + 3), every_s)

    def swells(self, onsets_s, rise_s, fall_s, floor=0.15):
        """A curve that rises to 1 after each onset and falls again: float32 (n_samples,)."""
        t = np.arange(0, self.seconds + 1 / CONTROL_HZ, 1 / CONTROL_HZ)
        level = np.full(len(t), floor)
        for onset in onsets_s:
            since = t - onset
            rising = np.clip(since / rise_s, 0, 1) ** 2
            level = np.maximum(level, np.where(since < rise_s, rising, np.exp(-(since - rise_s) / fall_s)))
        return np.interp(np.arange(self.n_samples) / self.rate, t, level).astype(np.float32)

    def hum(self, f0, n_harmonics, fall=1.0):
        """A continuous tone of harmonics; f0 a number or a curve [Hz]: float32 (n_samples,), unit power."""
        f0 = np.broadcast_to(np.asarray(f0, np.float64) * self.scale, (self.n_samples,))
        phase = np.cumsum(f0) * (2 * np.pi / self.rate)
        phase = (phase % (2 * np.pi)).astype(np.float32)
        wave = np.zeros(self.n_samples, np.float32)
        for k in range(1, n_harmonics + 1):
            wave += np.sin(k * phase + np.float32(self.between(0, 6.28))) * np.float32(k**-fall)
        return wave / np.sqrt(np.mean(wave**2))

    def burst(self, seconds, low_hz, high_hz, attack_s=0.002):
        """Noise that begins at once and dies away, 60 dB in `seconds`: float32 (n,), unit peak."""
        wave = self.noise(low_hz * self.scale, high_hz * self.scale, 0.0, seconds)
        t = np.arange(len(wave), dtype=np.float32) / self.rate
        wave *= np.minimum(t / attack_s, 1) * 10 ** (-3 * t / seconds)
        return wave / np.abs(wave).max()

    def struck(self, seconds, frequencies_hz, attack_s=0.001):
        """Something struck: damped partials, the higher the shorter: float32 (n,), unit peak."""
        t = np.arange(round(seconds * self.rate), dtype=np.float32) / self.rate
        wave = np.zeros(len(t), np.float32)
        for i, f in enumerate(np.asarray(frequencies_hz) * self.scale):
            if f < 0.47 * self.rate:
                decay = 6.9 / seconds * (1 + 0.6 * i)
                wave += np.sin(2 * np.pi * f * t + self.between(0, 6)) * np.exp(-decay * t) / (1 + 0.5 * i)
        wave *= np.minimum(t / attack_s, 1)
        return wave / (np.abs(wave).max() + 1e-9)

    def call(self, seconds, from_hz, to_hz, n_harmonics=1, bend=1.0, tremble_hz=0.0):
        """A tone that glides, with a soft beginning and end: float32 (n,), unit peak.

        Parameters
        ----------
        seconds : float
        from_hz, to_hz : float
        n_harmonics : int
        bend : float
            Above 1 it glides late, below 1 early.
        tremble_hz : float
            Of a deep tremolo; 0 for none.
        """
        t = np.linspace(0, 1, max(16, round(seconds * self.rate)), dtype=np.float32)
        from_hz, to_hz = from_hz * self.scale, to_hz * self.scale
        f = from_hz * (to_hz / from_hz) ** (t**bend)
        phase = np.cumsum(f.astype(np.float64)) * (2 * np.pi / self.rate)
        wave = np.zeros(len(t), np.float32)
        for k in range(1, n_harmonics + 1):
            if k * max(from_hz, to_hz) < 0.47 * self.rate:
                wave += (np.sin(k * phase) / k).astype(np.float32)
        wave *= _arch(t) ** 0.5
        if tremble_hz:
            wave *= 0.5 + 0.5 * np.sin(2 * np.pi * tremble_hz * seconds * t)
        return wave / np.abs(wave).max()

    def voice(self, seconds, pitch_hz):
        """A syllable without words: a pulse train through two formants that move: float32 (n,), unit peak."""
        n = max(64, round(seconds * self.rate))
        t = np.linspace(0, 1, n, dtype=np.float32)
        pitch = pitch_hz * (1 + 0.15 * np.sin(2 * np.pi * t * self.between(0.3, 1)))
        phase = np.cumsum(pitch.astype(np.float64)) * (2 * np.pi / self.rate)
        one, two = self.between(300, 800), self.between(900, 2300)
        wave = np.zeros(n, np.float32)
        for k in range(1, int(3500 / pitch_hz)):
            f = k * pitch_hz
            gain = 1 / (1 + ((f - one) / 120) ** 2) + 0.6 / (1 + ((f - two) / 180) ** 2)
            wave += np.float32(gain) * np.sin(k * phase).astype(np.float32)
        wave *= _arch(t) ** 0.7
        return wave / np.abs(wave).max()


def _arch(t):
    """From 0 to 1 and back over t in 0..1, never below 0 where rounding would have it so."""
    return np.clip(np.sin(np.pi * t), 0, None)


# --- what passes by everywhere ---


def passers_by(canvas, every_s=6.0):
    """Steps, knocks, a few syllables, something dropped, a car far away: alike in every scene, so no clue to any."""
    kinds = ("steps", "knock", "syllables", "dropped", "far car")
    for at in canvas.now_and_then(every_s):
        kind = kinds[int(canvas.rng.integers(len(kinds)))]
        gain, pan = 10 ** canvas.between(-1.0, 0.0), canvas.between(0.1, 0.9)
        if kind == "steps":
            sounds = [(k * canvas.between(0.45, 0.6), canvas.burst(0.09, 80, 1500)) for k in range(5)]
        elif kind == "knock":
            sounds = [(0.18 * k, canvas.struck(0.12, (180, 410, 760))) for k in range(int(canvas.rng.integers(1, 4)))]
        elif kind == "syllables":
            pitch = canvas.between(90, 240)
            sounds = [(0.22 * k, canvas.voice(0.18, pitch)) for k in range(int(canvas.rng.integers(2, 7)))]
        elif kind == "dropped":
            sounds = [(0.0, canvas.struck(0.5, canvas.rng.uniform(500, 5000, 5)))]
        else:
            sounds = [(0.0, canvas.burst(4.0, 60, 1200, attack_s=1.5) * 0.6)]
        for later, sound in sounds:
            canvas.put(kind if later == sounds[0][0] else None, at + later, sound, gain, pan, passing=True)


def drift(canvas, depth_db):
    """How the level of a whole recording comes and goes, at a pace drawn anew: gains, float32 (n_samples,).

    Parameters
    ----------
    canvas : Canvas
    depth_db : float >= 0 [dB]
        Deviation of the points between which it moves.
    """
    every_s = 10 ** canvas.between(-0.7, 0.8)
    points = canvas.rng.normal(0, depth_db, int(canvas.seconds / every_s) + 3)
    return 10 ** (canvas.curve(points, every_s) / 20)


def under(canvas):
    """What lies under every scene alike: noise that wanders at some pace, and a hum of some pitch, drawn anew.

    Returns
    -------
    np.ndarray, float32 [shape=(n_samples,)], unit power
    """
    pace, depth = 10 ** canvas.between(-0.7, 0.8), canvas.between(0.1, 0.9)
    wave = canvas.noise(50, 8000, canvas.between(-5, 0)) * canvas.wander(1 - depth, 1, pace)
    hum = canvas.hum(
        canvas.wander(1, 1 + canvas.between(0, 0.6), 4) * canvas.between(40, 200), 8, canvas.between(0.4, 1)
    )
    wave = wave / np.sqrt(np.mean(wave**2)) + np.float32(canvas.between(0.1, 1.0)) * hum
    return wave / np.sqrt(np.mean(wave**2))


# --- the scenes ---


def beach(c):
    """Waves: a bed that swells every six to nine seconds, its hiss later than its rumble; now and then a gull."""
    period = c.between(5.5, 8.5)
    waves = c.in_step(period, 0.12)
    c.bed = c.noise(60, 700) * c.swells(waves, 0.3 * period, 0.35 * period)
    c.bed += 0.9 * c.noise(1200, 12_000, 0) * c.swells(waves + 0.25 * period, 0.1 * period, 0.2 * period, 0.1)
    for at in c.in_groups(9, (2, 4), 0.45):
        c.put("gull", at, c.call(0.35, c.between(2600, 3200), c.between(1300, 1700), 3, 1.4))


def bus(c):
    """An engine that revs up and changes gear; loose parts rattle, brakes hiss."""
    revs = np.interp(np.arange(0, c.seconds + 8, 0.5) % c.between(5, 8), [0, 6.5, 8], [24, 46, 26])
    c.bed = c.noise(50, 4000, -4) + 1.4 * c.hum(c.curve(revs + c.rng.normal(0, 0.5, len(revs)), 0.5), 14, 0.6)
    for at in c.in_groups(4, (6, 14), 0.035):
        c.put("rattle", at, c.burst(0.03, 1500, 7000), 0.5)
    for at in c.now_and_then(11):
        c.put("hiss", at, c.burst(1.1, 2500, 14_000, 0.06))


def cafe(c):
    """Many talk at once; cups and spoons ring."""
    c.bed = c.noise(100, 5000, -4) * c.wander(0.6, 1, 0.35)
    pitches = c.rng.uniform(90, 260, 6)
    for at in c.now_and_then(0.16):
        c.put("talk", at, c.voice(c.between(0.1, 0.25), float(c.rng.choice(pitches))), c.between(0.15, 0.5))
    for at in c.now_and_then(1.6):
        c.put("cup", at, c.struck(c.between(0.15, 0.4), c.rng.uniform(2200, 7000, 4)), c.between(0.4, 1))


def car(c):
    """Tyres on a road whose surface changes, a steady engine; the indicator ticks for a while."""
    c.bed = c.noise(40, 2500, -5) * c.curve(np.repeat(c.rng.uniform(0.5, 1, 40), 2), c.between(1.2, 2.2))
    c.bed += 0.8 * c.hum(c.wander(48, 60, 4), 6, 0.8)
    for start in c.now_and_then(9):
        for k in range(int(c.rng.integers(6, 12))):
            sound = c.struck(0.03, (1900, 3300) if k % 2 else (1500, 2800))
            c.put(None if k else "indicator", start + 0.36 * k, sound, 0.8, 0.4)


def city_center(c):
    """Cars pass one after the other, horns of two tones, somebody's heels in step."""
    cars = c.now_and_then(3.2)
    c.bed = 0.4 * c.noise(60, 6000) + c.noise(80, 3500, -3) * c.swells(cars, 1.2, 0.8, 0.1)
    for at in c.now_and_then(8):
        f, seconds = c.between(330, 460), c.between(0.3, 0.9)
        c.put("horn", at, c.call(seconds, f, f, 8) + c.call(seconds, 1.26 * f, 1.26 * f, 8))
    for start in c.now_and_then(10):
        for k in range(8):
            c.put(None if k else "heels", start + 0.52 * k, c.struck(0.05, (900, 2100, 3900)), 0.6, 0.1 + 0.1 * k)


def forest_path(c):
    """Quick upward chirps of birds in rows, steps that crunch, leaves."""
    c.bed = c.noise(300, 9000, -1) * c.wander(0.25, 1, 1.1)
    top = c.between(3800, 5200)
    for at in c.in_groups(2.8, (4, 9), 0.11):
        c.put("chirp", at, c.call(0.06, 0.7 * top, top, 1, 0.7), c.between(0.3, 0.9))
    for at in c.in_step(c.between(0.5, 0.65), 0.06):
        for grain in c.rng.uniform(0, 0.16, 7):
            c.put(None if grain else "crunch", at + grain, c.burst(0.02, 900, 6000), 0.35)


def grocery_store(c):
    """Refrigerators hum, the till beeps with one tone, trolleys rattle."""
    c.bed = c.noise(80, 5000, -4) + 0.6 * c.hum(c.between(98, 102), 5, 0.5)
    f = c.between(1300, 2400)
    for at in c.in_groups(3.5, (1, 5), 1.1, 0.3):
        c.put("beep", at, c.call(0.11, f, f, 1), 0.8)
    for at in c.in_groups(8, (20, 40), 0.07, 0.4):
        c.put("trolley", at, c.struck(0.06, c.rng.uniform(600, 4000, 3)), 0.4)


def home(c):
    """A clock ticks once a second, an appliance is switched on and off, dishes."""
    on = np.repeat((c.rng.random(12) < 0.5).astype(float), 4)
    c.bed = c.noise(60, 3000, -5) + 1.3 * c.hum(c.between(118, 124), 8, 0.7) * c.curve(on, 1.5)
    tick = c.struck(0.035, c.rng.uniform(2500, 4500, 3))
    for k, at in enumerate(c.in_step(1.0, 0.0)):
        c.put("tick", at, tick, 0.7 if k % 2 else 0.5, 0.3)
    for at in c.in_groups(7, (2, 5), 0.3, 0.5):
        c.put("dish", at, c.struck(0.3, c.rng.uniform(1200, 4200, 5)), 0.8)


def library(c):
    """Air; pages turn with a sweep of noise, a pencil scratches to and fro, a cough."""
    c.bed = c.noise(60, 2500, -4)
    for at in c.now_and_then(4.5):
        page = c.noise(1500, 9000, 0, 0.5) * np.hanning(max(64, round(0.5 * c.rate)))
        c.put("page", at, (page / np.abs(page).max()).astype(np.float32), 0.9)
    for at in c.in_groups(5, (6, 14), 0.17, 0.1):
        c.put("pencil", at, c.burst(0.13, 3000, 8000, 0.04), 0.35)
    for at in c.now_and_then(14):
        c.put("cough", at, c.burst(0.35, 300, 2500, 0.01), 0.9)


def metro_station(c):
    """A train comes in and squeals as it stops; doors warn with three falling tones; a large hall."""
    arrivals = c.in_step(c.between(13, 17), 0.1)
    c.bed = 0.5 * c.noise(50, 4000) + c.noise(40, 6000, -3) * c.swells(arrivals, 6.0, 2.5, 0.05)
    for at in arrivals:
        c.put("squeal", at + 4.2, c.call(2.2, c.between(2700, 3300), c.between(1900, 2300), 4, 0.7), 0.8)
        for k, ratio in enumerate((1.5, 1.25, 1.0)):
            c.put(None if k else "doors", at + 8.5 + 0.35 * k, c.call(0.3, 660 * ratio, 660 * ratio, 2), 0.8, 0.5)


def office(c):
    """Somebody types in bouts, a mouse clicks twice, a fan."""
    c.bed = c.noise(70, 4000, -4) + 0.5 * c.hum(c.between(205, 230), 4, 0.8)
    for at in c.in_groups(3.5, (10, 30), c.between(0.1, 0.14), 0.35):
        c.put("key", at, c.burst(0.035, 1200, 6500), c.between(0.3, 0.7), 0.5)
    for at in c.now_and_then(5):
        for k in range(2):
            c.put(None if k else "mouse", at + 0.12 * k, c.struck(0.015, (3600, 5100)), 0.6, 0.6)


def park(c):
    """Children call across, a bird whistles slowly downward, gusts of wind."""
    c.bed = c.noise(80, 2500, -3) * c.wander(0.2, 1, 2.8)
    for at in c.in_groups(4.5, (1, 3), 0.9, 0.3):
        f = c.between(420, 720)
        c.put("child", at, c.call(c.between(0.35, 0.7), f, f * c.between(1.15, 1.5), 9, 0.6, 6.0), 0.8)
    for at in c.now_and_then(3):
        f = c.between(2400, 3600)
        c.put("whistle", at, c.call(c.between(0.4, 0.7), f, 0.72 * f, 1), 0.5)


def residential_area(c):
    """A dog barks in pairs, somebody hammers, a lawn mower far away."""
    c.bed = c.noise(60, 5000, -3) + 0.7 * c.hum(c.wander(82, 90, 1.5), 12, 0.4) * c.wander(0.5, 1, 2)
    for at in c.in_groups(5, (2, 4), 0.42, 0.1):
        f = c.between(330, 420)
        c.put("bark", at, c.call(0.16, f, 0.65 * f, 12, 0.5), 0.9)
    for at in c.in_groups(8, (4, 8), 0.55, 0.04):
        c.put("hammer", at, c.struck(0.12, (520, 1350, 2900, 4700)), 0.6)


def train(c):
    """Wheels over joints, ta-dum ta-dum, always alike; a rumble that sways."""
    c.bed = c.noise(35, 1800, -4) * c.wander(0.55, 1, 0.8)
    period = c.between(1.05, 1.35)
    for at in c.in_step(period, 0.01):
        for k, later in enumerate((0.0, 0.13, 0.3, 0.43)):
            c.put(None if k else "joints", at + later, c.burst(0.11, 90, 1600), 0.8 if k % 2 else 0.55, 0.5)
    for at in c.now_and_then(9):
        c.put("creak", at, c.call(0.5, c.between(700, 1100), c.between(800, 1500), 6, 1, 18.0), 0.5)


def tram(c):
    """A motor whines up and down with the speed, the bell is struck, single joints."""
    speed = np.interp(np.arange(0, c.seconds + 12, 0.5) % c.between(10, 14), [0, 4, 8, 12], [300, 900, 860, 300])
    c.bed = c.noise(50, 3000, -4) + 0.9 * c.hum(c.curve(speed, 0.5), 3, 1.0)
    for at in c.in_groups(9, (2, 4), 0.33, 0.05):
        c.put("bell", at, c.struck(0.9, np.array([1180, 2870, 4750, 6600]) * c.between(0.98, 1.02)), 0.8, 0.4)
    for at in c.now_and_then(2.5):
        c.put("joint", at, c.burst(0.1, 120, 2200), 0.6, 0.5)


SCENES = {
    "beach": beach, "bus": bus, "cafe/restaurant": cafe, "car": car, "city_center": city_center,
    "forest_path": forest_path, "grocery_store": grocery_store, "home": home, "library": library,
    "metro_station": metro_station, "office": office, "park": park, "residential_area": residential_area,
    "train": train, "tram": tram,
}  # fmt: skip


# --- from a scene to a recording ---

EDGES_HZ = np.geomspace(60, 20_000, 34)  # bands in which average spectra are matched, a quarter of an octave each


def mixed(canvas, front_db, passing_db=0.0, drift_db=0.0):
    """Bed, front and what passes by as stereo, float32 (2, n_samples).

    Parameters
    ----------
    canvas : Canvas
        A scene that was painted.
    front_db : float
        Power of the scene's events together with what passes by, over the recording, against the bed's.
    passing_db : float
        Power of what passes by, against that of the scene's events.
    drift_db : float >= 0
        As in `drift`, of everything together.
    """
    bed = canvas.bed / np.sqrt(np.mean(canvas.bed**2))
    bed = bed + np.float32(10 ** (canvas.between(*ALIKE_DB) / 20)) * under(canvas)
    bed /= np.sqrt(np.mean(bed**2))
    width = np.float32(0.35)  # how much of the bed differs between the ears
    side = canvas.noise() * np.abs(bed).mean()
    floor = np.float32(10 ** (FLOOR_DB / 20))
    both = np.stack([bed + width * side, bed - width * side]) + floor * np.stack([canvas.noise(), canvas.noise()])
    front = _of_unit_power(canvas.front) + np.float32(10 ** (passing_db / 20)) * _of_unit_power(canvas.passing)
    return (both + np.float32(10 ** (front_db / 20)) * _of_unit_power(front)) * drift(canvas, drift_db)


def _of_unit_power(wave):
    """A wave scaled to a mean square of 1; silence stays what it is."""
    return wave / np.sqrt(np.mean(wave**2) + 1e-20)


def band_powers(wave, rate):
    """Average power in each band of EDGES_HZ that lies below half the rate, and the bands' centres [Hz].

    Parameters
    ----------
    wave : array [shape=(n_channels, n_samples)]
    rate : int [Hz]

    Returns
    -------
    powers, centres : np.ndarray [shape=(n_bands,)]
        Power per Hz, mean over channels.
    """
    size = scipy.fft.next_fast_len(wave.shape[-1], real=True)
    spectrum = scipy.fft.rfft(wave, size)
    return _powers_of(spectrum, size, rate)


def _powers_of(spectrum, size, rate):
    power = (spectrum.real**2 + spectrum.imag**2).mean(axis=0, dtype=np.float64)
    edges = EDGES_HZ[EDGES_HZ <= 0.46 * rate]
    places = np.searchsorted(np.fft.rfftfreq(size, 1 / rate), edges)
    sums = np.add.reduceat(power, places)[:-1]
    return sums / np.diff(places), np.sqrt(edges[:-1] * edges[1:])


def matched(wave, rate, wanted_db):
    """Filter a recording so that its average spectrum is the wanted one: float32 (2, n_samples).

    Parameters
    ----------
    wave : float32 array [shape=(2, n_samples)]
    rate : int [Hz]
    wanted_db : callable (frequencies [Hz]) -> dB
        Of power per Hz; the overall level is the caller's.

    Returns
    -------
    np.ndarray, float32 [shape=(2, n_samples)]
        Both channels through one filter that is smooth over frequency.
    """
    n, size = wave.shape[-1], scipy.fft.next_fast_len(wave.shape[-1], real=True)
    spectrum = scipy.fft.rfft(wave, size)
    f = np.log(np.maximum(np.fft.rfftfreq(size, 1 / rate), 20.0))
    for _ in range(3):  # a smooth filter meets bands only in a few turns
        powers, centres = _powers_of(spectrum, size, rate)
        step_db = wanted_db(centres) - 10 * np.log10(powers + 1e-30)
        step_db -= step_db.mean()
        spectrum *= (10 ** (np.interp(f, np.log(centres), step_db) / 20)).astype(np.float32)
    return scipy.fft.irfft(spectrum, size)[..., :n]
