"""What the self-supervised contestants do to a song before they look at it, beyond Music-PAW's own group (augment.py).

    crop                            where a view is cut from a longer whole             CLMR, Multi-Format
    reverb                          the last member of CLMR's published group           CLMR (reading R19)
    mix                             another song of the batch, softly, in the ground    Multi-Format (reading R23)
    mask, shift_bands               a gap in time or frequency; bands moved up or down  Multi-Format (reading R24)

Conventions
    wave : Tensor [shape=(B, L)], mono; mel : Tensor [shape=(B, 1, n_mels, n_frames)], in dB.
    keys : one integer per song, from augment.sample_key. All randomness of a song comes from its key alone and is drawn
    on the CPU, so that a song gets the same view on any device; only `mix` needs the others of its batch.
    What is drawn and what is done with it are two functions, as in augment.py: a chapter can show what was drawn.

Told in: notebooks/11_pretrain_clmr.ipynb, notebooks/13_pretrain_multi_format.ipynb
"""

import functools

import numpy as np
import torch

from pawlib import augment, fast_layer

TAIL_DB = (-20.0, -3.0)  # of the reverberation's energy, the direct sound being 0 dB
DECAY_S = (0.2, 2.5)  # until it has fallen by 60 dB
FIRST_MS = (1.0, 30.0)  # until its first sound
CROSSOVER_HZ = 2000.0  # above it, damping shortens the decay
DAMPED = 0.9  # of the decay of the highs, at most


# --- where a view is cut ---


def starts(n_samples, n_clip, keys):
    """First sample of each song's crop, list of B int, uniform in 0 .. n_samples - n_clip.

    Raises
    ------
    ValueError
        If the crop is longer than what it is cut from.
    """
    if not 0 < n_clip <= n_samples:
        raise ValueError(
            f"a crop of {n_clip} samples from {n_samples}: is the whole too short, or at another sample rate?"
        )
    return [key % (n_samples - n_clip + 1) for key in keys]


def crop(wave, n_clip, keys):
    """A crop of each song at a place of its own: (B, L) -> (B, n_clip), a copy.

    Parameters
    ----------
    wave : Tensor [shape=(B, L)]
    n_clip : int [samples]
    keys : sequence of B int

    Raises
    ------
    ValueError
        As `starts`, or if there is not one key per song.

    Told in: notebooks/11_pretrain_clmr.ipynb
    """
    _one_key_each(wave, keys)
    begins = starts(wave.shape[1], n_clip, keys)
    return torch.stack([row[begin : begin + n_clip] for row, begin in zip(wave, begins, strict=True)])


# --- reverberation ---


def room(reverberance, damping, room_size, noise_key):
    """A room by the three dials of a reverberator, 0 to 100 % each (reading R19).

    Parameters
    ----------
    reverberance : float [%]
        How loud it answers.
    damping : float [%]
        How much sooner it loses what lies above 2 kHz.
    room_size : float [%]
        How long it rings, and how late it begins.
    noise_key : int
        Of the noise the reverberation is made of.

    Returns
    -------
    dict
        The dials, and what we make of them: tail_db, the energy of the reverberation against the direct sound; decay_s
        and high_decay_s, seconds until it has fallen by 60 dB, below and above 2 kHz; first_s, until it begins.

    Told in: notebooks/11_pretrain_clmr.ipynb
    """
    decay_s = DECAY_S[0] * (DECAY_S[1] / DECAY_S[0]) ** (room_size / 100)
    return {
        "reverberance": reverberance,
        "damping": damping,
        "room_size": room_size,
        "tail_db": _between(TAIL_DB, reverberance / 100),
        "decay_s": decay_s,
        "high_decay_s": decay_s * (1 - DAMPED * damping / 100),
        "first_s": _between(FIRST_MS, room_size / 100) / 1000,
        "noise_key": noise_key,
    }


def draw_reverb(keys, probability=0.6):
    """The room each song is played in, all three dials uniform: list of `room`, one per key; an empty dict means none.

    Parameters
    ----------
    keys : sequence of int
    probability : float
        CLMR's 0.6; 0 switches reverberation off.

    Raises
    ------
    ValueError
        For a probability outside 0..1.
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"a probability of reverb of {probability}, expected 0..1")
    drawn = []
    for key in keys:
        chance, *dials = uniforms(key, 4)
        played = chance < probability
        drawn.append(room(*(100 * dial for dial in dials), augment.sample_key(key, 1)) if played else {})
    return drawn


def impulse_response(place, n_samples, sample_rate):
    """What a clap sounds like in a drawn room: the clap itself, 1, and noise that dies away.

    Noise below the crossover falls by 60 dB in decay_s, noise above it in high_decay_s (reading R19).

    Parameters
    ----------
    place : dict
        Of `room`.
    n_samples : int
        What is longer is cut off.
    sample_rate : int [Hz]

    Returns
    -------
    Tensor [shape=(n_samples,)], on the CPU

    Told in: notebooks/11_pretrain_clmr.ipynb
    """
    response = torch.zeros(n_samples)
    first = max(1, round(place["first_s"] * sample_rate))
    n_tail = min(n_samples - first, round(place["decay_s"] * sample_rate))
    if n_tail > 0:
        noise = torch.randn(n_tail, generator=torch.Generator().manual_seed(place["noise_key"]))
        low, high = _split(noise, sample_rate)
        at = torch.arange(n_tail) / sample_rate
        tail = sum(band * 10 ** (-3 * at / place[decay]) for band, decay in ((low, "decay_s"), (high, "high_decay_s")))
        response[first : first + n_tail] = tail * (10 ** (place["tail_db"] / 20) / tail.norm().clamp_min(1e-9))
    response[0] = 1.0
    return response


@torch.no_grad()
def reverb(wave, rooms, sample_rate):
    """Every song in its room; the direct sound keeps its level, the song its length.

    Parameters
    ----------
    wave : Tensor [shape=(B, L)]
    rooms : list of B dict
        Of `draw_reverb`, or `room`; an empty one leaves its song alone.
    sample_rate : int [Hz]

    Returns
    -------
    Tensor [shape=(B, L)], a copy

    Raises
    ------
    ValueError
        If there is not one room per song.

    Told in: notebooks/11_pretrain_clmr.ipynb
    """
    if wave.ndim != 2 or len(rooms) != len(wave):
        raise ValueError(f"{len(rooms)} rooms for a batch of shape {tuple(wave.shape)}, expected one per song, (B, L)")
    out = wave.float().clone()
    played = [i for i, place in enumerate(rooms) if place]
    heard = functools.partial(_in_rooms, sample_rate=sample_rate)
    if wave.device.type == "cpu":  # songs side by side, one core each
        fast_layer.over_blocks(lambda i: out[i].copy_(heard(out[i : i + 1], [rooms[i]])[0]), played)
    elif played:
        out[played] = heard(out[played], [rooms[i] for i in played])
    return out


def _in_rooms(wave, rooms, sample_rate):
    """(K, L) and K rooms -> (K, L): convolution by way of the spectra."""
    n_samples = wave.shape[-1]
    n_fft = 1 << (2 * n_samples - 1).bit_length()
    responses = torch.stack([impulse_response(place, n_samples, sample_rate) for place in rooms]).to(wave.device)
    spectrum = torch.fft.rfft(wave, n_fft).mul_(torch.fft.rfft(responses, n_fft))
    return torch.fft.irfft(spectrum, n_fft)[:, :n_samples]


def _split(noise, sample_rate):
    """(n,) -> what lies below and above the crossover; their sum is the noise."""
    frequencies = torch.fft.rfftfreq(len(noise), 1 / sample_rate)
    low = torch.fft.irfft(torch.fft.rfft(noise) / (1 + (frequencies / CROSSOVER_HZ) ** 4), len(noise))
    return low, noise - low


# --- another song in the ground ---


def draw_mix(keys, alpha=(5.0, 2.0)):
    """How much of itself each song keeps, 0..1, from a Beta distribution, and who sounds with it.

    Parameters
    ----------
    keys : sequence of B int
    alpha : (float, float) or None
        Of the Beta distribution; None mixes nothing (reading R23).

    Returns
    -------
    list of (float, int)
        Share of the own song, and place of the other one in the batch. A batch of one song is not mixed.
    """
    n = len(keys)
    drawn = []
    for i, key in enumerate(keys):
        if alpha is None or n == 1:
            drawn.append((1.0, i))
            continue
        random = np.random.default_rng(int(key))
        drawn.append((float(random.beta(*alpha)), (i + 1 + int(random.integers(n - 1))) % n))
    return drawn


def mix(wave, drawn):
    """a * song + (1 - a) * another song of the batch: (B, L) and `draw_mix` -> (B, L).

    Told in: notebooks/13_pretrain_multi_format.ipynb
    """
    own = torch.tensor([share for share, _ in drawn], dtype=wave.dtype, device=wave.device).unsqueeze(1)
    return own * wave + (1 - own) * wave[[other for _, other in drawn]]


# --- gaps and shifts ---


def draw_gap(keys, n, share):
    """A gap somewhere in n places: list of (begin, end), at most `share` of them long, uniform in length and place.

    Raises
    ------
    ValueError
        For a share outside 0..1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"a gap of at most {share} of the places, expected a share, 0..1")
    drawn = []
    for key in keys:
        u = uniforms(key, 2)
        length = int(u[0] * (int(share * n) + 1))
        begin = int(u[1] * (n - length + 1))
        drawn.append((begin, begin + length))
    return drawn


def mask(x, gaps, dim, value):
    """Fill one gap of each song.

    Parameters
    ----------
    x : Tensor [shape=(B, ...)]
    gaps : list of B (begin, end)
        Of `draw_gap`, along `dim`.
    dim : int
        The axis: -1 is time, of waves and log-mels; -2 is frequency of log-mels.
    value : float, or Tensor [shape=(B,)]
        What stands in the gap.

    Returns
    -------
    Tensor of x's shape

    Told in: notebooks/13_pretrain_multi_format.ipynb
    """
    dim = dim % x.ndim
    begin, end = (_per_song(edge, x) for edge in zip(*gaps, strict=True))
    place = torch.arange(x.shape[dim], device=x.device).view([-1 if d == dim else 1 for d in range(x.ndim)])
    return torch.where((place >= begin) & (place < end), _per_song(value, x).to(x.dtype), x)


def draw_shift(keys, most):
    """Bands by which each song moves up (positive) or down, list of int in -most..most."""
    return [int(uniforms(key, 1)[0] * (2 * most + 1)) - most for key in keys]


def shift_bands(mel, bands, value):
    """Move log-mels by whole bands; bands that come in from outside hold `value`.

    Parameters
    ----------
    mel : Tensor [shape=(B, 1, n_mels, n_frames)]
    bands : list of B int
    value : float, or Tensor [shape=(B,)]

    Returns
    -------
    Tensor [shape=(B, 1, n_mels, n_frames)]

    Told in: notebooks/13_pretrain_multi_format.ipynb
    """
    n_mels = mel.shape[-2]
    place = torch.arange(n_mels, device=mel.device).view(1, 1, -1, 1) - _per_song(bands, mel)  # where a band comes from
    moved = mel.gather(-2, place.clamp(0, n_mels - 1).expand_as(mel))
    return torch.where((place >= 0) & (place < n_mels), moved, _per_song(value, mel).to(mel.dtype))


# --- what they share ---


def uniforms(key, n):
    """n numbers in 0..1 from a key alone."""
    return torch.rand(n, generator=torch.Generator().manual_seed(int(key)), dtype=torch.float64).tolist()


def _per_song(values, x):
    """One number, or one per song, in a shape that broadcasts over x (B, ...)."""
    values = torch.as_tensor(values, device=x.device)
    return values if values.ndim == 0 else values.view(-1, *[1] * (x.ndim - 1))


def _between(limits, u):
    return limits[0] + (limits[1] - limits[0]) * u


def _one_key_each(wave, keys):
    if wave.ndim != 2 or len(keys) != len(wave):
        raise ValueError(
            f"{len(keys)} keys for a batch of shape {tuple(wave.shape)}, expected one key per song, (B, L)"
        )
