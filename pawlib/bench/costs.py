"""What a model costs: parameters, and multiply-accumulates counted as in the paper's Table 1.

Conventions
    The column "GFLOPs" of Table 1 is multiply-accumulates (1 MAC counted as 1) of a batch of 16 inputs. This is nowhere
    stated; the rule below was inferred and gives the printed numbers of ten systems to 0.004 G:
        convolution   (n_in / groups) * kernel per output, plus one per output where there is a bias
        linear        n_in per output
        GRU           3 * hidden * (n_in + hidden) per step, layer and direction
        batch norm    2 per element
        all else      0: ReLU, pooling, STFT and mel filters, softmax, products of attention
    So `count(FCN4(), torch.zeros(16, 1, 128, 351)).macs / 1e9` stands beside the paper's 8.93.

Counting listens at the layers (forward hooks), so every layer must be called as a module. Encoders of this package pool
before they normalise (see encoders.py) and then bypass their layers; while counting they are put back into the plain
order, the one the paper's number describes. A layer that was bypassed all the same is an error, never a silent zero.
"""

import contextlib
import dataclasses

import torch
from torch import nn

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_COUNTED = (*_CONVOLUTIONS, *_NORMS, nn.Linear, nn.GRU)


@dataclasses.dataclass(frozen=True)
class Cost:
    """Parameters, multiply-accumulates of the given inputs, and the latter by layer name."""

    params: int
    macs: int
    by_layer: dict

    def __str__(self):
        return f"{self.params / 1e6:.2f} M parameters, {self.macs / 1e9:.2f} G multiply-accumulates"


def count(module, *inputs, ignore_unused=()):
    """Count a model's parameters and the multiply-accumulates of one forward pass.

    Parameters
    ----------
    module : torch.nn.Module
        Left as it was found: training mode, running statistics and order of work come back.
    *inputs
        What forward takes; for Table 1's column a batch of 16.
    ignore_unused : sequence of str
        Names of layers that this forward pass rightly does not use.

    Returns
    -------
    Cost

    Raises
    ------
    ValueError
        If a convolution, linear, GRU or batch-norm layer is never called as a module, so its work would count as 0.

    Told in: notebooks/04_encoders.ipynb
    """
    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, _COUNTED)}
    by_layer = dict.fromkeys(layers, 0)
    called = set()

    def listen(name):
        def hook(layer, arguments, output):
            called.add(name)
            by_layer[name] += _macs(layer, arguments[0], output)

        return hook

    hooks = [layer.register_forward_hook(listen(name)) for name, layer in layers.items()]
    try:
        with _plain_order(module), _evaluating(module), torch.no_grad():
            module(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    bypassed = [name for name in layers if name not in called and name not in ignore_unused]
    if bypassed:
        raise ValueError(
            f"layers {bypassed} were not called as modules, so their work cannot be counted: call them (layer(x), not "
            "functional.conv2d(x, layer.weight)), give the module a switch `pool_first`, or list them in ignore_unused"
        )
    params = sum(parameter.numel() for parameter in module.parameters())
    return Cost(params, sum(by_layer.values()), by_layer)


def _macs(layer, x, output):
    """The rule of the module's head, for one call of one layer."""
    if isinstance(layer, _CONVOLUTIONS):
        per_output = layer.weight[0].numel() + (layer.bias is not None)  # weight: (n_out, n_in / groups, *kernel)
        return per_output * output.numel()
    if isinstance(layer, nn.Linear):
        return layer.in_features * output.numel()
    if isinstance(layer, nn.GRU):
        n_steps = x.numel() // layer.input_size
        directions = 2 if layer.bidirectional else 1
        widths = [layer.input_size] + [layer.hidden_size * directions] * (layer.num_layers - 1)
        return n_steps * directions * sum(3 * layer.hidden_size * (width + layer.hidden_size) for width in widths)
    return 2 * output.numel()


@contextlib.contextmanager
def _plain_order(module):
    """Switch `pool_first` off wherever a submodule has it, and back on afterwards."""
    switched = [layer for layer in module.modules() if getattr(layer, "pool_first", False) is True]
    for layer in switched:
        layer.pool_first = False
    try:
        yield
    finally:
        for layer in switched:
            layer.pool_first = True


@contextlib.contextmanager
def _evaluating(module):
    """Evaluation mode, so that no running statistic and no dropout is touched; each part's own mode comes back."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training
