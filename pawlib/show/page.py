"""The explorer's page: all clips of some songs, heard, seen, and compared; what needs the encoder is computed once.

    page = Page(model, waves, names)
    explorers.explore(page.look, song=(0, page.n_songs - 1), ...)

Conventions
    waves : Tensor [shape=(n_songs, n_whole)] at the model's rate, one whole each.
    A click looks up vectors, draws one picture and puts players together that were made at the start.
    Neighbours are by cosine, after the part-whole block with the chosen mix; mix 0 is the encoder's output itself,
    what downstream tasks get.

Told in: notebooks/80_explore.ipynb
"""

import gc
import io

import numpy as np
import torch
from IPython.display import HTML, Image
from matplotlib.figure import Figure

from pawlib import crops, mels
from pawlib.bench import audio, embed
from pawlib.bench.progress import progress
from pawlib.show import figures, players

MIXES = (0.0, 0.25, 0.5, 0.75, 1.0)
HOPS = (0.25, 0.5, 1.0, 2.0, 4.0)
SAME = "same level"
N_NEIGHBOURS, N_PLAYED = 5, 3
N_SHADES = 96


def attend(block, s, mix):
    """The part-whole block with another mix: interacted clips, and what each whole looked at.

    The block is left as it was, and at its own mix the numbers are those of `block(s)`.

    Parameters
    ----------
    block : interaction.PartWholeBlock
        In evaluation mode, or dropout is heard.
    s : list of N Tensors, [n] of shape (B, M**n, D_e)
    mix : float in [0, 1]
        lambda of Eqs. 1-2, for all levels.

    Returns
    -------
    s_hat : list of N Tensors of the same shapes
    attention : list of N-1 arrays, [n] of shape (B, M**n, n_layers, n_heads, M)
        Of each clip of level n over the parts it met (Eq. 1). Parts attend to a single clip (Eq. 2): always 1.

    Told in: notebooks/80_explore.ipynb
    """
    before = [unit.mix for unit in block.units]
    try:
        for unit in block.units:
            unit.mix = (mix, mix)
        with torch.inference_mode():
            s_hat = block(s)
        looked = [torch.stack(unit.last_attention, dim=2).numpy() for unit in block.units]
    finally:
        for unit, was in zip(block.units, before, strict=True):
            unit.mix = was
    return s_hat, looked


def wholes_of_file(path, model, n_wholes=4):
    """The first wholes of an audio file as the model hears them, mixed to mono.

    Parameters
    ----------
    path : path-like
        wav, flac, ogg or mp3, of any rate and number of channels.
    model : MusicPAW
    n_wholes : int > 0

    Returns
    -------
    waves : Tensor [shape=(W, n_whole)], W <= n_wholes
        The last is completed by repeating the file where it ends.
    names : list of W str
        Each whole is a song of its own on the page, so the others may be among its neighbours.

    Raises
    ------
    audio.AudioError
        If the file is of no use, saying why.

    Told in: notebooks/80_explore.ipynb
    """
    wave, rate = audio.decode(path, min_seconds=model.mels.n_fft / model.sample_rate)
    wave = torch.from_numpy(audio.resample(wave.mean(axis=0), rate, model.sample_rate)).unsqueeze(0)  # (1, n_samples)
    waves = crops.split_wholes(wave, model.n_whole)[0][0, :n_wholes]
    seconds = model.n_whole / model.sample_rate
    return waves, [f"file +{k * seconds:.1f} s" for k in range(len(waves))]


class Page:
    """All clips of some songs, and everything about them that a click may ask for.

    Parameters
    ----------
    model : MusicPAW
        Put into evaluation mode; untrained weights will do, `heading` should then say so.
    waves : Tensor [shape=(n_songs, n_whole)]
    names : sequence of n_songs str
    heading : str
        Stands over every picture, e.g. which weights these are.

    Raises
    ------
    ValueError
        If the songs are fewer than two, have no name each, or another length than the model's whole.

    Told in: notebooks/80_explore.ipynb
    """

    def __init__(self, model, waves, names, heading=""):
        if len(waves) < 2 or len(names) != len(waves) or waves.shape[-1] != model.n_whole:
            raise ValueError(
                f"waves {tuple(waves.shape)} with {len(names)} names, expected (n_songs, {model.n_whole}), two "
                "songs or more and a name for each: take wholes from show.songs.wholes"
            )
        self.model, self.waves, self.names, self.heading = model.eval(), waves, list(names), heading
        self.n_songs, self.n_levels, self.n_parts = len(waves), model.n_levels, model.n_parts
        self.clips = crops.hierarchical_crops(waves, self.n_levels, self.n_parts)
        with torch.inference_mode(), embed.computing_fast(model):
            self.s = list(model.embed(waves, model.sample_rate).values())  # [n]: (n_songs, M**n, 512)
        self.mixes = MIXES if model.block is not None else (0.0,)
        self.vectors, self.attention = {}, {}
        for mix in self.mixes:
            s_hat, looked = (self.s, None) if model.block is None else attend(model.block, self.s, mix)
            self.vectors[mix] = [torch.nn.functional.normalize(level, dim=-1).numpy() for level in s_hat]
            self.attention[mix] = looked
        self._envelopes = [_envelope(wave.numpy()) for wave in waves]
        self._fronts, self._players = {}, {}
        for level in range(self.n_levels):
            for hop in HOPS:
                self.log_mel(0, level, 0, hop)
        for song in progress(range(self.n_songs), what="encoding players", unit="songs"):
            for level in range(self.n_levels):
                for clip in range(self.n_parts**level):
                    self._players[song, level, clip] = self._player(song, level, clip)
        gc.collect()
        gc.freeze()  # what stays for good is not searched through for garbage again: 0.3 s in the middle of a click

    def name(self, song, level, clip):
        """A clip in words: whose it is, and when it sounds."""
        seconds = self.model.n_whole / self.model.sample_rate / self.n_parts**level
        return f"{self.names[song]}, level {level}, {clip * seconds:.1f} to {(clip + 1) * seconds:.1f} s"

    def neighbours(self, song, level, clip, look_in=SAME, own_song=False, mix=0.0, k=N_NEIGHBOURS):
        """The k clips most similar to one.

        Parameters
        ----------
        song, level, clip : int
        look_in : SAME or int
            The level to search.
        own_song : bool
            Whether clips of the same song may be found, itself never.
        mix : float, one of `mixes`

        Returns
        -------
        list of (cosine, song, level, clip), most similar first
        """
        target = level if look_in == SAME else look_in
        vectors = self.vectors[mix]
        similarity = vectors[target] @ vectors[level][song, clip]  # (n_songs, M**target)
        if not own_song:
            similarity[song] = -np.inf
        elif target == level:
            similarity[song, clip] = -np.inf
        best = np.argsort(-similarity, axis=None, kind="stable")[:k]
        found = [np.unravel_index(one, similarity.shape) for one in best]
        return [(float(similarity[at]), int(at[0]), target, int(at[1])) for at in found if np.isfinite(similarity[at])]

    def log_mel(self, song, level, clip, hop=1.0):
        """A clip's log-mel (n_mels, n_frames) and its hop [samples], `hop` times the level's own."""
        own = self.model.mels.fronts[level]
        length = max(1, round(own.hop_length * hop))
        front = self._fronts.get((level, length))
        if front is None:
            front = mels.LogMel(self.model.sample_rate, own.n_fft, length, self.model.mels.n_mels)
            self._fronts[level, length] = front
        return front(self.clips[level][song, clip]).numpy(), length

    def looked_at(self, song, level, clip, mix):
        """What a clip looked at among its parts: ((n_layers, n_heads, M), numbers of the parts), or None."""
        if self.attention[mix] is None or level == self.n_levels - 1:
            return None
        numbers = torch.arange(self.n_parts ** (level + 1)).reshape(1, -1, 1)
        met = crops.families(numbers, self.n_parts**level, self.model.block.tree)[0, clip, :, 0].tolist()
        return self.attention[mix][level][song, clip], met

    def look(self, song=0, level=1, clip=0, mix=0.5, hop=1.0, look_in=SAME, own_song=False):
        """What a click shows: a picture of the clip in its tree, its players, and those of its neighbours.

        Parameters
        ----------
        song, level : int
        clip : int
            Counted within the level; a larger number than there is begins anew.
        mix : float
            The nearest of `mixes` is taken.
        hop : float
            Of the log-mel drawn, times the level's own; the vectors are those of the level's own hop.
        look_in, own_song
            As in `neighbours`.

        Returns
        -------
        list of Image and HTML, for explorers.explore
        """
        clip %= self.n_parts**level
        mix = min(self.mixes, key=lambda one: abs(one - mix))
        found = self.neighbours(song, level, clip, look_in, own_song, mix)
        picture = _png(self.draw(song, level, clip, mix, hop, found))
        return [picture, HTML(self._players[song, level, clip]), HTML(self._row(found[:N_PLAYED]))]

    @figures.styled
    def draw(self, song, level, clip, mix, hop, found):
        """The picture of `look`, a matplotlib Figure."""
        fig = Figure(figsize=(figures.WIDTH, 5.9), dpi=figures.STYLE["figure.dpi"], layout="none")
        tree = fig.add_gridspec(self.n_levels, 1, left=0.1, right=0.97, top=0.9, bottom=0.56, hspace=0.35)
        for n in range(self.n_levels):
            self._strip(fig.add_subplot(tree[n]), song, n, level, clip)
        below = fig.add_gridspec(1, 3, left=0.075, right=0.97, top=0.43, bottom=0.1, wspace=0.5, width_ratios=[6, 3, 4])
        self._mel(fig.add_subplot(below[0]), song, level, clip, hop)
        self._attention(fig.add_subplot(below[1]), song, level, clip, mix)
        self._bars(fig.add_subplot(below[2]), found, mix)
        fig.suptitle(f"{self.name(song, level, clip)}\n{self.heading}", fontsize=11, y=0.995)
        return fig

    def _strip(self, axis, song, n, level, clip):
        """One level of the tree; the chosen clip, and what it contains, in full colour."""
        low, high = self._envelopes[song]
        seconds = self.model.n_whole / self.model.sample_rate
        at = np.linspace(0, seconds, len(low))
        axis.fill_between(at, low, high, color=figures.level_colour(n), alpha=0.25, lw=0)
        if n >= level:
            start, end = (seconds * k / self.n_parts**level for k in (clip, clip + 1))
            inside = (at >= start) & (at <= end)
            axis.fill_between(at[inside], low[inside], high[inside], color=figures.level_colour(n), lw=0)
        axis.vlines(np.linspace(0, seconds, self.n_parts**n + 1), -1, 1, color="black", lw=0.8)
        axis.set(xlim=(0, seconds), ylim=(-1, 1), yticks=[], xticks=[])
        axis.set_ylabel(f"level {n}", rotation=0, ha="right", va="center", color=figures.level_colour(n), fontsize=10)
        for side in axis.spines.values():
            side.set_visible(False)
        if n == self.n_levels - 1:
            axis.set_xticks(np.linspace(0, seconds, 5).round(1))
            axis.tick_params(labelsize=9)
            axis.set_xlabel("time [s]", fontsize=9, labelpad=0)

    def _mel(self, axis, song, level, clip, hop):
        mel, length = self.log_mel(song, level, clip, hop)
        seconds = self.clips[level].shape[-1] / self.model.sample_rate
        top = mel.max()
        axis.imshow(
            mel, origin="lower", aspect="auto", extent=(0, seconds, 0, len(mel)), vmin=top - 70, vmax=top,
            interpolation="nearest",
        )  # fmt: skip
        axis.set_title(f"log-mel, hop {length}: {mel.shape[1]} frames", fontsize=10)
        axis.set_xlabel("time in the clip [s]", fontsize=9)
        axis.set_ylabel("mel band", fontsize=9)
        axis.tick_params(labelsize=8)

    def _attention(self, axis, song, level, clip, mix):
        """Heads and layers as rows, the parts as columns."""
        axis.set_title("looks at its parts", fontsize=10)
        found = self.looked_at(song, level, clip, mix)
        if found is None:
            why = "no part-whole block" if self.attention[mix] is None else "a shortest clip\nhas no parts"
            axis.text(0.5, 0.5, why, ha="center", va="center", fontsize=9, transform=axis.transAxes)
            axis.set_axis_off()
            return
        weights, met = found
        n_layers, n_heads, n_parts = weights.shape
        table = weights.reshape(-1, n_parts)
        axis.imshow(table, aspect="auto", vmin=0, vmax=1, cmap="viridis")
        for (row, part), value in np.ndenumerate(table):
            colour = "white" if value < 0.6 else "black"
            axis.text(part, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color=colour)
        axis.set_yticks(range(len(table)), [f"layer {i}, head {h}" for i in range(n_layers) for h in range(n_heads)])
        axis.set_xticks(range(n_parts), [f"part {m}" for m in met])
        axis.tick_params(length=0, labelsize=7.5, pad=1)
        axis.set_xlabel("parts attend to one key: 1.00", fontsize=8)

    def _bars(self, axis, found, mix):
        """The neighbours and their cosines."""
        axis.barh(range(len(found)), [one[0] for one in found], color=[figures.level_colour(one[2]) for one in found])
        for row, (cosine, song, level, clip) in enumerate(found):
            text = f"{self.names[song]}, {level}.{clip}: {cosine:.3f}"
            axis.text(0.02, row, text, transform=axis.get_yaxis_transform(), va="center", fontsize=8)
        axis.set(ylim=(N_NEIGHBOURS - 0.5, -0.5), yticks=[])
        for bar in axis.patches:
            bar.set_alpha(0.4)
        axis.set_title(f"nearest, mix {mix:g}", fontsize=10)
        axis.set_xlabel("cosine (song, level.clip)", fontsize=9)
        axis.tick_params(labelsize=8)

    def _player(self, song, level, clip):
        colour, title = figures.level_colour(level), self.name(song, level, clip)
        return players.player(self.clips[level][song, clip], self.model.sample_rate, title, colour=colour).data

    def _row(self, found):
        cells = "".join(f"<div>{self._players[song, level, clip]}</div>" for _, song, level, clip in found)
        head = '<div style="font-weight:bold;margin-top:6px">its nearest, nearest first</div>'
        return f'{head}<div style="display:flex;flex-wrap:wrap;gap:4px 10px">{cells}</div>'


def _envelope(wave, n_points=640):
    """Lowest and highest sample of equal stretches, as shares of the peak."""
    blocks = wave[: len(wave) // n_points * n_points].reshape(n_points, -1)
    peak = max(float(np.abs(wave).max()), 1e-9)
    return blocks.min(axis=1) / peak, blocks.max(axis=1) / peak


def _png(fig):
    """A figure as a small PNG, drawn once: `figures.image` crops and optimises, which takes longer than a click may."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image as Picture

    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    picture = Picture.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    small = io.BytesIO()
    picture.quantize(N_SHADES, method=Picture.Quantize.FASTOCTREE, dither=Picture.Dither.NONE).save(small, format="png")
    return Image(data=small.getvalue(), format="png")
