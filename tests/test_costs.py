"""Counting by hand, and Table 1's Param and GFLOPs columns."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pawlib import encoders
from pawlib.bench import costs


def test_convolution_by_hand():
    # 5 outputs channels x 6 x 4 places, each 3 * 3 * 3 products and one bias
    cost = costs.count(nn.Conv2d(3, 5, 3), torch.zeros(2, 3, 8, 6))
    assert cost.macs == 2 * 5 * 6 * 4 * (27 + 1)
    assert cost.params == 5 * 27 + 5
    assert costs.count(nn.Conv2d(3, 5, 3, bias=False), torch.zeros(2, 3, 8, 6)).macs == 2 * 5 * 6 * 4 * 27


def test_grouped_and_one_dimensional_convolution_by_hand():
    assert costs.count(nn.Conv1d(4, 6, 3, groups=2, bias=False), torch.zeros(1, 4, 10)).macs == 6 * 8 * 2 * 3


def test_linear_norm_and_silent_layers_by_hand():
    model = nn.Sequential(nn.Linear(7, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(), nn.Linear(4, 2, bias=False))
    cost = costs.count(model, torch.zeros(5, 7))
    assert cost.by_layer == {"0": 5 * 28, "1": 5 * 4 * 2, "4": 5 * 8}
    assert cost.macs == 5 * (28 + 8 + 8)
    assert cost.params == 28 + 4 + 8 + 8


def test_gru_by_hand():
    gru = nn.GRU(5, 3, num_layers=2, bidirectional=True, batch_first=True)
    per_step = 2 * (3 * 3 * (5 + 3) + 3 * 3 * (6 + 3))
    assert costs.count(gru, torch.zeros(4, 7, 5)).macs == 4 * 7 * per_step


def test_layer_called_twice_counts_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x):
            return self.layer(self.layer(x))

    cost = costs.count(Twice(), torch.zeros(1, 3))
    assert cost.macs == 18
    assert cost.params == 12


@pytest.mark.parametrize("pool_first", [True, False])
def test_fcn_4_costs_what_table_1_prints(pool_first):
    cost = costs.count(encoders.FCN4(pool_first=pool_first), torch.zeros(16, 1, 128, 351))
    assert cost.params == 370_562
    assert cost.macs / 1e9 == pytest.approx(8.93, abs=0.005)


def test_fcn_7_with_its_ten_class_head_costs_what_table_1_prints():
    head = nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Dropout(), nn.Linear(512, 10))
    one = costs.count(nn.Sequential(encoders.FCN7(), head), torch.zeros(1, 1, 128, 231))
    assert one.params / 1e6 == pytest.approx(3.667, abs=0.0005)
    assert 16 * one.macs / 1e9 == pytest.approx(32.44, abs=0.005)


def test_the_model_is_left_as_it_was_found():
    encoder = encoders.FCN4().train()
    encoder.layers[1].eval()
    encoder.layers[2].pool_first = False
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    costs.count(encoder, torch.randn(2, 1, 128, 351))
    assert [layer.pool_first for layer in encoder.layers] == [True, True, False, True]
    assert encoder.training and not encoder.layers[1].training and encoder.layers[2].conv.training
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
    assert not any(module._forward_hooks for module in encoder.modules())


def test_bypassed_layer_is_an_error_not_a_zero():
    class Bypass(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3)

        def forward(self, x):
            return F.conv2d(x, self.conv.weight, self.conv.bias)

    with pytest.raises(ValueError, match=r"\['conv'\] were not called as modules"):
        costs.count(Bypass(), torch.zeros(1, 1, 5, 5))
    assert costs.count(Bypass(), torch.zeros(1, 1, 5, 5), ignore_unused=["conv"]).macs == 0


def test_a_failing_forward_leaves_no_hooks_behind():
    layer = nn.Linear(3, 2)
    with pytest.raises(RuntimeError):
        costs.count(layer, torch.zeros(1, 4))
    assert not layer._forward_hooks
