"""receptive: the rule by hand, followed through real modules, and confirmed by a gradient."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pawlib import encoders, systems
from pawlib.bench import receptive
from pawlib.bench.receptive import Layer


def zeros(n_bands, n_frames, n_channels=1):
    return torch.zeros(1, n_channels, n_bands, n_frames)


def same(one, other):
    return (one.size, one.jump, one.start) == (other.size, other.jump, other.start)


# --- a stack by hand ---


def test_a_hand_worked_stack():
    a, b, c, d = receptive.stack([Layer(3, padding=1), Layer(2, stride=2), Layer((1, 3), dilation=2), Layer((2, 4), 1)])
    assert (a.size, a.jump, a.start) == ((3, 3), (1, 1), (-1, -1))
    assert (b.size, b.jump, b.start) == ((4, 4), (2, 2), (-1, -1))
    assert (c.size, c.jump) == ((4, 4 + 2 * 2 * 2), (2, 2))
    assert (d.size, d.jump) == ((4 + 2, 12 + 3 * 2), (2, 2))


def test_stack_equals_a_slow_search_along_one_axis():
    layers = [(5, 2, 1, 1), (3, 1, 1, 1), (2, 2, 0, 1), (3, 1, 2, 2), (3, 2, 0, 1)]
    seen = {0}
    for kernel, stride, padding, dilation in reversed(layers):
        seen = {i * stride - padding + k * dilation for i in seen for k in range(kernel)}
    last = receptive.stack([Layer(*one) for one in layers])[-1]
    assert (last.start[1], last.start[1] + last.size[1] - 1) == (min(seen), max(seen))
    assert last.jump[1] == 2 * 2 * 2


def test_a_cell_s_window_moves_by_the_jump():
    field = receptive.stack([Layer(5, 2, 1), Layer(2, 2)])[-1]
    assert field.seen((0, 0)) == ((-1, 6), (-1, 6))
    assert field.seen((1, 3)) == ((3, 10), (11, 18))


def test_length_in_seconds_counts_hops_and_the_last_window():
    field = receptive.stack([Layer(3)])[-1]
    assert field.seconds(512, 22_050) == pytest.approx(3 * 512 / 22_050)
    assert field.seconds(512, 22_050, n_fft=2048) == pytest.approx((2 * 512 + 2048) / 22_050)


def test_impossible_layers_are_refused():
    with pytest.raises(ValueError, match="no layers"):
        receptive.stack([])
    with pytest.raises(ValueError, match="kernel, stride and dilation are expected from 1 on"):
        receptive.stack([Layer(0)])


# --- through modules ---


class Branching(nn.Module):
    """A residual sum whose paths see differently far, a dense joining, functional pools."""

    def __init__(self):
        super().__init__()
        self.wide, self.narrow = nn.Conv2d(1, 2, 5, padding=2), nn.Conv2d(1, 2, 1)
        self.long = nn.Conv2d(2, 2, (1, 7), padding=(0, 3), dilation=1)
        self.last = nn.Conv2d(4, 3, 3, stride=2)

    def forward(self, x):
        x = F.relu(self.wide(x)) + self.narrow(x)
        x = F.avg_pool2d(F.max_pool2d(x, 2), (1, 2))
        return self.last(torch.cat([x, self.long(x)], dim=1))


def test_paths_that_meet_see_all_that_either_sees_and_the_gradient_agrees():
    module = Branching()
    found = receptive.fields(module, zeros(48, 96))
    assert [one.name for one in found] == ["wide", "narrow", "", "", "long", "last", "output"]
    assert [one.kind for one in found] == [*["convolution"] * 2, *["pool"] * 2, *["convolution"] * 2, "output"]
    assert found[0].size == (5, 5) and found[1].size == (1, 1)
    assert found[2].size == (6, 6) and found[3].size == (6, 8)  # 5 + 1; 6 + 2 in time
    assert found[4].size == (6, 8 + 6 * 4)
    assert found[5].size == (6 + 2 * 2, 32 + 2 * 4) == found[6].size
    assert found[6].jump == (4, 8)
    assert same(found[6], receptive.measured(module, zeros(48, 96), "forward"))


def test_a_stack_and_the_module_made_of_it_agree():
    layers = [Layer(5, 2, 1), Layer(3, 1, 1), Layer(2, 2), Layer((3, 1), 1, (1, 0)), Layer(2, 2)]
    module = nn.Sequential(
        nn.Conv2d(1, 2, 5, 2, 1), nn.Conv2d(2, 2, 3, 1, 1), nn.MaxPool2d(2), nn.Conv2d(2, 1, (3, 1), 1, (1, 0)),
        nn.AvgPool2d(2),
    )  # fmt: skip
    found = receptive.fields(module, zeros(64, 80))
    assert [one.name for one in found] == ["0", "1", "2", "3", "4", "output"]
    assert all(same(a, b) for a, b in zip(receptive.stack(layers), found, strict=False))
    assert same(found[-1], receptive.measured(module, zeros(64, 80), "forward"))


def test_the_picture_s_size_and_channels_do_not_change_the_field():
    module = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2))
    one, other = (receptive.fields(module, zeros(*size, 2))[-1] for size in ((8, 8), (40, 12)))
    assert same(one, other) and one.shape == (4, 4) and other.shape == (20, 6)


def test_the_list_ends_where_the_map_does():
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    found = receptive.fields(module, zeros(8, 8))
    assert [one.name for one in found] == ["0", "map"] and same(*found)


def test_a_map_weighed_by_its_own_mean_sees_everything():
    class Squeezed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.next = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3)

        def forward(self, x):
            x = self.conv(x)
            return self.next(x * x.mean((2, 3), keepdim=True))

    found = receptive.fields(Squeezed(), zeros(16, 16))
    assert [one.name for one in found] == ["conv", "map"] and same(*found)


def test_the_encoders_of_the_paper():
    encoder = encoders.FCN4()
    found = receptive.fields(encoder, zeros(128, 351))
    # frequency: + 2 * 1, pool + 1, + 2 * 2, + 2, ...; time with pools 4, 4, 4, 5
    assert found[-1].jump == (2 * 2 * 2 * 4, 4 * 4 * 4 * 5)
    size_f = 1 + (2 + 1) + (2 * 2 + 2) + (2 * 4 + 4) + (2 * 8 + 3 * 8)
    size_t = 1 + (2 + 3) + (2 * 4 + 3 * 4) + (2 * 16 + 3 * 16) + (2 * 64 + 4 * 64)
    assert found[-1].size == (size_f, size_t)
    assert encoder.layers[0].pool_first and encoder.layers[0].norm.training  # put back


def test_a_tagger_is_followed_through_its_features():
    model = systems.build("short_chunk_cnn_res").eval()
    found = receptive.fields(model, zeros(128, 231), "features")
    size = jump = 1
    for _ in range(7):  # each block: 3 x 3 of stride 2, 3 x 3
        size, jump = size + 2 * jump, 2 * jump
        size += 2 * jump
    assert found[-1].size == (size, size) and found[-1].jump == (128, 128)


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match=r"x has shape \(1, 8\), expected a picture"):
        receptive.fields(nn.Conv2d(1, 1, 3), torch.zeros(1, 8))
    with pytest.raises(ValueError, match="runs no two-dimensional convolution or pool"):
        receptive.fields(nn.Flatten(), zeros(4, 4))
    with pytest.raises(ValueError, match="expected a map .B, C, H, W. of 2 x 2 cells"):
        receptive.measured(nn.Conv2d(1, 1, 8), zeros(8, 8), "forward")
    with pytest.raises(ValueError, match="reaches the edge of a picture of 10 x 10"):
        receptive.measured(nn.Conv2d(1, 1, 9), zeros(10, 10), "forward")
