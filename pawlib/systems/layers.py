"""What several systems of Table 1 are made of: blocks, heads, front-ends, and copying published weights.

Conventions
    B waves in a batch: `wave` (B, n_samples), mono. Two dimensions: x (B, channels, mel bands or frequencies, frames);
    one dimension: x (B, channels, samples or frames).
    conv3 is a convolution 3 x 3 (or of 3) with bias that keeps the size; "BN" is batch norm.
    Parameters and buffers are registered in the order in which the published networks have theirs
    (github minzwon/sota-music-tagging-models), so that `copy_in_order` can bring weights over.
    Front-ends and heads work in float32 whatever autocast says; what a front-end cannot learn runs without gradients.
    A ReLU before a max pool is taken after it: the same numbers, as neither changes an order, of a smaller map.
    A batch norm at rest, where nothing is learnt, goes into the kernels before it (`normed`). `pool_first` False is the
    plain order of any block, in which every layer is called as it is printed (costs.count needs that).

Told in: notebooks/04_encoders.ipynb
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from pawlib import encoders, fast_layer, mels

BLOCK = 8  # places of a kernel in frequency that one product answers: with more of them it multiplies more zeros
LARGE = 1_000_000  # values of one song's map from which on it is worth not to write it out

# --- what all taggers share ---


class Tagger(nn.Module):
    """A wave (B, n_samples) to logits (B, n_classes), in three steps: front_end, features, head.

    The sigmoid (MagnaTagATune) or softmax (GTZAN) belongs to the loss.

    Attributes
    ----------
    slug : str
    TABLE1 : dict
        Constructor arguments of the network that Table 1 counts; its input is then 16 waves of `n_samples`.
    sample_rate : int [Hz]
    n_samples : int
        Length of the input.
    settings : dict
        Constructor arguments, with slug and n_classes: `systems.build(**settings)` has the same geometry.
    """

    slug = ""
    TABLE1 = {"n_classes": 10}

    def __init__(self, sample_rate, n_samples, **settings):
        super().__init__()
        self.sample_rate, self.n_samples = sample_rate, n_samples
        self.settings = {"slug": self.slug, **settings}

    def forward(self, wave):
        """(B, n_samples) -> logits (B, n_classes).

        Raises
        ------
        ValueError
            For another shape than (B, n_samples), or for samples that are not finite numbers.
        """
        x = self.features(self.front_end(wave))
        with torch.autocast(wave.device.type, enabled=False):  # scores of half precision would tie, and ties cost AUC
            return self.head(x.to(next(self.parameters()).dtype))

    def front_end(self, wave):
        """(B, n_samples) -> what `features` eats: a spectrogram, or the wave with its channel (B, 1, n_samples)."""
        return self.check(wave).unsqueeze(1)

    def features(self, x):
        """What the front-end gives -> (B, width), what the head eats."""
        raise NotImplementedError

    def check(self, wave):
        """The wave in float32, if it is (B, n_samples) and finite."""
        if wave.ndim != 2 or wave.shape[1] != self.n_samples:
            raise ValueError(
                f"{self.slug} got a wave of shape {tuple(wave.shape)}, expected (B, {self.n_samples}): mono, "
                f"{self.n_samples / self.sample_rate:.2f} s at {self.sample_rate} Hz; was it cut to another length, or "
                "read at another rate?"
            )
        wave = fast_layer.at_least_float32(wave)
        if not torch.compiler.is_compiling() and not torch.isfinite(wave.detach().sum()):
            bad = (~torch.isfinite(wave)).any(dim=1).nonzero().flatten().tolist()
            raise ValueError(
                f"{self.slug} got NaN or infinite samples in waves {bad} of the batch, expected finite ones: is a file "
                "damaged, or was silence divided by its own loudness?"
            )
        return wave


class MelTagger(Tagger):
    """A tagger whose front-end is a log-mel spectrogram (mels.LogMel): (B, 1, n_mels, 1 + n_samples // hop_length).

    The batch norm over its single channel is the first layer of `features`.
    """

    def __init__(self, sample_rate, n_samples, n_fft, hop_length, n_mels, **settings):
        super().__init__(sample_rate, n_samples, **settings)
        self.log_mel = mels.LogMel(sample_rate, n_fft, hop_length, n_mels)
        self.n_mels, self.n_frames = n_mels, 1 + n_samples // hop_length

    def front_end(self, wave):
        """(B, n_samples) -> log-mel in dB (B, 1, n_mels, n_frames), without gradient."""
        wave = self.check(wave)
        with torch.no_grad():
            return self.log_mel(wave).unsqueeze(1)


class ConvStack(encoders.Trunk):
    """BN of the picture, then conv3 - BN - ReLU - max pool several times, pooled first (encoders.ConvLayer).

    Parameters
    ----------
    name : str
        Whose stack it is, for error messages.
    channels : sequence of int
    pools : sequence of (int, int)
        Over (frequency, time).
    """

    def __init__(self, name, channels, pools):
        super().__init__(channels, pools, pool_first=True)
        self.name, self.pools = name, pools

    def forward(self, mel):
        """(B, 1, n_mels, n_frames) -> (B, channels[-1], bands, frames)."""
        return self.maps(mel)

    def left_of(self, n_mels, n_frames):
        """(bands, frames) that the pools leave of a picture; ValueError if that is nothing."""
        bands, frames = n_mels, n_frames
        for pool in self.pools:
            bands, frames = bands // pool[0], frames // pool[1]
        if min(bands, frames) < 1:
            raise ValueError(
                f"{self.name}: a picture of {n_mels} bands x {n_frames} frames pools down to {bands} x {frames}, "
                "expected at least 1 x 1: is the audio too short, or the hop too long?"
            )
        return bands, frames


def dropout_head(n_in, n_classes):
    """Dropout .5 - linear: (B, n_in) -> (B, n_classes)."""
    return nn.Sequential(nn.Dropout(0.5), nn.Linear(n_in, n_classes))


def dense_head(n_in, n_hidden, n_classes):
    """Linear - BN - ReLU - dropout .5 - linear: (B, n_in) -> (B, n_hidden) -> (B, n_classes)."""
    return nn.Sequential(
        nn.Linear(n_in, n_hidden), nn.BatchNorm1d(n_hidden), nn.ReLU(), nn.Dropout(0.5), nn.Linear(n_hidden, n_classes)
    )


def normed(conv, norm, x, folded=True):
    """norm(conv(x)); where nothing is learnt the norm goes into the kernels, and its pass over the map is saved.

    Parameters
    ----------
    conv : Conv1d or torch.nn.Conv2d
        With bias.
    norm : BatchNorm1d or torch.nn.BatchNorm2d
    x : Tensor
    folded : bool
        False: never.
    """
    if not folded or norm.training or torch.is_grad_enabled():
        return norm(conv(x))
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    weight = conv.weight * scale.view(-1, *[1] * (conv.weight.ndim - 1))
    bias = (conv.bias - norm.running_mean) * scale + norm.bias
    return torch.func.functional_call(conv, {"weight": weight, "bias": bias}, (x,))


def relu(x):
    """ReLU of a map that nothing else reads: in its place where nothing is learnt."""
    return F.relu(x, inplace=not torch.is_grad_enabled())


# --- two dimensions ---


class Residual2d(nn.Module):
    """ReLU(BN(conv3(ReLU(BN(conv3(x))))) + shortcut(x)), max pooled where there is a pool (He 2016; Won 2020).

    The stride belongs to the first convolution. The shortcut is x itself, or BN(conv3(x)) with the same stride where
    stride or channels change the shape.

    Parameters
    ----------
    n_in, n_out : int
        Channels.
    stride, pool : int or (int, int)
        Over (frequency, time).
    """

    def __init__(self, n_in, n_out, stride=1, pool=None):
        super().__init__()
        self.conv_1, self.norm_1 = nn.Conv2d(n_in, n_out, 3, stride, padding=1), nn.BatchNorm2d(n_out)
        self.conv_2, self.norm_2 = nn.Conv2d(n_out, n_out, 3, padding=1), nn.BatchNorm2d(n_out)
        self.reshapes = stride not in (1, (1, 1)) or n_in != n_out
        if self.reshapes:
            self.conv_3, self.norm_3 = nn.Conv2d(n_in, n_out, 3, stride, padding=1), nn.BatchNorm2d(n_out)
        self.pool, self.pool_first = nn.Identity() if pool is None else nn.MaxPool2d(pool), True

    def forward(self, x):
        """(B, n_in, H, W) -> (B, n_out, ceil(H / stride), ceil(W / stride)), floored by the pool."""
        inner = relu(normed(self.conv_1, self.norm_1, x, self.pool_first))
        out = normed(self.conv_2, self.norm_2, inner, self.pool_first)
        out = out + (normed(self.conv_3, self.norm_3, x, self.pool_first) if self.reshapes else x)
        return relu(self.pool(out))


class VerticalConv(nn.Module):
    """Convolution as tall as an instrument's timbre - BN - ReLU - maximum over frequency (Pons 2018).

    Parameters
    ----------
    n_out : int
        Channels.
    kernel : (int, int)
        Bands, frames; padded in time alone.
    """

    def __init__(self, n_out, kernel):
        super().__init__()
        self.conv = nn.Conv2d(1, n_out, kernel, padding=(0, kernel[1] // 2))
        self.norm, self.pool_first = nn.BatchNorm2d(n_out), True

    def forward(self, x):
        """(B, 1, n_mels, n_frames) -> (B, n_out, n_frames)."""
        if self.pool_first and fast_layer.applies(x) and not (self.training or torch.is_grad_enabled()):
            return self._at_rest(x)
        return self._norm_max_relu(self.conv(x))

    def _at_rest(self, x):
        """The layer where nothing is learnt, the norm in the kernels: BLOCK places in frequency at once.

        A product of the bands that these places see with BLOCK copies of each kernel, one a band above the other. The
        last block overlaps the one before: to a maximum that is nothing.
        """
        n_bands, n_frames = self.conv.kernel_size
        scale = self.norm.weight * torch.rsqrt(self.norm.running_var + self.norm.eps)
        shift = (self.conv.bias - self.norm.running_mean) * scale + self.norm.bias
        kernel = self.conv.weight.squeeze(1) * scale.view(-1, 1, 1)  # (n_out, n_bands, n_frames)
        n_places = x.shape[2] - n_bands + 1
        n_block = min(BLOCK, n_places)
        moved = [F.pad(kernel, (0, 0, above, n_block - 1 - above)) for above in range(n_block)]
        weight = torch.stack(moved).flatten(2).flatten(0, 1)  # (n_block * n_out, bands seen * n_frames)
        first = [*range(0, n_places - n_block, n_block), n_places - n_block]
        asked = torch.is_autocast_enabled("cpu") and x.dtype != torch.float64
        both = F.pad(x.to(torch.get_autocast_dtype("cpu")) if asked else x, (n_frames // 2,) * 2).squeeze(1)
        both = both.unfold(2, n_frames, 1).transpose(1, 2)  # (B, time, n_mels, n_frames)
        rows = torch.stack([both[:, :, at : at + n_bands + n_block - 1].flatten(2) for at in first], dim=2)
        out = F.linear(rows, weight.to(rows.dtype)).unflatten(-1, (n_block, -1))  # (B, time, blocks, n_block, n_out)
        return relu(out.amax(dim=(2, 3)) + shift).transpose(1, 2)

    def on_picture(self, picture, gain, offset):
        """The layer of gain * picture + offset, for a picture (B, 1, n_mels, n_frames) that needs no gradient.

        One product of patches and kernels. Gain and offset go into the kernels: gain scales them, and the offset meets
        a kernel's sum over the bands, wherever the picture is not padded. So the costliest gradient here, by the
        picture, is never asked for.
        """
        n_bands, n_frames = self.conv.kernel_size
        if torch.is_autocast_enabled("cpu") and picture.dtype != torch.float64:
            picture = picture.to(torch.get_autocast_dtype("cpu"))
        both = F.pad(torch.cat([picture, torch.ones_like(picture[:, :, :1])], dim=2), (n_frames // 2,) * 2)
        both = both.squeeze(1).unfold(2, n_frames, 1)  # (B, n_mels + 1, time, n_frames)
        patches = both[:, :-1].unfold(1, n_bands, 1).movedim(-1, 3)  # (B, places, time, n_bands, n_frames)
        ones = both[:, -1, None, :, None].expand(-1, patches.shape[1], -1, -1, -1)
        kernel = torch.cat([gain * self.conv.weight, offset * self.conv.weight.sum(2, keepdim=True)], dim=2)
        raw = F.linear(torch.cat([patches, ones], dim=3).flatten(3), kernel.flatten(1), self.conv.bias)
        return self._norm_max_relu(raw.permute(0, 3, 1, 2))

    def _norm_max_relu(self, raw):
        return F.relu(F.max_pool2d(self.norm(raw), (raw.shape[2], 1)).squeeze(2))


# --- one dimension ---


class Conv1d(nn.Conv1d):
    """torch.nn.Conv1d, with a sample's channels side by side in memory: a CPU is a third faster at such layers."""

    def forward(self, x):
        """(B, n_in, L) -> (B, n_out, L // stride)."""
        if x.device.type != "cpu":
            return super().forward(x)
        if self.in_channels == 1 and self.stride == self.kernel_size:  # a wave cut into pieces: one product
            pieces = F.pad(x.squeeze(1), self.padding * 2).unfold(1, *self.kernel_size, *self.stride)
            return F.linear(pieces, self.weight.flatten(1), self.bias).transpose(1, 2)
        x = x.unsqueeze(2).contiguous(memory_format=torch.channels_last)  # (B, n_in, 1, L)
        x = F.conv2d(x, self.weight.unsqueeze(2), self.bias, (1, *self.stride), (0, *self.padding))
        return x.contiguous(memory_format=torch.channels_last).squeeze(2)  # of one input channel it comes otherwise


class BatchNorm1d(nn.BatchNorm2d):
    """torch.nn.BatchNorm1d of (B, C, L), whatever the order in memory."""

    def forward(self, x):
        return super().forward(x.unsqueeze(2)).squeeze(2)


class Conv1dLayer(nn.Module):
    """Convolution with bias - BN - ReLU - max pool in one dimension (Lee 2017).

    On a CPU two kinds of it have a faster order of the same work, as the encoders have: kernels that cut a wave into
    pieces, and pools of maps that are LARGE. `pool_first` False is the plain order.

    Parameters
    ----------
    n_in, n_out : int
        Channels.
    kernel, stride, pool : int
    """

    def __init__(self, n_in, n_out, kernel=3, stride=1, pool=1):
        super().__init__()
        self.conv = Conv1d(n_in, n_out, kernel, stride, padding=kernel // 2)
        self.norm = BatchNorm1d(n_out)
        self.pool, self.pool_first = pool, True

    def forward(self, x):
        """(B, n_in, L) -> (B, n_out, L // stride // pool)."""
        if self.pool_first and fast_layer.applies(x):
            (kernel,), (stride,) = self.conv.kernel_size, self.conv.stride
            if self.conv.in_channels == 1 and stride == kernel and not x.requires_grad:
                return max_pool1d(self._of_pieces(x), self.pool)
            if self.pool > 1 and stride == 1 and self.conv.out_channels * x.shape[2] > LARGE:
                return self._pool_first(x)
        return relu(max_pool1d(normed(self.conv, self.norm, x, self.pool_first), self.pool))

    def _of_pieces(self, x):
        """Convolution, norm and ReLU of a wave (B, 1, L) cut into pieces, one kernel each: a single product.

        Mean and variance of w.p over all pieces p are w.E[p] and w.Cov[p]w, so they are known before any map is there,
        and the norm goes into the kernels. None of this is an approximation, and autograd finds its gradients.
        """
        (kernel,), (pad,) = self.conv.kernel_size, self.conv.padding
        pieces = F.pad(fast_layer.at_least_float32(x.detach().squeeze(1)), (pad, pad)).unfold(1, kernel, kernel)
        weight, bias = self.conv.weight.flatten(1), self.conv.bias  # (n_out, kernel)
        mean, var = self.norm.running_mean, self.norm.running_var
        if self.training:
            rows = pieces.flatten(0, 1).double()  # (B * L // kernel, kernel)
            middle = rows.mean(0)
            spread = torch.cov(rows.T, correction=0).view(kernel, kernel)
            wide = weight.double()
            mean, var = wide @ middle + bias, torch.einsum("ci,ij,cj->c", wide, spread, wide)
            mean, var = mean.to(weight), var.clamp_min(0).to(weight)
            _track(self.norm, mean, var, len(rows))
        scale = self.norm.weight * torch.rsqrt(var + self.norm.eps)
        shift = (bias - mean) * scale + self.norm.bias
        asked = torch.is_autocast_enabled("cpu") and pieces.dtype != torch.float64
        rows = pieces.flatten(0, 1).to(torch.get_autocast_dtype("cpu") if asked else pieces.dtype)
        out = _LinearReLU.apply(rows, weight * scale.unsqueeze(1), shift)
        return out.unflatten(0, pieces.shape[:2]).transpose(1, 2)  # (B, n_out, L // kernel), channels side by side

    def _pool_first(self, x):
        """The layer with the maximum before norm and ReLU, as in encoders.ConvLayer: equal, of a smaller map."""
        weight, bias = self.conv.weight.unsqueeze(2), self.conv.bias
        sign = torch.where(self.norm.weight < 0, -1.0, 1.0).to(weight)
        signed = weight * sign.view(-1, 1, 1, 1)
        pooled, mean, var = fast_layer.conv_pool(x.unsqueeze(2), signed, (1, self.pool), self.training)
        if self.training:
            mean = mean * sign + bias
            _track(self.norm, mean, var, x.shape[0] * x.shape[2])
        else:
            mean, var = self.norm.running_mean, self.norm.running_var
        scale = self.norm.weight * torch.rsqrt(var + self.norm.eps)
        shift = (bias - mean) * scale + self.norm.bias
        return fast_layer.scale_shift_relu(pooled, scale * sign, shift).squeeze(2)


class _LinearReLU(torch.autograd.Function):
    """relu(rows weight^T + bias) of many short rows (N, k) that need no gradient, some at a time (fast_layer.py)."""

    @staticmethod
    def forward(ctx, rows, weight, bias):
        kernel, shift = weight.to(rows.dtype).T.contiguous(), bias.to(rows.dtype)
        out = rows.new_empty(len(rows), len(weight))

        def block(some, result):
            torch.addmm(shift, some, kernel, out=result).relu_()

        ctx.n_rows = max(1, fast_layer.BLOCK // 3 // len(weight))
        fast_layer.over_blocks(block, rows.split(ctx.n_rows), out.split(ctx.n_rows))
        ctx.save_for_backward(rows, out)
        return out

    @staticmethod
    def backward(ctx, g):
        def block(some, result, g_some):
            passed = torch.ops.aten.threshold_backward(g_some, result, 0)
            return fast_layer.at_least_float32(some.T @ passed), fast_layer.at_least_float32(passed).sum(0)

        parts = (x.split(ctx.n_rows) for x in (*ctx.saved_tensors, g))
        g_kernel, g_bias = map(sum, zip(*fast_layer.over_blocks(block, *parts), strict=True))
        return None, g_kernel.T, g_bias


@torch.no_grad()
def _track(norm, mean, var, n):
    """Move a batch norm's running estimates, as torch's own does: mean and unbiased variance of n values."""
    norm.running_mean.lerp_(mean.to(norm.running_mean), norm.momentum)
    norm.running_var.lerp_((var * (n / (n - 1))).to(norm.running_var), norm.momentum)
    norm.num_batches_tracked.add_(1)


class ResidualSE1d(nn.Module):
    """Two convolutions, squeeze-excitation, shortcut, ReLU, max pool, in one dimension (Kim 2018).

    Squeeze-excitation weighs every channel by sigmoid(linear(ReLU(linear(its mean over time)))), as many hidden units
    as channels (ratio 1). The shortcut is that of `Residual2d`.

    Parameters
    ----------
    n_in, n_out : int
        Channels.
    kernel, stride, pool : int
    """

    def __init__(self, n_in, n_out, kernel=3, stride=1, pool=1):
        super().__init__()
        pad = kernel // 2
        self.conv_1, self.norm_1 = Conv1d(n_in, n_out, kernel, stride, padding=pad), BatchNorm1d(n_out)
        self.conv_2, self.norm_2 = Conv1d(n_out, n_out, kernel, padding=pad), BatchNorm1d(n_out)
        self.squeeze, self.excite = nn.Linear(n_out, n_out), nn.Linear(n_out, n_out)
        self.reshapes = stride != 1 or n_in != n_out
        if self.reshapes:
            self.conv_3, self.norm_3 = Conv1d(n_in, n_out, kernel, stride, padding=pad), BatchNorm1d(n_out)
        self.pool, self.pool_first = pool, True

    def forward(self, x):
        """(B, n_in, L) -> (B, n_out, L // stride // pool)."""
        inner = relu(normed(self.conv_1, self.norm_1, x, self.pool_first))
        out = normed(self.conv_2, self.norm_2, inner, self.pool_first)
        shortcut = normed(self.conv_3, self.norm_3, x, self.pool_first) if self.reshapes else x
        out = torch.addcmul(shortcut, out, self.weights(out).unsqueeze(-1).to(out.dtype))
        return relu(max_pool1d(out, self.pool))

    def weights(self, x):
        """How much each channel counts, 0 to 1: (B, C, L) -> (B, C)."""
        return torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean(dim=-1)))))


def max_pool1d(x, pool):
    """Maximum of every `pool` neighbours: (B, C, L) -> (B, C, L // pool), memory in x's order."""
    return x if pool == 1 else F.max_pool2d(x.unsqueeze(2), (1, pool)).squeeze(2)


# --- harmonic front-end ---


class HarmonicSTFT(nn.Module):
    """Spectrogram through triangular filters at the harmonics of equally tempered notes (Won 2020), in dB.

    Filter h, k has its centre at h times the note k's frequency and the bandwidth (0.1079 f + 24.7 Hz) / Q, which is an
    auditory filter's (Glasberg and Moore 1990) but for Q, which is learnt; it falls to 0 half a bandwidth away.

    Parameters
    ----------
    sample_rate : int [Hz]
    n_fft, hop_length : int [samples]
    n_harmonics : int
        1 is the note itself. Notes end below the semitone nearest to the pitch whose highest harmonic is half the
        sample rate: with 6 at 16 kHz before E6, so that there are 128.
    per_semitone : int
        Notes a semitone, from C1 (32.7 Hz) on.
    """

    SLOPE, FLOOR_HZ, LOWEST_MIDI = 0.1079, 24.7, 24

    def __init__(self, sample_rate=16_000, n_fft=512, hop_length=256, n_harmonics=6, per_semitone=2):
        super().__init__()
        self.sample_rate, self.n_fft, self.hop_length, self.n_harmonics = sample_rate, n_fft, hop_length, n_harmonics
        self.q = nn.Parameter(torch.ones(1))
        highest_midi = round(69 + 12 * np.log2(sample_rate / (2 * n_harmonics) / 440))
        midi = self.LOWEST_MIDI + np.arange((highest_midi - self.LOWEST_MIDI) * per_semitone) / per_semitone
        notes_hz = 440 * 2 ** ((midi - 69) / 12)
        centres_hz = np.outer(np.arange(1, n_harmonics + 1), notes_hz).ravel()
        self.n_notes = len(notes_hz)
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        self.register_buffer("centres_hz", torch.tensor(centres_hz, dtype=torch.float32), persistent=False)
        bins_hz = torch.linspace(0, sample_rate / 2, n_fft // 2 + 1)
        self.register_buffer("bins_hz", bins_hz, persistent=False)

    def filters(self):
        """The triangles: (n_fft // 2 + 1 bins, n_harmonics * n_notes), differentiable in Q."""
        half_hz = (self.SLOPE * self.centres_hz + self.FLOOR_HZ) / self.q / 2
        return (1 - (self.bins_hz.unsqueeze(1) - self.centres_hz).abs() / half_hz).clamp_min(0)

    def forward(self, wave):
        """(B, n_samples) -> (B, n_harmonics, n_notes, 1 + n_samples // hop_length), in float32."""
        with torch.autocast(wave.device.type, enabled=False):
            wave = fast_layer.at_least_float32(wave)
            with torch.no_grad():
                power = self.power(wave)  # (B, n_frames, bins)
            out = (power @ self.filters().to(wave.dtype)).clamp_min(mels.AMIN).log10() * 10
            return out.transpose(1, 2).unflatten(1, (self.n_harmonics, self.n_notes))

    def power(self, wave):
        """Power spectrogram, frames centred, edges mirrored: (B, n_samples) -> (B, n_frames, bins)."""
        padded = F.pad(wave.unsqueeze(0), (self.n_fft // 2,) * 2, mode="reflect").squeeze(0)
        frames = padded.unfold(-1, self.n_fft, self.hop_length) * self.window.to(wave.dtype)
        spectrum = torch.fft.rfft(frames)
        return spectrum.real.square() + spectrum.imag.square()


# --- transformer ---


class TransformerLayer(nn.Module):
    """Self-attention and feed-forward, each followed by dropout, the sum with its input, and layer norm (BERT).

    Every linear layer is a module of its own (query, key, value apart), in BERT's order.

    Parameters
    ----------
    width, n_heads, n_hidden : int
    dropout, attention_dropout : float
        After attention and feed-forward; of the attention weights.
    """

    def __init__(self, width=256, n_heads=8, n_hidden=1024, dropout=0.4, attention_dropout=0.5):
        super().__init__()
        if width % n_heads:
            raise ValueError(f"width {width} does not divide by {n_heads} heads")
        self.n_heads, self.attention_dropout = n_heads, attention_dropout
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.joined, self.norm_1 = nn.Linear(width, width), nn.LayerNorm(width, eps=1e-12)
        self.hidden = nn.Linear(width, n_hidden)
        self.out, self.norm_2 = nn.Linear(n_hidden, width), nn.LayerNorm(width, eps=1e-12)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        """(B, n_frames, width) -> the same shape; every frame sees all frames."""
        heads = (
            layer(x).unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )  # (B, n_heads, n_frames, width // n_heads)
        attended = F.scaled_dot_product_attention(*heads, dropout_p=self.attention_dropout if self.training else 0.0)
        x = self.norm_1(x + self.dropout(self.joined(attended.transpose(1, 2).flatten(2))))
        return self.norm_2(x + self.dropout(self.out(F.gelu(self.hidden(x)))))


# --- cover songs ---


class CoverNet(nn.Module):
    """A song's CQT (B, 1, 84, n_frames) to an embedding (B, 300), and the embedding to scores of the training songs.

    A system registers its own layers, then calls `add_head`; `features` gives what the head eats. Two recordings are
    compared by the cosine of their embeddings; the classifier is for training alone.

    Parameters
    ----------
    n_classes : int, optional
        Songs (works) to be told apart in training; None leaves the classifier out.
    **settings
        Further arguments of the system's class.

    Attributes
    ----------
    slug : str
    n_bins : int
        Semitones of the CQT, 84 from C1 on.
    min_frames : int
        Fewer are refused; the published training fills shorter songs with zeros to so many.
    needs_clips : bool
        Whether forward() takes a second argument, the song's log-mels or what an encoder made of them.
    settings : dict
        Constructor arguments, with slug and n_classes: `systems.build(**settings)` has the same geometry.
    SMALL : dict
        Arguments of the class at the scale small; none where the published size can be trained there.
    """

    slug = ""
    n_bins, width, min_frames = 84, 300, 200
    needs_clips = False
    SMALL = {}

    @classmethod
    def at_scale(cls, scale):
        """Arguments of the class at a scale: the published network, but at small a narrow one where that is dear."""
        return dict(cls.SMALL) if scale == "small" else {}

    def __init__(self, n_classes, **settings):
        super().__init__()
        self.n_classes = n_classes
        self.settings = {"slug": self.slug, "n_classes": n_classes, **settings}

    def add_head(self, n_in):
        """Register the last two layers: linear n_in - 300, the embedding, and linear 300 - n_classes."""
        self.embedding = nn.Linear(n_in, self.width)
        self.classifier = None if self.n_classes is None else nn.Linear(self.width, self.n_classes)

    def forward(self, cqt):
        """(B, 1, 84, n_frames) -> embedding (B, 300), not normalised.

        Raises
        ------
        ValueError
            For another shape, fewer than `min_frames` frames, or values that are not finite.
        """
        return self.embed(self.features(self.check(cqt)))

    def features(self, cqt):
        """(B, 1, 84, n_frames) -> (B, n_in)."""
        raise NotImplementedError

    def embed(self, x):
        """(B, n_in) -> (B, 300), in float32 at least whatever autocast says: half precision would make cosines tie."""
        with torch.autocast(x.device.type, enabled=False):
            return self.embedding(x.to(self.embedding.weight.dtype))

    def logits(self, embedding):
        """(B, 300) -> one score per song of the training set (B, n_classes); the softmax belongs to the loss.

        Raises
        ------
        ValueError
            If the system was built without a classifier.
        """
        if self.classifier is None:
            raise ValueError(f"{self.slug} was built with n_classes=None, without a classifier: it only embeds")
        with torch.autocast(embedding.device.type, enabled=False):
            return self.classifier(embedding.to(self.classifier.weight.dtype))

    def check(self, cqt):
        """The CQT in float32, if it is (B, 1, 84, at least min_frames) and finite."""
        if cqt.ndim != 4 or tuple(cqt.shape[1:3]) != (1, self.n_bins) or cqt.shape[3] < self.min_frames:
            raise ValueError(
                f"{self.slug} got a CQT of shape {tuple(cqt.shape)}, expected (B, 1, {self.n_bins}, n_frames) with at "
                f"least {self.min_frames} frames: was it made with another number of bins, or is the song too short "
                "and was not filled with zeros?"
            )
        cqt = fast_layer.at_least_float32(cqt)
        if not torch.compiler.is_compiling() and not torch.isfinite(cqt.detach().sum()):
            bad = (~torch.isfinite(cqt)).flatten(1).any(dim=1).nonzero().flatten().tolist()
            raise ValueError(
                f"{self.slug} got NaN or infinite values in songs {bad} of the batch, expected finite ones: was a "
                "silent song divided by its own maximum?"
            )
        return cqt


class Conv2dLayer(nn.Module):
    """Convolution without bias - BN - ReLU - max pool over time, as in the cover-song networks (Yu 2019, 2020).

    Parameters
    ----------
    n_in, n_out : int
        Channels.
    kernel : (int, int)
        Bins, frames; not padded but for `pad_bins`.
    stride, dilation : int
        Over frames.
    pad_bins : int
        Zeros below and above in frequency.
    pool : bool
        Maximum of every two frames, one frame of padding on either side.
    """

    def __init__(self, n_in, n_out, kernel, stride=1, dilation=1, pad_bins=0, pool=False):
        super().__init__()
        self.conv = nn.Conv2d(
            n_in, n_out, kernel, (1, stride), padding=(pad_bins, 0), dilation=(1, dilation), bias=False
        )
        self.norm = nn.BatchNorm2d(n_out)
        self.pool = nn.MaxPool2d((1, 2), padding=(0, 1)) if pool else nn.Identity()

    def forward(self, x):
        """(B, n_in, H, W) -> (B, n_out, H + 2 pad_bins - bins + 1, frames left)."""
        return F.relu(self.pool(self.norm(self.conv(x))))


# --- published weights ---

FRONT_END_NAMES = ("window", "fb")  # the last part of a buffer's name in torchaudio


def copy_in_order(module, state):
    """Copy a foreign state dict into a module, tensor by tensor in order, whatever the names.

    Left out: buffers of the foreign front-end, known by name (window, fb), and batch norm's `num_batches_tracked` where
    one side lacks it.

    Parameters
    ----------
    module : torch.nn.Module
        Changed in place, once everything fits.
    state : dict of str to Tensor
        In the order in which the published network registers its parameters and buffers.

    Returns
    -------
    dict
        {our name: foreign name} of what was copied.

    Raises
    ------
    ValueError
        At the first tensor that has another shape than its counterpart, naming both; if one side has tensors left over;
        if the foreign front-end's window or filters are not this module's.
    """
    theirs = [(name, value) for name, value in state.items() if not _of_front_end(module, name, value)]
    ours = list(module.state_dict().items())
    pairs = []
    while ours and theirs:
        (our_name, own), (name, value) = ours[0], theirs[0]
        ours_counts, counts = (text.endswith("num_batches_tracked") for text in (our_name, name))
        if ours_counts != counts:
            (ours if ours_counts else theirs).pop(0)
            continue
        if own.shape != value.shape:
            raise ValueError(
                f"{name!r} has shape {tuple(value.shape)}, but next in order is {our_name!r} of shape "
                f"{tuple(own.shape)}, after {len(pairs)} tensors that fit: is it another system, or another n_classes?"
            )
        pairs.append((ours.pop(0), theirs.pop(0)))
    left = [name for name, _ in ours + theirs if not name.endswith("num_batches_tracked")]
    if left:
        side = "the module" if ours else "the state dict"
        raise ValueError(f"{side} has tensors left over, from {left[0]!r} on ({len(left)}): is it another system?")
    with torch.no_grad():
        for (_, own), (_, value) in pairs:
            own.copy_(value)
    return {our_name: name for (our_name, _), (name, _) in pairs}


def _of_front_end(module, name, value):
    """Is this a foreign front-end's window or filters? Those must be the ones the module has itself."""
    if name.split(".")[-1] not in FRONT_END_NAMES:
        return False
    saved = module.state_dict().keys()
    own = [buffer for key, buffer in module.named_buffers() if key not in saved]
    same = [b for b in own if b.shape == value.shape and torch.allclose(b, value.to(b), atol=1e-4)]
    if not same:
        raise ValueError(
            f"{name!r} of shape {tuple(value.shape)} is none of this module's windows and filters "
            f"({[tuple(b.shape) for b in own]}): was the network trained on another spectrogram?"
        )
    return True
