"""Convolution and max pooling of a layer in one go, a few clips at a time: the encoders' fast path on a CPU (Sec. 4.1).

The map of FCN-4's first layer, 64 x 128 x 351 values a clip, takes a CPU far longer to write and read than to compute.
Nothing in the result needs it as a whole:
    the maximum     is taken where the map arises, while a few clips of it lie in the cache;
    mean, variance  of w.p, where p are the 3 x 3 patches which the kernel w meets, are w.E[p] and w.E[p p']w - mean^2:
                    the first layer's come from the moments of the patches, without its map;
    the gradient    through the maximum is zero but at one value in eight; through mean and variance it follows from the
                    moments (autograd does that), or is one scale and shift of the map (later layers).
Equal in outputs and gradients to convolution, mean and variance, and max pooling one after the other.

Conventions
    x : Tensor [shape=(B, C, H, W)]; weight : Tensor [shape=(D, C, 3, 3)]; pool : (int, int) of (frequency, time).
    Maps are without the convolution's bias: the maximum does not change by it, the caller adds it to mean and shift.
    Data types: products in the one autocast asks for, sums in float32 or wider (float64 stays).
    A block is a few clips whose map fits into the cache. Small pieces of memory are also used again at once; large ones
    are asked of the system and given back, page by page, at every operation.

Told in: notebooks/90_speed.ipynb
"""

import functools
import itertools
import os
from concurrent.futures import ThreadPoolExecutor

import torch
import torch.nn.functional as F
from torch.autograd import Function

BLOCK = 1_500_000  # values of a map that are worked on at once


def applies(x):
    """Whether the fast path is one here: on a CPU, unless torch.compile is tracing; it fuses the plain way itself."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def conv_pool(x, weight, pool, statistics=True):
    """Convolution that keeps the size, and its maximum in each `pool`; with the map's mean and variance per channel.

    Kernels are 3 x 3, or of any odd size: (D, C, 1, 3) is a convolution in time alone.

    Returns
    -------
    pooled : Tensor [shape=(B, D, H // pool[0], W // pool[1])]
    mean, var : Tensor [shape=(D,)]
        Of the unpooled map, the variance biased; zeros without `statistics`.
    """
    if applies(x):
        return _ConvPool.apply(x.to(_product_type(x)), weight, tuple(pool), statistics, torch.is_grad_enabled())
    raw = F.conv2d(x, weight, padding=_half(weight))
    if not statistics:
        return F.max_pool2d(raw, pool), *raw.new_zeros(2, len(weight))
    var, mean = torch.var_mean(at_least_float32(raw), dim=(0, 2, 3), correction=0)
    return F.max_pool2d(raw, pool), mean, var


def picture_conv_pool(picture, gain, offset, weight, pool, statistics=True):
    """`conv_pool` of x = gain * picture + offset for a picture that needs no gradient: log-mels, standardised.

    Its map is never kept. gain and offset are learnt through the kernel: a second channel, which is 1 inside the
    picture and 0 around it, meets offset * weight.

    Parameters
    ----------
    picture : Tensor [shape=(B, 1, H, W)]
    gain, offset : Tensor [shape=(1,)]
    weight : Tensor [shape=(D, 1, 3, 3)]

    Returns
    -------
    pooled, mean, var : as `conv_pool`
    """
    picture = picture.detach().to(_product_type(picture))
    taps = torch.cat([(gain * weight).flatten(1), (offset * weight).flatten(1)], dim=1)  # (D, 18)
    taps = taps + (taps.to(picture.dtype) - taps).detach()  # rounded as the product rounds them, with their gradient
    pooled = _PictureConvPool.apply(picture, taps, tuple(pool))
    if not statistics:
        return pooled, *taps.new_zeros(2, len(taps))
    second = _patch_moments(picture)
    mean = taps.double() @ second[:, 9 + 4]  # beside the centre of the ones, which is 1 for every patch: E[p]
    var = torch.einsum("di,ij,dj->d", taps.double(), second, taps.double()) - mean.square()
    return pooled, mean.to(taps), var.clamp_min(0).to(taps)


def scale_shift_relu(x, scale, shift):
    """relu(scale * x + shift) per channel: (B, C, H, W) -> the same shape and type."""
    if applies(x):
        return _ScaleShiftReLU.apply(x, scale, shift)
    return F.relu(at_least_float32(x) * _per_channel(scale) + _per_channel(shift)).to(x.dtype)


class _ConvPool(Function):
    """The map is kept, its gradient is there for one block at a time."""

    @staticmethod
    def forward(ctx, x, weight, pool, statistics, keep):
        x = x.contiguous(memory_format=torch.channels_last)
        kernel = weight.to(x.dtype, memory_format=torch.channels_last)

        def block(some):
            raw = F.conv2d(some, kernel, padding=_half(kernel))
            rows = at_least_float32(_rows(raw)) if statistics else raw.new_zeros(1, len(weight))
            return F.max_pool2d(raw, pool), rows.sum(0).double(), (rows * rows).sum(0).double(), raw if keep else None

        n_clips = _clips(x, weight.shape[0] * x[0, 0].numel())
        pooled, first, second, raws = zip(*over_blocks(block, x.split(n_clips)), strict=True)
        ctx.pool, ctx.n_clips, ctx.n = pool, n_clips, x[:, 0].numel()
        mean = sum(first) / ctx.n
        var = (sum(second) / ctx.n - mean.square()).clamp_min(0)
        if keep:
            ctx.save_for_backward(x, weight, mean, *raws)
        return torch.cat(pooled), mean.to(weight), var.to(weight)

    @staticmethod
    def backward(ctx, g_pooled, g_mean, g_var):
        x, weight, mean, *raws = ctx.saved_tensors
        kernel = weight.to(x.dtype, memory_format=torch.channels_last)
        slope = 2 * g_var.double() / ctx.n  # of the variance: slope * (raw - mean)
        constant = g_mean.double() / ctx.n - slope * mean
        slope, constant = (_per_channel(v.to(weight)) for v in (slope, constant))
        by_patches = x.dtype != torch.bfloat16
        wanted = (ctx.needs_input_grad[0], not by_patches, False)

        def block(some, raw, g):
            sizes = (ctx.pool, ctx.pool, (0, 0), (1, 1))
            best = F.max_pool2d(raw, ctx.pool, return_indices=True)[1]
            g = torch.ops.aten.max_pool2d_with_indices_backward(
                g.contiguous(memory_format=torch.channels_last), raw, *sizes, False, best
            )
            g = torch.addcmul(constant, at_least_float32(raw), slope).add_(g).to(x.dtype)
            g_some, g_kernel, _ = torch.ops.aten.convolution_backward(
                g, some, kernel, None, (1, 1), _half(kernel), (1, 1), False, (0, 0), 1, wanted
            )
            return g_some, _kernel_gradient(g, some, kernel) if by_patches else g_kernel

        blocks = over_blocks(block, x.split(ctx.n_clips), raws, g_pooled.split(ctx.n_clips))
        g_x, g_weight = zip(*blocks, strict=True)
        return torch.cat(g_x) if wanted[0] else None, sum(g.to(weight) for g in g_weight), None, None, None


class _PictureConvPool(Function):
    """The map arises one place of the pool after the other, (n pooled values, D), and is forgotten."""

    @staticmethod
    def forward(ctx, picture, taps, pool):
        kernel = taps.to(picture.dtype).T.contiguous()  # (18, D)

        def block(some):
            places = (patches.T @ kernel for patches in _patches(some, pool))
            best = next(places)
            for place in places:
                torch.maximum(best, place, out=best)
            return best.unflatten(0, (len(some), picture.shape[2] // pool[0], -1)).permute(0, 3, 1, 2)

        n_clips = _clips(picture, len(taps) * picture[0].numel() // 4)
        pooled = torch.cat(over_blocks(block, picture.split(n_clips)))
        ctx.pool, ctx.n_clips = pool, n_clips
        ctx.save_for_backward(picture, kernel, pooled)
        return pooled

    @staticmethod
    def backward(ctx, g_pooled):
        picture, kernel, pooled = ctx.saved_tensors

        def block(some, best, g):
            best, left = _rows(best), _rows(g).clone()
            g_taps = 0
            for patches in _patches(some, ctx.pool):
                winner = (patches.T @ kernel).eq_(best).mul_(left)  # the gradient, where the maximum was here
                left.sub_(winner)  # of equal ones the first has it
                g_taps += at_least_float32(patches @ winner)
            return g_taps

        parts = (v.split(ctx.n_clips) for v in (picture, pooled, g_pooled))
        return None, sum(over_blocks(block, *parts)).T, None


class _ScaleShiftReLU(Function):
    """Line by line of (n values, C), in float32 where a block lies in the cache."""

    @staticmethod
    def forward(ctx, x, scale, shift):
        out = torch.empty_like(x, memory_format=torch.channels_last)

        def block(some, result):
            result.copy_(torch.addcmul(shift, at_least_float32(some), scale).relu_())

        over_blocks(block, *_split_rows(x, out))
        ctx.save_for_backward(x, scale, out)
        return out

    @staticmethod
    def backward(ctx, g):
        x, scale, out = ctx.saved_tensors
        g_x = torch.empty_like(out)

        def block(some, result, g_result, g_some):
            passed = at_least_float32(torch.ops.aten.threshold_backward(g_result, result, 0))
            sums = (passed * at_least_float32(some)).sum(0), passed.sum(0)
            g_some.copy_(passed * scale)
            return sums

        g_scale, g_shift = map(sum, zip(*over_blocks(block, *_split_rows(x, out, g, g_x)), strict=True))
        return g_x, g_scale, g_shift


def _half(kernel):
    """Padding that keeps a map's size."""
    return tuple(n // 2 for n in kernel.shape[2:])


def _kernel_gradient(g, x, kernel):
    """The gradient of conv2d(x, kernel) for its kernel, as products of g with the patches, some lines at a time.

    In float32 oneDNN's own takes about twice as long on a processor with AVX2 alone; its bf16 one is good.
    """
    (height, width), (above, beside) = kernel.shape[2:], _half(kernel)
    lines = F.pad(x.permute(0, 2, 3, 1), (0, 0, beside, beside, above, above))
    patches = lines.unfold(1, height, 1).unfold(2, width, 1).permute(0, 1, 2, 4, 5, 3)  # (B, H, W, 3, 3, C)
    n_lines = max(1, BLOCK // 2 // patches[0, 0].numel())
    total = x.new_zeros(len(kernel), kernel[0].numel())
    for of_clip, g_clip in zip(patches, g.permute(0, 2, 3, 1), strict=True):
        for some, g_some in zip(of_clip.split(n_lines), g_clip.split(n_lines), strict=True):
            total.addmm_(g_some.flatten(0, 1).T, some.flatten(2).flatten(0, 1))
    return total.view(len(kernel), height, width, -1).permute(0, 3, 1, 2)


def _patches(picture, pool):
    """The 3x3 patches of picture and ones, (18, n pooled values), for one place in the pool after the other."""
    both = F.pad(torch.cat([picture, torch.ones_like(picture)], dim=1), (1, 1, 1, 1))
    windows = both.unfold(2, pool[0] + 2, pool[0]).unfold(3, pool[1] + 2, pool[1])  # what one pooled value sees
    windows = windows.permute(1, 4, 5, 0, 2, 3).flatten(3)  # (2, pool + 2, pool + 2, n pooled values)
    for i, j in itertools.product(*map(range, pool)):
        yield windows[:, i : i + 3, j : j + 3].flatten(0, 2)


def _patch_moments(picture):
    """E[p p'] over all patches of picture and ones, (18, 18) in float64."""
    ones = torch.ones_like(picture[:1], dtype=torch.float64)
    total = sum(some.double().sum(0, keepdim=True) for some in picture.split(64))
    of_ones = _shifted(ones)
    second = torch.zeros(18, 18, dtype=torch.float64)
    second[9:, 9:] = len(picture) * (of_ones @ of_ones.mT).sum(0)
    second[:9, 9:] = (_shifted(total) @ of_ones.mT).sum(0)
    second[9:, :9] = second[:9, 9:].T

    def block(some):
        p = _shifted(at_least_float32(some))
        return (p @ p.mT).sum(0, dtype=torch.float64)  # float32 within a line, where sums are short

    second[:9, :9] = sum(over_blocks(block, picture.split(_clips(picture, 9 * picture[0].numel()))))
    return second / picture.numel()


def _shifted(picture):
    """The nine values of every 3x3 patch, line by line: (B, 1, H, W) -> (B * H, 9, W)."""
    windows = F.pad(picture, (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1)  # (B, 1, H, W, 3, 3)
    return windows.permute(0, 2, 1, 4, 5, 3).flatten(2, 4).flatten(0, 1)


def over_blocks(function, *parts):
    """[function(*blocks), ...] in the blocks' order; as many at once as torch has threads, each alone on its core.

    So every core keeps its own block in its own cache, and none waits for another after each operation.
    """
    inference, n_threads = torch.is_inference_mode_enabled(), torch.get_num_threads()

    def run(*blocks):  # modes belong to a thread
        with torch.inference_mode(inference), torch.no_grad(), torch.autocast("cpu", enabled=False):
            return function(*blocks)

    if n_threads == 1:
        return list(map(run, *parts))
    try:
        return list(_workers(n_threads).map(run, *parts))
    finally:
        torch.set_num_threads(n_threads)  # what the workers set for themselves, new threads would inherit


@functools.cache
def _workers(n_threads):
    return ThreadPoolExecutor(n_threads, "pawlib", initializer=torch.set_num_threads, initargs=(1,))


os.register_at_fork(after_in_child=_workers.cache_clear)


def _clips(x, n_values):
    """How many clips of `n_values` values each make a block: as the cache has room, and something for every thread."""
    return max(1, min(BLOCK // n_values, -(-len(x) // torch.get_num_threads())))


def _split_rows(*maps):
    """Blocks of several maps of one shape (B, C, H, W), as rows (n values, C)."""
    n_rows = max(1, BLOCK // 3 // maps[0].shape[1])
    return [_rows(x).split(n_rows) for x in maps]


def _product_type(x):
    """The data type autocast computes products of x in."""
    asked = torch.is_autocast_enabled("cpu") and x.dtype != torch.float64
    return torch.get_autocast_dtype("cpu") if asked else x.dtype


def at_least_float32(x):
    return x if x.dtype == torch.float64 else x.float()


def _rows(x):
    """(B, C, H, W) -> (B * H * W, C)."""
    return x.permute(0, 2, 3, 1).flatten(0, 2)


def _per_channel(v):
    return v.view(1, -1, 1, 1)
