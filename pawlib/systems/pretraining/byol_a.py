"""BYOL-A: two distorted pictures of one segment predict each other, without negatives (Niizumi 2021, arXiv 2103.06695).

One segment of a song becomes two views of its log-mel
    pre-norm        less the mean, by the deviation, of everything seen so far
    mixup           log((1 - r) e^x + r e^z): a song of the memory in the background, r = alpha u, u uniform
    resize crop     a random piece of a canvas 1.5 times as long, stretched back to the picture's size
    post-norm       less the mean, by the deviation, of this batch with all its views
and BYOL (Grill 2020) compares them
    online          encoder f, projector g, predictor q:   p = q(g(f(view)))
    target          f', g': the online ones' moving average after each step, w' <- decay w' + (1 - decay) w
    L_b             2 - 2 cos(p_a, g'(f'(b)))  +  2 - 2 cos(p_b, g'(f'(a))), with no gradient through the target

f is what stays. Nothing in the loss keeps the representations of songs apart: a constant one would have loss zero.

What Music-PAW leaves unsaid about its BYOL-A rows, as arguments
    R30  segment_seconds   FCN-4 and FCN-7 see the clips and log-mels of Sec. 4.1 (2.8 s, 128 x 351); "audio_ntt" sees
                           its own (0.95 s, 64 x 96). In dB where the published one takes the natural logarithm: after
                           the pre-norm the same, but for the floor (power 1e-10 here).
    R31  norm_segments     after how many segments the pre-norm stops moving. Published: after 10 epochs of twice the
                           number of files; here never.
    R32  n_memory          2048 places. Published: each view puts its segment in, so they hold 1024 segments, which is
                           what is kept here. That each reading process there has a memory of its own, anew in each
                           epoch, is not copied. A batch draws before it enters.
    R33  mix_domain        published: e^x of the *normalised* log-mel x, so "linear" is power to the 1 / deviation;
                           "energy" mixes powers as sound in a room does.
    R34  batch_norm        published: each view passes the networks in a batch of its own; "joint": both in one.
    R35  decay             the moving average's, constant as published; the online encoder is the one that stays.

State. Statistics of the pre-norm, memory and target change with every step and travel in a run's last.safetensors, so
a stopped run resumes to the bit. The memory is left out of the state dict: a checkpoint has no log-mels in it.
With several devices the batch norms of all networks are synchronised; *not* synchronised are the memory (each device
fills its own, and resumes with the first one's), the pre-norm (the first device's is taken over at each step), and
the post-norm (each device normalises its part of the batch).

Conventions
    wave : Tensor [shape=(B, n_clip)]; mel : Tensor [shape=(B, n_mels, n_frames)], in dB; a view has a channel more.
    Which piece is cut, how much is mixed and which place of the memory, as a share of what it holds, come from a song's
    key; *what* lies there and the statistics come from the steps before. In eval mode nothing of this moves.

Told in: notebooks/14_pretrain_byol_a.ipynb
"""

import copy
import math

import torch
import torch.nn.functional as F
from torch import nn

from pawlib import augment, checkpoints, encoders, fast_layer, mels
from pawlib.systems import agreement

FRONT_END = {"n_fft": 256, "hop_length": 128, "n_mels": 128}  # of Sec. 4.1
NTT_FRONT_END = {"n_fft": 1024, "hop_length": 160, "n_mels": 64, "f_min_hz": 60.0, "f_max_hz": 7800.0}
SEGMENT_SECONDS = {"fcn_4": 2.8, "fcn_7": 2.8, "audio_ntt": 0.95}
NATURAL = math.log(10) / 10  # dB to the natural logarithm of power
CUBIC = -0.75  # the free number of cubic interpolation


# --- the encoder BYOL-A came with ---


class AudioNTT(nn.Module):
    """AudioNTT2020 (Koizumi 2020; Niizumi 2021), d 512: 600,192 parameters, registered in the published order.

    Three layers conv3 64 - BN - ReLU - max pool 2; at each moment left, linear 512 - ReLU - dropout .3 - linear 512 -
    ReLU of its channels and bands; maximum plus mean over time. Input (B, 1, 64, n_frames), normalised: unlike FCN-4 it
    does not begin with a batch norm. Output (B, 512).

    Raises
    ------
    ValueError
        For another number of mel bands, or fewer than 8 frames.

    Told in: notebooks/14_pretrain_byol_a.ipynb
    """

    name = "audio_ntt"
    width = encoders.WIDTH

    def __init__(self, n_mels=64):
        super().__init__()
        self.n_mels = n_mels
        self.layers = nn.ModuleList(encoders.ConvLayer(n_in, 64, 2) for n_in in (1, 64, 64))
        self.dense = nn.Sequential(
            nn.Linear(64 * (n_mels // 8), self.width), nn.ReLU(), nn.Dropout(0.3),
            nn.Linear(self.width, self.width), nn.ReLU(),
        )  # fmt: skip

    def forward(self, mel):
        if mel.ndim != 4 or mel.shape[1:3] != (1, self.n_mels) or mel.shape[3] < 8:
            raise ValueError(
                f"audio_ntt got shape {tuple(mel.shape)}, expected (B, 1, {self.n_mels}, at least 8 frames): is it the "
                "log-mel of another encoder?"
            )
        first, *others = self.layers
        if first.pool_first and not mel.requires_grad and fast_layer.applies(mel):
            x = first.on_picture(mel, mel.new_ones(1), mel.new_zeros(1))  # its full map is never kept
        else:
            x = first(mel)
        for layer in others:
            x = layer(x)  # (B, 64, bands, time) at the end
        x = self.dense(x.permute(0, 3, 2, 1).flatten(2))  # (B, time, 512), channels of a band side by side
        return x.amax(dim=1) + x.mean(dim=1)


# --- the two views ---


class RunningNorm(nn.Module):
    """Pre-norm: less the mean, by the deviation, of every log-mel value seen so far.

    Parameters
    ----------
    n_segments : int, optional
        After so many segments the statistics stay as they are (reading R31).
    """

    def __init__(self, n_segments=None):
        super().__init__()
        self.n_segments = n_segments
        self.register_buffer("n_seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros((), dtype=torch.float64))
        self.register_buffer("var", torch.ones((), dtype=torch.float64))

    @torch.no_grad()
    def see(self, mel):
        """Take segments (B, n_mels, n_frames) into the statistics; all segments are of one size."""
        if self.n_segments is not None:
            mel = mel[: max(0, self.n_segments - int(self.n_seen))]
        if len(mel) == 0:
            return
        var, mean = torch.var_mean(mel.double(), correction=0)
        share = len(mel) / (self.n_seen + len(mel)).double()
        moved = mean - self.mean
        self.var.copy_(self.var.lerp(var, share) + share * (1 - share) * moved.square())
        self.mean.add_(share * moved)
        self.n_seen.add_(len(mel))

    def deviation(self):
        """Standard deviation of what was seen, never zero."""
        return self.var.sqrt().clamp(min=1e-6)

    def forward(self, mel):
        """Any shape in dB -> the same shape, normalised; unchanged while nothing was seen."""
        return (mel - self.mean.to(mel.dtype)) / self.deviation().to(mel.dtype)

    def back(self, x):
        """The way back: normalised -> dB."""
        return x * self.deviation().to(x.dtype) + self.mean.to(x.dtype)


class Memory(nn.Module):
    """The last segments seen, for the background of others: first in, first out, in float16.

    Its tensors are parameters that nobody trains: so they travel with a run that is stopped (and DistributedData-
    Parallel does not send them around at every step). They are left out of the state dict, and so of checkpoints.

    Parameters
    ----------
    n_places : int > 0
    n_mels, n_frames : int
    """

    def __init__(self, n_places, n_mels, n_frames):
        super().__init__()
        self.mels = nn.Parameter(torch.zeros(n_places, n_mels, n_frames, dtype=torch.float16), requires_grad=False)
        self.n_seen = nn.Parameter(torch.zeros((), dtype=torch.int64), requires_grad=False)

    @property
    def n_held(self):
        """How many segments it holds."""
        return min(int(self.n_seen), len(self.mels))

    @torch.no_grad()
    def put(self, mel):
        """Let segments (B, n_mels, n_frames) in; the oldest leave."""
        n_new = len(mel)
        kept = mel[-len(self.mels) :]
        at = (torch.arange(n_new - len(kept), n_new, device=mel.device) + self.n_seen) % len(self.mels)
        self.mels[at] = kept.to(self.mels.dtype)
        self.n_seen.add_(n_new)

    def take(self, places):
        """Segments at shares 0 <= u < 1 of what is held: (B,) floats -> (B, n_mels, n_frames) in float32."""
        at = [int(place * self.n_held) for place in places]
        return self.mels[torch.tensor(at, device=self.mels.device)].float()

    def _save_to_state_dict(self, *_):
        """Nothing: a checkpoint does not need the songs of the last steps."""

    def _load_from_state_dict(self, *_):
        """Nothing, therefore."""


def log_mix_exp(x, z, share):
    """Mix two logarithms in the domain they are logarithms of: log((1 - share) e^x + share e^z).

    Parameters
    ----------
    x, z : Tensor, natural logarithms, of one shape (B, ...)
    share : Tensor [shape=(B,)], 0 <= share < 1
        Of z, the background.

    Returns
    -------
    Tensor, of x's shape. The quieter one leaves no trace where it is much quieter: log-mels of mixed sounds do that.

    Told in: notebooks/14_pretrain_byol_a.ipynb
    """
    share = share.to(x).view(-1, *[1] * (x.ndim - 1))
    return torch.logaddexp(x + torch.log1p(-share), z + torch.log(share))


def resize_crop(mel, pieces, canvas=(1.0, 1.5)):
    """Cut a piece out of a canvas with the picture in its middle and stretch it to the picture's size.

    Both are linear, rows and columns apart: the result is (rows' weights) picture (columns' weights)^T, for the whole
    batch at once. Cubic interpolation, the piece's corners become the result's corners, as published.

    Parameters
    ----------
    mel : Tensor [shape=(B, n_mels, n_frames)]
        Normalised: outside the picture the canvas is zero, the mean.
    pieces : sequence of B dicts
        With top, left, height, width of the piece on the canvas, in bands and frames.
    canvas : (float, float)
        Its size in pictures, (frequency, time).

    Returns
    -------
    Tensor [shape=(B, n_mels, n_frames)]

    Told in: notebooks/14_pretrain_byol_a.ipynb
    """
    _, n_mels, n_frames = mel.shape
    at = {name: torch.tensor([piece[name] for piece in pieces]) for name in ("top", "left", "height", "width")}
    above, before = ((n - m) // 2 for n, m in zip(_canvas_size(mel.shape[1:], canvas), mel.shape[1:], strict=True))
    rows = _stretch(at["top"] - above, at["height"], n_mels).to(mel)
    columns = _stretch(at["left"] - before, at["width"], n_frames).to(mel)
    return rows @ mel @ columns.transpose(1, 2)


# --- BYOL ---


class Perceptron(nn.Module):
    """Projector and predictor: linear 4096 - batch norm - ReLU - linear 256: (B, n_in) -> (B, 256).

    The batch norm is that of the encoders, which several devices share.
    """

    def __init__(self, n_in, n_hidden=4096, n_out=256):
        super().__init__()
        self.hidden, self.norm = nn.Linear(n_in, n_hidden), encoders.BatchNorm(n_hidden)
        self.out = nn.Linear(n_hidden, n_out)

    def forward(self, x):
        return self.out(F.relu(self.norm(self.hidden(x)[..., None, None]).flatten(1)))


class BYOLA(nn.Module):
    """BYOL-A with an encoder of the paper or its own.

    Parameters
    ----------
    encoder : "fcn_4" | "fcn_7" | "audio_ntt"
    sample_rate : int [Hz]
    segment_seconds : float [s], optional
        By default 2.8, and 0.95 for "audio_ntt" (reading R30).
    norm_segments : int, optional
        Reading R31.
    alpha : float, 0 <= alpha < 1
        Largest share of the background in the mixup.
    n_memory : int, at least 2
        Places of the memory, two per segment (reading R32).
    mix_domain : "normalised" | "energy"
        Reading R33.
    canvas : (float, float)
        Size of the virtual canvas in pictures, (frequency, time).
    scale : (float, float)
        Smallest and largest piece that is cut, in pictures, for either axis.
    batch_norm : "per_view" | "joint"
        Reading R34.
    decay : float, 0..1
        Of the target's moving average (reading R35).

    Raises
    ------
    ValueError
        For an unknown encoder or switch, or a number out of its range.

    Told in: notebooks/14_pretrain_byol_a.ipynb
    """

    slug = "byol_a"
    LEARNING_RATE = 3e-4  # Adam's, as published and in Sec. 4.1
    width = encoders.WIDTH
    n_levels = n_parts = 1

    def __init__(
        self,
        encoder="fcn_4",
        *,
        sample_rate=16_000,
        segment_seconds=None,
        norm_segments=None,
        alpha=0.4,
        n_memory=2048,
        mix_domain="normalised",
        canvas=(1.0, 1.5),
        scale=(0.6, 1.5),
        batch_norm="per_view",
        decay=0.99,
    ):
        super().__init__()
        arguments = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        self.settings = {"slug": self.slug, **arguments, "canvas": list(canvas), "scale": list(scale)}
        _check(encoder, alpha, n_memory, mix_domain, canvas, scale, batch_norm, decay)
        self.alpha, self.mix_domain, self.canvas, self.scale = alpha, mix_domain, tuple(canvas), tuple(scale)
        self.batch_norm, self.decay, self.sample_rate = batch_norm, decay, sample_rate
        front_end = NTT_FRONT_END if encoder == AudioNTT.name else FRONT_END
        self.n_whole = self.n_clip = round((segment_seconds or SEGMENT_SECONDS[encoder]) * sample_rate)
        self.log_mel = mels.LogMel(sample_rate, **front_end)
        self.size = (front_end["n_mels"], 1 + self.n_clip // front_end["hop_length"])
        self.pre_norm = RunningNorm(norm_segments)
        self.memory = Memory(n_memory // 2, *self.size)
        self.encoder = AudioNTT() if encoder == AudioNTT.name else encoders.build(encoder)
        self.projector, self.predictor = Perceptron(self.width), Perceptron(256)
        self.target = copy.deepcopy(nn.ModuleList([self.encoder, self.projector])).requires_grad_(False)

    # --- what a step sees ---

    def draw(self, keys, view):
        """What view 0 or 1 of each song undergoes, from the keys alone: a list of dicts of plain numbers.

        share (of the background), place (in the memory, 0 to 1), and top, left, height, width of the piece.
        """
        n_rows, n_columns = _canvas_size(self.size, self.canvas)
        drawn = []
        for key in keys:
            generator = torch.Generator().manual_seed(augment.sample_key(key, 1 + view))
            u = torch.rand(6, generator=generator, dtype=torch.float64).tolist()
            height, width = (
                min(max(int((self.scale[0] + (self.scale[1] - self.scale[0]) * v) * n), 1), most)
                for v, n, most in zip(u[2:4], self.size, (n_rows, n_columns), strict=True)
            )
            top, left = int(u[4] * (n_rows - height + 1)), int(u[5] * (n_columns - width + 1))
            drawn.append(
                {"share": self.alpha * u[0], "place": u[1], "top": top, "left": left, "height": height, "width": width}
            )
        return drawn

    def views(self, wave, keys):
        """Two views of each song; in training the pre-norm and the memory take the batch in.

        Parameters
        ----------
        wave : Tensor [shape=(B, n_clip)]
        keys : sequence of B int

        Returns
        -------
        view_a, view_b : Tensor [shape=(B, 1, n_mels, n_frames)]
            Normalised, mixed, cropped; the post-norm is `forward`'s, as it belongs to the batch.

        Raises
        ------
        ValueError
            If a wave is not n_clip samples long, or there is not one key per song.
        """
        if wave.ndim != 2 or wave.shape[1] != self.n_clip or len(keys) != len(wave):
            raise ValueError(
                f"byol_a got a wave of shape {tuple(wave.shape)} and {len(keys)} keys, expected (B, {self.n_clip}) and "
                f"one key per song: its segments are {self.n_clip / self.sample_rate:g} s long"
            )
        with torch.no_grad():
            mel = self.log_mel(wave)  # (B, n_mels, n_frames)
            if self.training:
                self.pre_norm.see(mel)
            both = [resize_crop(self.mixed(mel, songs), songs, self.canvas).unsqueeze(1) for songs in self._drawn(keys)]
            if self.training:
                self.memory.put(mel)
        return tuple(both)

    def mixed(self, mel, songs):
        """Normalised log-mels with a background from the memory; without one while the memory is empty.

        Parameters
        ----------
        mel : Tensor [shape=(B, n_mels, n_frames)], in dB
        songs : list of B dicts of `draw`

        Returns
        -------
        Tensor [shape=(B, n_mels, n_frames)], normalised
        """
        if self.memory.n_held == 0:
            return self.pre_norm(mel)
        background = self.memory.take([song["place"] for song in songs])
        share = torch.tensor([song["share"] for song in songs], device=mel.device)
        if self.mix_domain == "energy":  # reading R33
            return self.pre_norm(log_mix_exp(mel * NATURAL, background * NATURAL, share) / NATURAL)
        return log_mix_exp(self.pre_norm(mel), self.pre_norm(background), share)

    # --- what it learns from ---

    def forward(self, view_a, view_b):
        """Predictions of the online networks, projections of the target, and the representations they come from.

        Parameters
        ----------
        view_a, view_b : Tensor [shape=(B, 1, n_mels, n_frames)]

        Returns
        -------
        p_a, p_b : Tensor [shape=(B, 256)]
            Predictions.
        t_a, t_b : Tensor [shape=(B, 256)]
            The target's projections, without gradient.
        s_a, s_b : Tensor [shape=(B, 512)]
            The encoder's features, without gradient: for the logs.
        """
        pictures = self._groups(self._post_norm(torch.cat([view_a, view_b])))
        s = [self.encoder(picture) for picture in pictures]
        p = torch.cat([self.predictor(self.projector(group)) for group in s])
        encoder, projector = self.target
        with torch.no_grad():
            t = torch.cat([projector(encoder(picture)) for picture in pictures])
        return *p.chunk(2), *t.chunk(2), *torch.cat(s).detach().chunk(2)

    def objective(self, p_a, p_b, t_a, t_b, s_a, s_b):
        """Symmetric loss of each song, 0 to 8, and what an epoch logs.

        Returns
        -------
        loss : Tensor [shape=(B,)]
        logs : dict of float
            alignment and uniformity of the encoder's features; deviation and deviation_projected: the standard
            deviation of unit features and of the target's unit projections over songs, times the root of their number.
            1 where songs point anywhere, 0 where all are alike: collapsed.
        """
        loss = _apart(p_a, t_b) + _apart(p_b, t_a)
        logs = {"deviation": _spread(s_a), "deviation_projected": _spread(t_a)}
        return loss, {**agreement.of_views(s_a, s_b), **logs}

    @torch.no_grad()
    def after_step(self):
        """Let the target follow the online networks: w' <- decay w' + (1 - decay) w, after each optimiser step."""
        online = nn.ModuleList([self.encoder, self.projector])
        for own, new in zip(self.target.parameters(), online.parameters(), strict=True):
            own.lerp_(new, 1 - self.decay)

    # --- what stays ---

    def embed_clips(self, clips, level=0):
        """The online encoder's features: (K, n_clip) at the model's rate -> (K, 512). There is one level.

        FCN-4 and FCN-7 take the log-mel in dB, as with every other system; AudioNTT takes it normalised by the
        statistics of the pre-norm.
        """
        mel = self.log_mel(clips).unsqueeze(1)
        return self.encoder(self.pre_norm(mel) if self._takes_normalised else mel)

    def save(self, path, card=None):
        """Write weights and card (checkpoints.save), of kind "pretraining"; without the memory."""
        checkpoints.save(self, path, "pretraining", card)

    @property
    def _takes_normalised(self):
        return isinstance(self.encoder, AudioNTT)

    def _drawn(self, keys):
        return (self.draw(keys, view) for view in range(2))

    def _groups(self, pictures):
        """(2 B, ...) as the batches that pass the networks (reading R34)."""
        return pictures.chunk(2) if self.batch_norm == "per_view" else [pictures]

    def _post_norm(self, views):
        """All views (2 B, 1, n_mels, n_frames) by their mean and deviation; for FCN-4 and FCN-7 taken back to dB.

        Those begin with a batch norm: for them the scale changes no training step, but the encoder that stays then
        knows the dB of every other system's.
        """
        std, mean = torch.std_mean(views)
        views = (views - mean) / std.clamp(min=1e-6)
        return views if self._takes_normalised else self.pre_norm.back(views)


def _apart(p, t):
    """2 - 2 cos, the squared distance of unit vectors: (B, D) twice -> (B,)."""
    return 2 - 2 * F.cosine_similarity(fast_layer.at_least_float32(p), fast_layer.at_least_float32(t), dim=-1)


def _spread(x):
    """Deviation over songs of unit vectors along (B, D), times the root of D: a float, about 1 for any directions."""
    unit = F.normalize(fast_layer.at_least_float32(x), dim=-1)
    return (unit.std(dim=0, correction=0).mean() * unit.shape[1] ** 0.5).item()


def _canvas_size(size, canvas):
    return tuple(int(n * times) for n, times in zip(size, canvas, strict=True))


def _stretch(start, length, n):
    """Weights that cut `length` values from `start` on and stretch them to n: (B,) twice -> (B, n, n).

    Row i of a matrix says what the result's value i is made of. Values outside 0..n-1 are zeros.
    """
    at = torch.arange(n, dtype=torch.float64) * (length.double().unsqueeze(1) - 1) / (n - 1)  # (B, n), in the piece
    below = at.floor()
    t = (at - below).unsqueeze(-1)
    far, near = (torch.cat([t + 1, 2 - t], -1), torch.cat([t, 1 - t], -1))
    far = CUBIC * (far**3 - 5 * far**2 + 8 * far - 4)
    near = (CUBIC + 2) * near**3 - (CUBIC + 3) * near**2 + 1
    weights = torch.stack([far[..., 0], near[..., 0], near[..., 1], far[..., 1]], dim=-1)  # (B, n, 4)
    taps = below.long().unsqueeze(-1) + torch.arange(-1, 3)
    taps = torch.minimum(taps.clamp(min=0), (length - 1).view(-1, 1, 1)) + start.view(-1, 1, 1)  # in the picture
    weights = weights * ((taps >= 0) & (taps < n))
    return torch.zeros(len(start), n, n, dtype=torch.float64).scatter_add_(2, taps.clamp(0, n - 1), weights)


def _check(encoder, alpha, n_memory, mix_domain, canvas, scale, batch_norm, decay):
    """Refuse what no run should begin with."""
    switches = {
        "encoder": (encoder, tuple(SEGMENT_SECONDS), "R30"),
        "mix_domain": (mix_domain, ("normalised", "energy"), "R33"),
        "batch_norm": (batch_norm, ("per_view", "joint"), "R34"),
    }
    for name, (value, choices, reading) in switches.items():
        if value not in choices:
            raise ValueError(f"{name}={value!r} is unknown, expected one of {', '.join(choices)} (reading {reading})")
    if n_memory < 2:
        raise ValueError(f"n_memory={n_memory} places hold no segment, expected at least 2, one per view (reading R32)")
    if not (0 <= alpha < 1 and 0 <= decay <= 1):
        raise ValueError(f"alpha={alpha}, decay={decay} are wrong, expected 0 <= alpha < 1 and 0 <= decay <= 1")
    if min(canvas) < 1 or not 0 < scale[0] <= scale[1]:
        raise ValueError(
            f"canvas={canvas}, scale={scale} are wrong, expected a canvas of at least 1 and 0 < low <= high"
        )
