"""pawlib/fast_layer.py: equal to convolution, statistics, pooling one after the other, in every mode and type."""

import copy
import threading

import pytest
import torch
import torch.nn.functional as F

from pawlib import encoders, fast_layer

TOLERANCE = 1e-9


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def threads(request):
    torch.set_num_threads(request.param)
    yield request.param
    assert torch.get_num_threads() == request.param  # the workers' own setting stays theirs
    torch.set_num_threads(1)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(fast_layer, "BLOCK", 2_000)


def reference(x, weight, pool):
    raw = F.conv2d(x, weight, padding=1)
    var, mean = torch.var_mean(raw, dim=(0, 2, 3), correction=0)
    return F.max_pool2d(raw, pool), mean, var


def gradients(outputs, inputs):
    torch.manual_seed(1)
    return torch.autograd.grad(sum((out * torch.randn(out.shape, dtype=out.dtype)).sum() for out in outputs), inputs)


def assert_all_close(got, expected, tolerance=TOLERANCE):
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("pool", [(2, 4), (2, 2), (4, 5)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_conv_pool_equals_one_after_the_other(pool, layout, threads, small_blocks):
    x = torch.randn(5, 3, 13, 22, dtype=torch.float64).to(memory_format=layout).requires_grad_()
    weight = torch.randn(6, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    got, expected = fast_layer.conv_pool(x, weight, pool), reference(x, weight, pool)
    assert_all_close(got, expected)
    assert_all_close(gradients(got, (x, weight)), gradients(expected, (x, weight)))


@pytest.mark.parametrize("pool", [(2, 4), (2, 2), (3, 5)])
@pytest.mark.parametrize("gain, offset", [(1.3, -0.4), (-0.7, 0.0), (0.0, 2.0)])
def test_a_picture_equals_its_affine_map_one_after_the_other(pool, gain, offset, threads, small_blocks):
    picture = torch.randn(5, 1, 13, 22, dtype=torch.float64)
    gain, offset = (torch.tensor([v], dtype=torch.float64, requires_grad=True) for v in (gain, offset))
    weight = torch.randn(6, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    learnt = (gain, offset, weight)
    got = fast_layer.picture_conv_pool(picture, *learnt, pool)
    expected = reference(gain * picture + offset, weight, pool)
    assert_all_close(got, expected)
    assert_all_close(gradients(got, learnt), gradients(expected, learnt))


def test_of_equal_values_the_first_has_the_gradient_as_in_max_pool2d(small_blocks):
    """Silence: a constant picture, where every place of the pool but at the edges holds the maximum."""
    picture = torch.full((2, 1, 8, 16), -1.5, dtype=torch.float64)
    learnt = [
        torch.ones(1, dtype=torch.float64, requires_grad=True),
        torch.zeros(1, dtype=torch.float64, requires_grad=True),
    ]
    learnt.append(torch.randint(-2, 3, (4, 1, 3, 3)).double().requires_grad_())  # exact in any order of summation
    got = fast_layer.picture_conv_pool(picture, *learnt, (2, 4))
    expected = reference(learnt[0] * picture + learnt[1], learnt[2], (2, 4))
    assert_all_close(gradients(got[:1], learnt), gradients(expected[:1], learnt))


def test_scale_shift_relu_equals_its_formula(threads, small_blocks):
    x = torch.randn(3, 5, 7, 9, dtype=torch.float64).to(memory_format=torch.channels_last).requires_grad_()
    scale, shift = (torch.randn(5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    got = fast_layer.scale_shift_relu(x, scale, shift)
    expected = F.relu(x * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1))
    assert_all_close([got], [expected])
    assert_all_close(gradients([got], (x, scale, shift)), gradients([expected], (x, scale, shift)))


def test_variance_of_a_smooth_picture_keeps_its_digits_in_float32():
    picture = torch.randn(4, 1, 128, 351, dtype=torch.float64).cumsum(-1)
    picture = (picture - picture.mean()) / picture.std()
    weight = torch.tensor([[-1.0, 2.0, -1.0]] * 3, dtype=torch.float64).view(1, 1, 3, 3)  # nearly nothing is left
    one, none = torch.ones(1), torch.zeros(1)
    _, _, var = fast_layer.picture_conv_pool(picture.float(), one, none, weight.float(), (2, 4))
    torch.testing.assert_close(var.double(), reference(picture.float().double(), weight, (2, 4))[2], atol=0, rtol=1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_bf16_is_as_close_to_float64_as_the_plain_order_is(training):
    encoder = encoders.FCN4().train(training).to(memory_format=torch.channels_last)
    plain = copy.deepcopy(encoder).pooling_first(False)
    exact = copy.deepcopy(plain).double()
    mel = torch.randn(2, 1, 128, 320) * 15 - 40
    expected = exact(mel.double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fast, slow = encoder(mel), plain(mel)
    assert fast.dtype == torch.bfloat16
    error, error_of_plain = ((out.double() - expected).norm() / expected.norm() for out in (fast, slow))
    assert error < 1.5 * error_of_plain + 1e-3


def test_the_gradient_does_not_depend_on_the_blocks(monkeypatch):
    encoder, mel = encoders.FCN4().double(), torch.randn(3, 1, 128, 320, dtype=torch.float64)
    found = []
    for block in (10_000, 10_000_000):
        monkeypatch.setattr(fast_layer, "BLOCK", block)
        found.append(gradients([encoder(mel)], list(encoder.parameters())))
    assert_all_close(*found)


def test_a_picture_with_a_gradient_takes_the_general_way():
    encoder = encoders.FCN4()
    mel = torch.randn(2, 1, 128, 320, requires_grad=True)
    encoder(mel).sum().backward()
    assert mel.grad.abs().sum() > 0


def test_while_compile_traces_the_plain_way_is_taken(monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    monkeypatch.setattr(fast_layer._ConvPool, "apply", None)
    x, weight = torch.randn(2, 3, 8, 8), torch.randn(4, 3, 3, 3)
    assert_all_close(fast_layer.conv_pool(x, weight, (2, 2)), reference(x, weight, (2, 2)), 1e-5)


def test_it_works_in_inference_mode_and_from_another_thread(threads, small_blocks):
    encoder, mel = encoders.FCN4().eval(), torch.randn(2, 1, 128, 320)
    with torch.no_grad():
        expected = encoder(mel)
    found = []

    def work():
        with torch.inference_mode():
            found.append(encoder(mel))

    worker = threading.Thread(target=work)
    worker.start()
    worker.join()
    assert_all_close(found, [expected], 1e-5)
