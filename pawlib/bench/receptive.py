"""What one cell of a network's map can see of the picture: receptive field and jump, computed and measured.

Conventions
    Two axes, (frequency, time), counted in cells of the input picture: mel bands and frames.
    Every cell i of a map sees the input cells start + i * jump .. start + i * jump + size - 1; a start below 0 lies in
    the padding. A convolution or pool of side k, dilation d, padding p and stride s turns (size, jump, start) into
        size + (k - 1) * d * jump,   jump * s,   start - p * jump
    and where two paths meet (a residual sum, a dense joining) the cell sees all that either of them sees.

    stack(layers)        a list of layers, by that rule
    fields(module, x)    any module: every convolution and pool it runs, whatever path it takes to it
    measured(module, x)  the same of the last map, by the gradient of one of its cells with respect to the picture

The field is the largest possible one: which cells matter in a trained network is another question.

Source: Araujo, Norris and Sim 2019, "Computing receptive fields of convolutional neural networks" (the rule).
"""

import contextlib
import copy
import dataclasses

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

_MIXING = {  # same shape, other places: after these a cell may see anything
    "transpose", "permute", "t", "flip", "roll", "_softmax", "_log_softmax", "native_layer_norm", "bmm", "baddbmm",
    "mm", "addmm", "cumsum", "sort", "gather", "index", "index_select", "native_group_norm",
    "_scaled_dot_product_flash_attention_for_cpu",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Layer:
    """A convolution or pool, for `stack`; every number an int for both axes, or (frequency, time).

    Attributes
    ----------
    kernel, stride, padding, dilation : int or (int, int)
    name : str
    """

    kernel: int | tuple
    stride: int | tuple = 1
    padding: int | tuple = 0
    dilation: int | tuple = 1
    name: str = ""


@dataclasses.dataclass(frozen=True)
class Field:
    """The receptive field after a layer.

    Attributes
    ----------
    name : str
        The layer's module, "" for a function; "output" or "map" for the last map.
    kind : "layer" (of `stack`) | "convolution" | "pool" | "output" | "map" | "gradient"
    size : (int, int) [mel bands, frames]
        What one cell sees.
    jump : (int, int) [mel bands, frames]
        From one cell to the next.
    start : (int, int) [mel bands, frames]
        The first band and frame that cell (0, 0) sees; below 0 in the padding.
    shape : (int, int) or None
        Cells of the map, where a picture was given.
    """

    name: str
    kind: str
    size: tuple
    jump: tuple
    start: tuple
    shape: tuple | None = None

    def seen(self, cell):
        """What a cell sees: ((first band, last band + 1), (first frame, last frame + 1)), padding included.

        Parameters
        ----------
        cell : (int, int)
            Row and column in the map.
        """
        first = [start + i * jump for start, i, jump in zip(self.start, cell, self.jump, strict=True)]
        return tuple((at, at + size) for at, size in zip(first, self.size, strict=True))

    def seconds(self, hop_length, sample_rate, n_fft=0):
        """Length of audio under the field [s]: (frames - 1) hops, and a window where `n_fft` is given."""
        return ((self.size[1] - 1) * hop_length + max(n_fft, hop_length)) / sample_rate


def stack(layers):
    """Receptive fields along a plain stack of layers.

    Parameters
    ----------
    layers : sequence of Layer

    Returns
    -------
    list of Field, one per layer

    Raises
    ------
    ValueError
        If there are no layers, or a kernel, stride or dilation is below 1.
    """
    if not layers:
        raise ValueError("no layers, so no receptive field: give at least one Layer")
    spans, found = [(0, 0, 1), (0, 0, 1)], []
    for layer in layers:
        sides = [_pair(side) for side in (layer.kernel, layer.stride, layer.padding, layer.dilation)]
        if min(*sides[0], *sides[1], *sides[3]) < 1 or min(sides[2]) < 0:
            raise ValueError(f"{layer}: kernel, stride and dilation are expected from 1 on, padding from 0 on")
        spans = [_through(span, *axis) for span, *axis in zip(spans, *sides, strict=True)]
        found.append(_field(layer.name, "layer", spans))
    return found


def fields(module, x, method="forward"):
    """Receptive fields of every convolution and pool that a module runs on a picture, in the order it runs them.

    Every operation is followed, not only modules, so that functional pools, residual sums and dense joinings count. The
    list ends where the map does (a mean over it, a flattening); its last entry is the map itself: "output" if that is
    what the method gives, else "map".

    Parameters
    ----------
    module : torch.nn.Module
        Left as it was found; meanwhile in evaluation, and encoders of this package in their plain order.
    x : Tensor [shape=(B, C, n_bands, n_frames)]
        The field does not depend on it, if it is large enough to pass; zeros will do.
    method : str
        What to call: "forward", or "features" of a tagger or scene system.

    Returns
    -------
    list of Field

    Raises
    ------
    ValueError
        If x is no picture, or no convolution or pool is met on the way from it.
    """
    _check_picture(x)
    with _plain(module), _naming(module) as names, torch.no_grad(), _Follow(x, names) as follow:
        out = getattr(module, method)(x)
    if not follow.found:
        raise ValueError(
            f"{type(module).__name__}.{method} runs no two-dimensional convolution or pool on the picture: is it a "
            "network on waves, or does it rearrange the picture first?"
        )
    name, (tensor, spans) = ("output", (out, follow.spans_of(out)))
    if spans is None:
        name, (tensor, spans) = "map", follow.last
    return [*follow.found, _field(name, name, spans, tensor)]


def measured(module, x, method="features"):
    """Receptive field of a module's map, found by which cells of the picture one of its cells has a gradient to.

    On a copy in which nothing can hide a path: all convolutions are positive means, batch norm does nothing, and a
    maximum is a mean (its gradient would reach the loudest cell alone).

    Parameters
    ----------
    module : torch.nn.Module
        Not touched.
    x : Tensor [shape=(B, C, n_bands, n_frames)]
        Only its shape counts: large enough that the field of a middle cell and its neighbour lie inside.
    method : str
        What to call; it must return a map (B, C, H, W).

    Returns
    -------
    Field
        kind "gradient".

    Raises
    ------
    ValueError
        If the method gives no map of at least 2 x 2 cells, or the field reaches the edge of the picture.
    """
    _check_picture(x)
    copied = _transparent(copy.deepcopy(module))
    picture = torch.ones(1, *x.shape[1:], dtype=torch.float64, requires_grad=True)
    with _plain(copied), _MeansForMaxima():
        out = getattr(copied, method)(picture)
    if out.ndim != 4 or min(out.shape[-2:]) < 2:
        raise ValueError(
            f"{type(module).__name__}.{method} gave {tuple(out.shape)}, expected a map (B, C, H, W) of 2 x 2 cells or "
            "more: take a larger picture, or the method before the mean over the map"
        )
    cell = [(n - 1) // 2 for n in out.shape[-2:]]
    here, there = (_reach(out, picture, [i + step for i in cell]) for step in (0, 1))
    for (first, last), n in zip((*here, *there), (*x.shape[-2:], *x.shape[-2:]), strict=True):
        if first == 0 or last == n - 1:
            raise ValueError(
                f"the field of cell {tuple(cell)} reaches the edge of a picture of {x.shape[-2]} x {x.shape[-1]}, so "
                "how much further it goes cannot be seen: take a larger one"
            )
    size = tuple(last - first + 1 for first, last in here)
    jump = tuple(b[0] - a[0] for a, b in zip(here, there, strict=True))
    start = tuple(first - i * step for (first, _), i, step in zip(here, cell, jump, strict=True))
    return Field("output", "gradient", size, jump, start, tuple(out.shape[-2:]))


# --- the rule ---


def _pair(value):
    """(frequency, time) of an int, a pair, or a list of one."""
    if isinstance(value, int):
        return value, value
    value = tuple(value)
    return value * 2 if len(value) == 1 else value


def _through(span, kernel, stride, padding, dilation):
    """(first, last, jump) of cell 0 after a layer."""
    first, last, jump = span
    return first - padding * jump, last + ((kernel - 1) * dilation - padding) * jump, jump * stride


def _field(name, kind, spans, out=None):
    """A Field of the spans of both axes."""
    size = tuple(last - first + 1 for first, last, _ in spans)
    start, jump = tuple(span[0] for span in spans), tuple(span[2] for span in spans)
    return Field(name, kind, size, jump, start, None if out is None else tuple(out.shape[-2:]))


def _check_picture(x):
    if x.ndim != 4:
        raise ValueError(f"x has shape {tuple(x.shape)}, expected a picture (B, C, n_bands, n_frames)")


@contextlib.contextmanager
def _plain(module):
    """Evaluation, as batch norm in training sees the whole batch; and encoders that pool before they normalise do it in
    the printed order, as layers that can be followed."""
    training = [layer for layer in module.modules() if layer.training]
    switched = [layer for layer in module.modules() if getattr(layer, "pool_first", False)]
    module.eval()
    for layer in switched:
        layer.pool_first = False
    try:
        yield
    finally:
        for layer in training:
            layer.training = True
        for layer in switched:
            layer.pool_first = True


# --- following operations ---


@contextlib.contextmanager
def _naming(module):
    """A list whose last entry is the name of the submodule that is running."""
    names, hooks = [""], []
    for name, layer in module.named_modules():
        if name:
            hooks.append(layer.register_forward_pre_hook(lambda *_, name=name: names.append(name)))
            hooks.append(layer.register_forward_hook(lambda *_: names.pop() and None))
    try:
        yield names
    finally:
        for hook in hooks:
            hook.remove()


class _Follow(TorchDispatchMode):
    """Keeps, for every tensor made of the picture, what its cells see; None once that may be anything."""

    def __init__(self, x, names):
        super().__init__()
        self.names, self.found, self.last = names, [], None
        self.known = {id(x): (x, [(0, 0, 1), (0, 0, 1)])}  # tensors are kept, so that no id comes twice

    def spans_of(self, tensor):
        return self.known.get(id(tensor), (None, None))[1]

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        inputs = [t for t in _tensors(args) if id(t) in self.known]
        if inputs:
            spans = self._spans(func._schema.name.split("::")[1], args, inputs, out)
            for made in _tensors([out]):
                self.known[id(made)] = (made, spans)
            if spans is not None:
                self.last = next(_tensors([out])), spans
        return out

    def _spans(self, operation, args, inputs, out):
        """What the cells of an operation's result see."""
        first = next(iter(_tensors([out])), None)
        spans = [self.known[id(t)][1] for t in inputs]
        if first is None or None in spans or operation.rstrip("_") in _MIXING:
            return None
        if operation == "convolution" and args[0].ndim == 4 and not args[6]:
            sides = args[1].shape[-2:], args[3], args[4], args[5]
            return self._layer("convolution", spans[0], sides, first)
        if operation in ("max_pool2d_with_indices", "max_pool2d", "avg_pool2d"):
            kernel, *rest = args[1:]
            stride, padding = (rest[0] if rest and rest[0] else kernel), (rest[1] if len(rest) > 1 else 0)
            dilation = rest[2] if operation.startswith("max") and len(rest) > 2 else 1
            return self._layer("pool", spans[0], (kernel, stride, padding, dilation), first)
        if any(t.shape[-2:] != first.shape[-2:] or t.ndim != 4 for t in inputs) or first.ndim != 4:
            return None
        return _joined(spans)

    def _layer(self, kind, spans, sides, out):
        spans = [_through(span, *axis) for span, *axis in zip(spans, *map(_pair, sides), strict=True)]
        self.found.append(_field(self.names[-1], kind, spans, out))
        return spans


def _joined(spans):
    """All that any of the meeting paths sees; None if they do not run in step."""
    axes = list(zip(*spans, strict=True))
    if any(len({jump for _, _, jump in axis}) > 1 for axis in axes):
        return None
    return [(min(s[0] for s in axis), max(s[1] for s in axis), axis[0][2]) for axis in axes]


def _tensors(values):
    """All tensors in nested lists and tuples."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


# --- measuring ---


class _MeansForMaxima(TorchFunctionMode):
    """Max pooling becomes average pooling of the same geometry."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") not in ("max_pool2d", "_max_pool2d", "boolean_dispatch"):
            return func(*args, **kwargs)
        names = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode")
        told = {**dict(zip(names, args, strict=False)), **kwargs}
        if _pair(told.get("dilation", 1)) != (1, 1):
            raise ValueError(f"a dilated max pool {told['dilation']} cannot be measured: use fields()")
        stride = told.get("stride") or told["kernel_size"]
        return F.avg_pool2d(
            told["input"], told["kernel_size"], stride, told.get("padding", 0), told.get("ceil_mode", False)
        )


def _transparent(module):
    """Convolutions that are means, norms that do nothing, in double precision and evaluation."""
    module = module.double().eval()
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, torch.nn.Conv2d):
                layer.weight.fill_(1 / layer.weight[0].numel())
                if layer.bias is not None:
                    layer.bias.zero_()
            elif isinstance(layer, torch.nn.BatchNorm2d):
                layer.reset_running_stats()
                if layer.affine:
                    layer.weight.fill_(1)
                    layer.bias.zero_()
    return module


def _reach(out, picture, cell):
    """((first band, last band), (first frame, last frame)) to which a cell of the map has a gradient."""
    (gradient,) = torch.autograd.grad(out[0, :, cell[0], cell[1]].sum(), picture, retain_graph=True)
    heard = gradient[0].abs().sum(0) > 0  # (n_bands, n_frames)
    rows, columns = (heard.any(dim=axis).nonzero().flatten() for axis in (1, 0))
    return (int(rows[0]), int(rows[-1])), (int(columns[0]), int(columns[-1]))
