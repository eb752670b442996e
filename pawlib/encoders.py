"""The encoders f of the paper (Sec. 4.1): FCN-4, FCN-7, and the projection head.

Conventions
    B clips in a batch: Tensor [shape=(B, 1, n_mels, n_frames)] of log-mels -> features [shape=(B, 512)].
    A layer is: convolution 3x3 with bias - batch norm - ReLU - max pool (Choi 2016; Won 2020).
    Every layer can be run in two orders that give the same numbers:
        plain       as printed: norm, ReLU and their gradients run over the full map;
        pool first  (the default) batch norm's statistics need the full map, its affine part and ReLU do not: they are
                    monotone once the sign of gamma is folded into the convolution, so the raw map is pooled first and
                    an eighth of it is normalised. Equal in outputs, gradients and running statistics. On a CPU a few
                    clips at a time (fast_layer.py).

Told in: notebooks/04_encoders.ipynb, notebooks/90_speed.ipynb
"""

import torch
import torch.distributed
import torch.nn.functional as F
from torch import nn

from pawlib import fast_layer

WIDTH = 512


class BatchNorm(nn.BatchNorm2d):
    """Batch norm whose statistics can be those of all devices (and which therefore runs on a CPU, too).

    Parameters, buffers and numbers are those of torch.nn.BatchNorm2d. With `synchronise` set and a process group
    initialised, mean and variance are all-reduced with the right gradient; every device must bring an equal share.
    """

    synchronise = False

    def statistics(self, x):
        """Mean and biased variance per channel, (C,), of the batch in training, of the running estimate otherwise.

        In training the running estimate is updated (momentum 0.1, unbiased variance).
        """
        if not self.training:
            return self.running_mean, self.running_var
        var, mean = torch.var_mean(fast_layer.at_least_float32(x), dim=(0, 2, 3), correction=0)
        return self.tracked(mean, var, x.numel() // x.shape[1])

    def tracked(self, mean, var, n):
        """Mean and biased variance of n values per channel, over all devices, with the running estimate updated."""
        if self.synchronise and torch.distributed.is_available() and torch.distributed.is_initialized():
            from torch.distributed.nn.functional import all_reduce

            n_devices = torch.distributed.get_world_size()
            own_mean, mean = mean, all_reduce(mean) / n_devices
            var = all_reduce(var + (own_mean - mean).square()) / n_devices  # no difference of large squares
            n *= n_devices
        if n < 2:
            raise ValueError(
                "batch norm in training needs more than one value per channel: is the batch a single clip?"
            )
        with torch.no_grad():
            self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
            self.running_var.lerp_((var * (n / (n - 1))).to(self.running_var), self.momentum)
            self.num_batches_tracked.add_(1)
        return mean, var

    @torch.no_grad()
    def standardised(self, x):
        """(B, C, H, W) less its mean, by its deviation, without weight and bias: a constant to every gradient."""
        mean, var = self.statistics(x)
        return (x - _per_channel(mean)) * _per_channel(torch.rsqrt(var + self.eps))

    def forward(self, x):
        """(B, C, H, W) -> the same shape, normalised; the numbers of torch.nn.BatchNorm2d."""
        mean, var = self.statistics(x)
        scale = self.weight * torch.rsqrt(var + self.eps)
        shift = self.bias - mean * scale
        wide = fast_layer.at_least_float32(x)
        return (wide * _per_channel(scale) + _per_channel(shift)).to(x.dtype)


class ConvLayer(nn.Module):
    """Convolution 3x3 with bias - batch norm - ReLU - max pool, in either order of work.

    Parameters
    ----------
    n_in, n_out : int
        Channels.
    pool : int or (int, int)
        Max pooling over (frequency, time).
    pool_first : bool
        Which of the two orders of the module's map; the numbers are the same.
    """

    def __init__(self, n_in, n_out, pool, pool_first=True):
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, 3, padding=1)
        self.norm = BatchNorm(n_out)
        self.pool = nn.MaxPool2d(pool)
        self.pool_size = (pool, pool) if isinstance(pool, int) else tuple(pool)
        self.pool_first = pool_first

    def forward(self, x):
        """(B, n_in, H, W) -> (B, n_out, H // pool, W // pool)."""
        if not self.pool_first:
            return self.pool(F.relu(self.norm(self.conv(x))))
        return self._pool_first(x.shape, fast_layer.conv_pool, x)

    def on_picture(self, picture, gain, offset):
        """The layer of gain * picture + offset, for a picture (B, 1, H, W) that needs no gradient."""
        return self._pool_first(picture.shape, fast_layer.picture_conv_pool, picture, gain, offset)

    def _pool_first(self, shape, conv_pool, *x):
        # With |gamma| in place of gamma, norm and ReLU never fall, so they may come after the maximum.
        sign = torch.where(self.norm.weight < 0, -1.0, 1.0).to(self.conv.weight)
        pooled, mean, var = conv_pool(*x, self.conv.weight * sign.view(-1, 1, 1, 1), self.pool_size, self.training)
        if self.training:
            n = shape[0] * shape[2] * shape[3]
            mean, var = self.norm.tracked(mean * sign + self.conv.bias, var, n)
        else:
            mean, var = self.norm.running_mean, self.norm.running_var
        scale = self.norm.weight * torch.rsqrt(var + self.norm.eps)
        shift = (self.conv.bias - mean) * scale + self.norm.bias
        return fast_layer.scale_shift_relu(pooled, scale * sign, shift)  # an eighth of the map


class Trunk(nn.Module):
    """Input batch norm, then layers; what FCN-4 and FCN-7 share."""

    name = ""
    width = WIDTH

    def __init__(self, channels, pools, pool_first):
        super().__init__()
        self.norm = BatchNorm(1)
        ins = (1, *channels[:-1])
        self.layers = nn.ModuleList(
            ConvLayer(i, o, pool, pool_first) for i, o, pool in zip(ins, channels, pools, strict=True)
        )

    def maps(self, mel):
        if mel.ndim != 4 or mel.shape[1] != 1:
            raise ValueError(
                f"{self.name} got shape {tuple(mel.shape)}, expected (B, 1, n_mels, n_frames): "
                "join songs and clips first"
            )
        first, *others = self.layers
        if first.pool_first and not mel.requires_grad and fast_layer.applies(mel):
            x = first.on_picture(self.norm.standardised(mel), self.norm.weight, self.norm.bias)
        else:
            x = first(self.norm(mel))
        for layer in others:
            x = layer(x)
        return x

    def pooling_first(self, on):
        """Switch every layer to pool first (True) or to the plain order (False); returns the encoder."""
        for layer in self.layers:
            layer.pool_first = on
        return self


class FCN4(Trunk):
    """FCN-4 (Choi 2016 as used in the paper): 4 layers of 64, 128, 128, 128 channels; 370,562 parameters.

    Input (B, 1, 128, n_frames) with 320 to 639 frames; output (B, 512): 128 channels x 4 bands x 1 moment.

    Raises
    ------
    ValueError
        For another number of mel bands or frames than pools down to 512 features.

    Told in: notebooks/04_encoders.ipynb
    """

    name = "fcn_4"

    def __init__(self, pool_first=True):
        super().__init__((64, 128, 128, 128), ((2, 4), (2, 4), (2, 4), (4, 5)), pool_first)

    def forward(self, mel):
        if mel.shape[-2] != 128 or not 320 <= mel.shape[-1] <= 639:
            raise ValueError(
                f"fcn_4 got {mel.shape[-2]} mel bands x {mel.shape[-1]} frames, expected 128 x 320..639 (351 for clips "
                "of 2.8 s at 16 kHz, hop 128): was the log-mel made with another hop, or from another length?"
            )
        return self.maps(mel).flatten(1)  # (B, 512)


class FCN7(Trunk):
    """FCN-7: the 512-d trunk of Short-chunk CNN (Won 2020), 7 layers with pool 2, then the maximum over what is left.

    Input (B, 1, 128, n_frames) with at least 128 frames; output (B, 512).

    Raises
    ------
    ValueError
        For another number of mel bands, or fewer than 128 frames.

    Told in: notebooks/04_encoders.ipynb
    """

    name = "fcn_7"

    def __init__(self, pool_first=True):
        super().__init__((128, 128, 256, 256, 256, 256, 512), (2,) * 7, pool_first)

    def forward(self, mel):
        if mel.shape[-2] != 128 or mel.shape[-1] < 128:
            raise ValueError(
                f"fcn_7 got {mel.shape[-2]} mel bands x {mel.shape[-1]} frames, expected 128 x at least 128: "
                "was the log-mel made with another hop, or from another length?"
            )
        return self.maps(mel).amax(dim=(2, 3))  # (B, 512)


class ProjectionHead(nn.Module):
    """MLP into the contrastive space (Sec. 4.1): linear 512, ReLU, linear 256; without biases as in PEMR.

    (..., 512) -> (..., 256).
    """

    def __init__(self, width=WIDTH, hidden=512, projected=256, bias=False):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, hidden, bias), nn.ReLU(), nn.Linear(hidden, projected, bias))

    def forward(self, s):
        return self.layers(s)


ENCODERS = {FCN4.name: FCN4, FCN7.name: FCN7}


def build(name, **kw):
    """An encoder by its slug.

    Raises
    ------
    ValueError
        For an unknown slug; it lists the known ones.
    """
    if name not in ENCODERS:
        raise ValueError(f"encoder={name!r} is unknown, expected one of {', '.join(ENCODERS)}")
    return ENCODERS[name](**kw)


def _per_channel(v):
    return v.view(1, -1, 1, 1)
