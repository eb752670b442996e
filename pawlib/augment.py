"""Waveform augmentations of the contrastive view (paper Sec. 4.1: "the same group ... as in CLMR").

Conventions
    wave : Tensor [shape=(B, L)], mono, in [-1, 1]; the whole batch at once, on the device it lies on.
    keys : one integer per song. All randomness of a song comes from its key alone, so a song gets the same view on
    any device count, in any batch, before and after a resume. `sample_key(seed, epoch, index)` makes one.
    In order, each with its own probability: polarity, noise, gain, high- or low-pass, delay, pitch shift; probabilities
    and ranges are those of CLMR's published set (Spijkervet 2021).

Told in: notebooks/01_data.ipynb, notebooks/10_pretrain_music_paw.ipynb
"""

import functools
import math

import torch
import torchaudio

from pawlib import fast_layer

PROBABILITIES = {"polarity": 0.8, "noise": 0.01, "gain": 0.3, "filter": 0.8, "delay": 0.3, "pitch": 0.6}

NOISE_STD = (1e-4, 1e-2)  # times the standard deviation of the song
GAIN_DB = (-20.0, -1.0)
HIGH_PASS_HZ = (200.0, 1200.0)
LOW_PASS_HZ = (2200.0, 4000.0)
DELAY_MS = (200, 250, 300, 350, 400, 450)
DELAY_VOLUME = 0.5
SEMITONES = 7
SILENT = 1e-15  # 300 dB below full scale: what rings on there has no phase, and slows a processor down
BINS = 64  # of the vocoder, worked on at once: their frames stay in the cache


def sample_key(*numbers):
    """One 63-bit key from any integers (seed, epoch, index, ...), well mixed: neighbours share nothing."""
    key = 0x9E3779B97F4A7C15
    for number in numbers:
        key = (key ^ (int(number) & 0xFFFFFFFFFFFFFFFF)) & 0xFFFFFFFFFFFFFFFF
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            key = ((key ^ (key >> shift)) * factor) & 0xFFFFFFFFFFFFFFFF
        key ^= key >> 31
    return key >> 1


def draw(keys, sample_rate=16_000, probabilities=PROBABILITIES):
    """What each song will undergo: a list of dicts, one per key, of plain numbers; absent means left alone.

    Parameters
    ----------
    keys : sequence of int
    sample_rate : int [Hz]
    probabilities : dict
        Overrides of PROBABILITIES by name; 0 switches one off.

    Returns
    -------
    list of dict
        Of polarity (-1), noise (std relative to the song's), noise_key, gain_db, high_pass_hz or low_pass_hz,
        delay [samples], semitones.

    Raises
    ------
    ValueError
        For an unknown augmentation or a probability outside 0..1.
    """
    unknown = set(probabilities) - set(PROBABILITIES)
    if unknown or any(not 0 <= p <= 1 for p in probabilities.values()):
        raise ValueError(
            f"probabilities {probabilities} are wrong, expected values 0..1 for {', '.join(PROBABILITIES)}"
        )
    chance = {**PROBABILITIES, **probabilities}
    drawn = []
    for key in keys:
        generator = torch.Generator().manual_seed(int(key))
        u = torch.rand(16, generator=generator, dtype=torch.float64).tolist()
        song = {}
        if u[0] < chance["polarity"]:
            song["polarity"] = -1.0
        if u[1] < chance["noise"]:
            song["noise"] = _between(NOISE_STD, u[2])
            song["noise_key"] = sample_key(key, 1)
        if u[3] < chance["gain"]:
            song["gain_db"] = _between(GAIN_DB, u[4])
        if u[5] < chance["filter"]:
            high = u[6] < 0.5
            song["high_pass_hz" if high else "low_pass_hz"] = _between(HIGH_PASS_HZ if high else LOW_PASS_HZ, u[7])
        if u[8] < chance["delay"]:
            song["delay"] = round(DELAY_MS[int(u[9] * len(DELAY_MS))] * sample_rate / 1000)
        if u[10] < chance["pitch"]:
            song["semitones"] = int(u[11] * (2 * SEMITONES + 1)) - SEMITONES
        drawn.append(song)
    return drawn


def augment(wave, keys, sample_rate=16_000, probabilities=PROBABILITIES):
    """One augmented view of each song.

    Parameters
    ----------
    wave : Tensor [shape=(B, L)]
    keys : sequence of B int
    sample_rate : int [Hz]
    probabilities : dict
        See `draw`.

    Returns
    -------
    Tensor [shape=(B, L)], a copy

    Raises
    ------
    ValueError
        If there is not one key per song, or as `draw`.
    """
    if wave.ndim != 2 or len(keys) != wave.shape[0]:
        raise ValueError(
            f"{len(keys)} keys for a batch of shape {tuple(wave.shape)}, expected one key per song, (B, L)"
        )
    return apply(wave, draw(keys, sample_rate, probabilities), sample_rate)


@torch.no_grad()
def apply(wave, songs, sample_rate=16_000):
    """Apply drawn augmentations: (B, L) and one dict of `draw` per song -> (B, L), a copy."""
    level = [song.get("polarity", 1.0) * 10 ** (song.get("gain_db", 0.0) / 20) for song in songs]
    out = wave.float() * torch.tensor(level, dtype=torch.float32).to(wave.device).unsqueeze(1)
    undergo = functools.partial(_undergo, sample_rate=sample_rate)
    if wave.device.type == "cpu":  # songs side by side, one core each
        fast_layer.over_blocks(undergo, out.split(1), [[song] for song in songs])
    else:  # a few large launches instead of a hundred small ones for each song
        undergo(out, songs)
    return out


def _undergo(rows, songs, sample_rate):
    """Noise, filter, delay and pitch shift of K songs (K, L), in place; those that share a step take it together."""
    for row, song in zip(rows, songs, strict=True):
        if "noise" in song:
            generator = torch.Generator(device=row.device).manual_seed(song["noise_key"])
            row += torch.randn(row.shape, generator=generator, device=row.device) * (song["noise"] * row.std())
    filtered = [i for i, song in enumerate(songs) if "high_pass_hz" in song or "low_pass_hz" in song]
    if filtered:
        rows[filtered] = _filter(rows[filtered], [songs[i] for i in filtered], sample_rate)
    for row, song in zip(rows, songs, strict=True):
        if "delay" in song:
            late = torch.zeros_like(row)
            late[song["delay"] :] = DELAY_VOLUME * row[: -song["delay"]]
            row.add_(late).mul_(0.5)
    for semitones in {song.get("semitones", 0) for song in songs} - {0}:
        shifted = [i for i, song in enumerate(songs) if song.get("semitones") == semitones]
        rows[shifted] = pitch_shift(rows[shifted], semitones)


def pitch_shift(wave, semitones, n_fft=1024):
    """Shift the pitch, keep the tempo: a phase vocoder stretches the time, a band-limited resampling undoes it.

    The vocoder's running phase is a running product of unit phasors, which is the textbook's sum of wrapped phase
    differences without any sine or arctangent: what torchaudio.functional.phase_vocoder does, at a tenth of its time.

    Parameters
    ----------
    wave : Tensor [shape=(..., L)]
    semitones : float
        Positive is up. Lengths are rounded to ones that transform fast: the pitch is right to 9 cents, for a whole of
        22.4 s to 3.
    n_fft : int [samples]
        Window of the vocoder; its hop is a quarter.

    Returns
    -------
    Tensor [shape=(..., L)]
    """
    n_samples = wave.shape[-1]
    ratio = 2.0 ** (semitones / 12)
    hop = n_fft // 4
    window = torch.hann_window(n_fft, device=wave.device)
    spectrum = torch.stft(wave, n_fft, hop, window=window, return_complex=True).mT.contiguous()  # (..., frames, bins)
    n_long = _fast_length(round(n_samples * ratio))
    few = spectrum.split(BINS if wave.device.type == "cpu" else n_fft, dim=-1)
    stretched = torch.cat([_stretch(bins.contiguous(), n_samples / n_long) for bins in few], dim=-1)
    long = torch.istft(stretched.mT, n_fft, hop, window=window, length=n_long)
    bins = torch.fft.rfft(long)[..., : n_samples // 2 + 1] * (n_samples / n_long)
    return torch.fft.irfft(bins, n=n_samples)


@functools.lru_cache
def _fast_length(n):
    """The number next to n without a prime factor above 13: others may take eight times as long to transform."""
    if n < 4096:
        return n
    for k in range(n):
        for near in (n - k, n + k):
            rest = near
            for prime in (2, 3, 5, 7, 11, 13):
                while rest % prime == 0:
                    rest //= prime
            if rest == 1:
                return near


def _stretch(spectrum, rate):
    """Read frames at multiples of `rate`, (..., frames, bins) -> (..., ceil(frames / rate), bins), phases running."""
    n_frames = spectrum.shape[-2]
    at = torch.arange(0, n_frames, rate, device=spectrum.device, dtype=torch.float64)
    before = at.long()
    spectrum = torch.cat([spectrum, torch.zeros_like(spectrum[..., :2, :])], dim=-2)
    magnitude = spectrum.abs()
    phasor = torch.sgn(spectrum).masked_fill_(magnitude < SILENT, 1)
    turn = phasor[..., 1:, :] * phasor[..., :-1, :].conj()  # how far each bin turns from one frame to the next
    share = (at - before).to(magnitude.dtype).unsqueeze(1)
    loud = magnitude[..., before, :].lerp(magnitude[..., before + 1, :], share)
    running = turn[..., before, :].cumprod(-2).roll(1, -2)
    running[..., 0, :] = 1
    middle = len(before) // 2  # where every bin takes its phase from the song, so that neighbours agree
    origin = phasor[..., before[middle], :] / running[..., middle, :]
    return loud * (running * origin.unsqueeze(-2))


def _filter(wave, songs, sample_rate):
    """Second-order Butterworth high- or low-pass, (K, L) and K songs -> (K, L)."""
    b, a = torch.tensor([_butterworth(song, sample_rate) for song in songs]).unbind(1)  # (K, 3) each
    if wave.device.type == "cpu":  # sample after sample, in half the time of two transforms; a graphics card cannot
        out = torchaudio.functional.lfilter(wave, a, b, clamp=False)
        return out.masked_fill_(out.abs() < SILENT, 0)
    return _filter_in_frequency(wave, a.to(wave.device), b.to(wave.device))


def _filter_in_frequency(wave, a, b):
    """What lfilter does, in the frequency domain: (K, L), (K, 3) and (K, 3) -> (K, L)."""
    n_samples = wave.shape[-1]
    n_fft = n_samples + n_samples // 64 * 2 if n_samples >= 64 else 2 * n_samples  # room for the filter's ringing
    n_fft = _fast_length(n_fft)
    z1, z2 = _delays(n_fft, wave.device)
    (b0, b1, b2), (a0, a1, a2) = b.T.unsqueeze(-1), a.T.unsqueeze(-1)  # (K, 1) each
    response = (b0 + b1 * z1 + b2 * z2) / (a0 + a1 * z1 + a2 * z2)
    return torch.fft.irfft(torch.fft.rfft(wave, n=n_fft).mul_(response), n=n_fft)[..., :n_samples]


@functools.lru_cache(maxsize=4)
def _delays(n_fft, device):
    """z**-1 and z**-2 at the frequencies of a transform of n_fft samples."""
    omega = torch.fft.rfftfreq(n_fft, device=device).mul_(2 * math.pi)
    z1 = torch.polar(torch.ones_like(omega), -omega)
    return z1, z1 * z1


def _butterworth(song, sample_rate):
    """Coefficients (b, a) of the audio cookbook's biquad at Q = 1/sqrt(2)."""
    high = "high_pass_hz" in song
    omega = 2 * math.pi * song["high_pass_hz" if high else "low_pass_hz"] / sample_rate
    cos, alpha = math.cos(omega), math.sin(omega) / math.sqrt(2)
    edge = (1 + cos) / 2 if high else (1 - cos) / 2
    b = (edge, -2 * edge if high else 2 * edge, edge)
    return b, (1 + alpha, -2 * cos, 1 - alpha)


def _between(limits, u):
    return limits[0] + (limits[1] - limits[0]) * u
