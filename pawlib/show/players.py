"""Players: hear a clip, or all clips of a level side by side.

Conventions
    clip : array or Tensor [shape=(n_samples,)], mono.
    A player is HTML with the sound inside, as mono MP3 at 16 kHz and a low bit rate: 22.4 s take 45 kB, so a notebook
    with players stays small and works without this package. The model never hears this sound, only the reader does.
    Clips that belong together share one gain: a quiet part stays quiet beside a loud one.

Told in: notebooks/02_crops.ipynb
"""

import base64
import html
import io

import numpy as np
import soundfile
import torch
import torchaudio
from IPython.display import HTML

from pawlib.show.figures import level_colour

RATE = 16_000
PEAK = 0.7
_KBPS = (8, 160)  # what MPEG-2 layer III offers


def player(clip, sample_rate, title="", gain=None, kbps=16, colour="#555555"):
    """One clip with a title.

    Parameters
    ----------
    clip : array or Tensor [shape=(n_samples,)]
    sample_rate : int [Hz]
    title : str
    gain : float, optional
        Factor of the samples; by default the one that brings the peak to 0.7.
    kbps : int, 8..160
        Bit rate of the MP3.
    colour : str
        Of the line on the left.

    Returns
    -------
    IPython.display.HTML

    Raises
    ------
    ValueError
        If the clip is not one mono signal, is empty, or holds NaN.

    Told in: notebooks/02_crops.ipynb
    """
    return HTML(_figure(clip, sample_rate, title, gain, kbps, colour, "360px"))


def row(clips, sample_rate, titles=None, heading="", kbps=16, colour="#555555"):
    """Clips that belong together, side by side and equally amplified.

    Parameters
    ----------
    clips : sequence of K arrays, or Tensor [shape=(K, n_samples)]
    sample_rate : int [Hz]
    titles : sequence of K str, optional
        1, 2, 3, ... by default.
    heading, kbps, colour
        One line above the row; as `player`.

    Returns
    -------
    IPython.display.HTML

    Raises
    ------
    ValueError
        As `player`, or if there is not one title per clip.

    Told in: notebooks/02_crops.ipynb
    """
    clips = [_mono(clip) for clip in clips]
    titles = [str(1 + k) for k in range(len(clips))] if titles is None else list(titles)
    if not clips or len(titles) != len(clips):
        raise ValueError(
            f"{len(titles)} titles for {len(clips)} clips, expected one title per clip and at least one clip"
        )
    gain = _gain(np.concatenate(clips))
    width = {1: "360px", 2: "260px"}.get(len(clips), "200px")
    cells = [_figure(c, sample_rate, t, gain, kbps, colour, width) for c, t in zip(clips, titles, strict=True)]
    head = f'<div style="font-weight:bold;margin-top:6px">{html.escape(heading)}</div>' if heading else ""
    return HTML(f'{head}<div style="display:flex;flex-wrap:wrap;gap:4px 10px">{"".join(cells)}</div>')


def level(clips, n, sample_rate, kbps=16):
    """All clips of level n, in time order, each under the seconds it covers.

    Parameters
    ----------
    clips : Tensor [shape=(M**n, n_samples)]
        One song's clips, `hierarchical_crops(...)[n][b]`.
    n : int
        The level, for heading and colour.
    sample_rate : int [Hz]
    kbps : int

    Returns
    -------
    IPython.display.HTML

    Told in: notebooks/02_crops.ipynb
    """
    seconds = clips.shape[-1] / sample_rate
    titles = [f"clip {m}: {m * seconds:.1f} to {(m + 1) * seconds:.1f} s" for m in range(len(clips))]
    heading = f"level {n}: {len(clips)} x {seconds:g} s"
    return row(clips, sample_rate, titles, heading, kbps, level_colour(n))


def mp3(clip, sample_rate, gain=1.0, kbps=16):
    """A clip as the bytes of an MP3 file, mono, 16 kHz.

    Raises
    ------
    ValueError
        As `player`, or for a bit rate that MPEG-2 layer III has not.
    """
    if not _KBPS[0] <= kbps <= _KBPS[1]:
        raise ValueError(f"kbps={kbps} is outside {_KBPS[0]}..{_KBPS[1]}, the bit rates of MP3 at {RATE} Hz")
    wave = _mono(clip)
    if sample_rate != RATE:
        wave = torchaudio.functional.resample(torch.from_numpy(wave), sample_rate, RATE).numpy()
    level = min(0.99, (_KBPS[1] - kbps) / (_KBPS[1] - _KBPS[0]))  # the encoder refuses 1
    file = io.BytesIO()
    soundfile.write(
        file, np.clip(wave * gain, -1, 1), RATE, format="MP3", compression_level=level, bitrate_mode="CONSTANT"
    )
    return file.getvalue()


def _figure(clip, sample_rate, title, gain, kbps, colour, width):
    """HTML of one player."""
    wave = _mono(clip)
    data = base64.b64encode(mp3(wave, sample_rate, _gain(wave) if gain is None else gain, kbps)).decode()
    return (
        f'<figure style="margin:4px 0;padding-left:6px;border-left:4px solid {colour}">'
        f'<figcaption style="font-size:13px">{html.escape(title)}</figcaption>'
        f'<audio controls preload="metadata" style="width:{width};height:32px" src="data:audio/mpeg;base64,{data}">'
        "</audio></figure>"
    )


def _mono(clip):
    clip = np.asarray(clip.detach().cpu() if isinstance(clip, torch.Tensor) else clip, dtype=np.float32)
    if clip.ndim != 1 or clip.size == 0:
        raise ValueError(f"a clip of shape {clip.shape}, expected (n_samples,): take one clip of one song, mono")
    if not np.isfinite(clip).all():
        raise ValueError("a clip holds NaN or infinite samples: was it divided by a zero peak?")
    return clip


def _gain(wave):
    peak = float(np.abs(wave).max())
    return PEAK / peak if peak > 0 else 1.0
