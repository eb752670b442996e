"""pawlib/encoders.py: counts by hand, both orders of work equal, batch norm equal to torch's and across devices."""

import pytest
import torch
import torch.distributed
import torch.nn.functional as F
from torch import nn

from pawlib import encoders

TOLERANCE = 1e-9


def n_parameters(module):
    return sum(p.numel() for p in module.parameters())


def log_mels(n_clips, n_frames=320, dtype=torch.float32):
    """Noise with the mean and spread of log-mels in dB."""
    return torch.randn(n_clips, 1, 128, n_frames, dtype=dtype) * 15 - 40


def restless(module, zero=False):
    """Give every norm weights of both signs (and a zero), biases, and running statistics of its own."""
    with torch.no_grad():
        for norm in module.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.weight.copy_(torch.randn_like(norm.weight))
                norm.bias.copy_(0.5 * torch.randn_like(norm.bias))
                norm.running_mean.copy_(torch.randn_like(norm.running_mean))
                norm.running_var.copy_(0.5 + torch.rand_like(norm.running_var))
                if zero and norm.num_features > 1:
                    norm.weight[0] = 0.0
    return module


def twin_of(module, make):
    twin = make().to(next(module.parameters()).dtype)
    twin.load_state_dict(module.state_dict())
    return twin.train(module.training)


def run(module, x, weights):
    """Output, gradient of the input and of every parameter, and buffers after the step."""
    x = x.clone().requires_grad_()
    out = module(x)
    (out * weights[: out.numel()].view_as(out)).sum().backward()
    return out.detach(), x.grad, {n: p.grad for n, p in module.named_parameters()}, dict(module.named_buffers())


def assert_same(a, b, tolerance, skip=()):
    for got, expected in zip(a[:2], b[:2], strict=True):
        torch.testing.assert_close(got, expected, atol=tolerance, rtol=tolerance)
    for got, expected in zip(a[2:], b[2:], strict=True):
        assert got.keys() == expected.keys()
        for name in set(got) - set(skip):
            torch.testing.assert_close(
                got[name], expected[name], atol=tolerance, rtol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
            )


def hand_count(channels):
    """Input norm, then per layer 3 x 3 kernels, their biases, and the norm's two numbers per channel."""
    ins = (1, *channels[:-1])
    return 2 + sum(9 * i * o + o + 2 * o for i, o in zip(ins, channels, strict=True))


def test_fcn_4_has_the_parameters_of_table_1():
    assert n_parameters(encoders.FCN4()) == 370_562 == hand_count((64, 128, 128, 128))


def test_fcn_7_has_the_parameters_of_the_short_chunk_cnns_trunk():
    trunk = n_parameters(encoders.FCN7())
    assert trunk == 3_398_018 == hand_count((128, 128, 256, 256, 256, 256, 512))
    head = 512 * 512 + 512 + 2 * 512 + 512 * 10 + 10
    assert round((trunk + head) / 1e6, 2) == 3.67  # the paper's Param column, ten classes


def test_projection_head_is_two_layers_without_bias():
    head = encoders.ProjectionHead()
    assert n_parameters(head) == 512 * 512 + 512 * 256
    s = torch.randn(2, 4, 512)
    first, _, second = head.layers
    torch.testing.assert_close(head(s), (s @ first.weight.T).clamp(min=0) @ second.weight.T)
    assert head(s).shape == (2, 4, 256)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("pool", [(2, 4), (4, 5), 2])
@pytest.mark.parametrize("bias", [True, False])
def test_pooling_first_equals_the_plain_order_of_one_layer(pool, training, bias):
    plain = restless(encoders.ConvLayer(3, 6, pool, pool_first=False).double()).train(training)
    if not bias:
        nn.init.zeros_(plain.conv.bias)
    first = twin_of(plain, lambda: encoders.ConvLayer(3, 6, pool, pool_first=True))
    x, weights = torch.randn(4, 3, 9, 21, dtype=torch.float64), torch.randn(10_000, dtype=torch.float64)
    for _ in range(2):  # two steps, so that running statistics run
        assert_same(run(first, x, weights), run(plain, x, weights), TOLERANCE)
        x = 2 * x + 1
    assert (plain.norm.weight < 0).any() and (plain.norm.weight > 0).any()


@pytest.mark.parametrize("training", [True, False])
def test_pooling_first_equals_the_plain_order_with_a_gamma_of_zero(training):
    plain = restless(encoders.ConvLayer(3, 6, (2, 4), pool_first=False).double(), zero=True).train(training)
    first = twin_of(plain, lambda: encoders.ConvLayer(3, 6, (2, 4), pool_first=True))
    with torch.no_grad():
        plain.norm.bias[0] = first.norm.bias[0] = 0.3  # positive, so that the channel passes the ReLU
    x, weights = torch.randn(4, 3, 8, 20, dtype=torch.float64), torch.rand(10_000, dtype=torch.float64)
    a, b = run(first, x, weights), run(plain, x, weights)
    gamma = "norm.weight"  # at 0 the maximum has no single derivative by gamma; the other channels must agree
    assert_same(a, b, TOLERANCE, skip=[gamma])
    torch.testing.assert_close(a[2][gamma][1:], b[2][gamma][1:], atol=TOLERANCE, rtol=TOLERANCE)
    assert a[2][gamma][0] != 0, "a gamma of zero must be able to leave zero"


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("make", "n_frames"), [(encoders.FCN4, 320), (encoders.FCN7, 140)])
def test_pooling_first_equals_the_plain_order_of_the_whole_encoder(make, n_frames, training):
    plain = restless(make(pool_first=False).double()).train(training)
    first = twin_of(plain, make)
    x, weights = log_mels(2, n_frames, torch.float64), torch.randn(1024, dtype=torch.float64)
    assert_same(run(first, x, weights), run(plain, x, weights), 1e-8)


def test_encoder_switches_between_the_orders():
    encoder = restless(encoders.FCN4().double()).eval()
    x = log_mels(1, dtype=torch.float64)
    with torch.no_grad():
        first, plain = encoder(x), encoder.pooling_first(False)(x)
    assert not any(layer.pool_first for layer in encoder.layers)
    torch.testing.assert_close(first, plain, atol=TOLERANCE, rtol=TOLERANCE)


def test_fcn_4_is_its_layers_written_out():
    encoder = restless(encoders.FCN4().double()).eval()
    x = log_mels(2, 351, torch.float64)
    expected = F.batch_norm(
        x, encoder.norm.running_mean, encoder.norm.running_var, encoder.norm.weight, encoder.norm.bias
    )
    for layer, pool in zip(encoder.layers, [(2, 4), (2, 4), (2, 4), (4, 5)], strict=True):
        norm = layer.norm
        expected = F.conv2d(expected, layer.conv.weight, layer.conv.bias, padding=1)
        expected = F.batch_norm(expected, norm.running_mean, norm.running_var, norm.weight, norm.bias)
        expected = F.max_pool2d(F.relu(expected), pool)
    assert expected.shape == (2, 128, 4, 1)
    with torch.no_grad():
        torch.testing.assert_close(encoder(x), expected.flatten(1), atol=TOLERANCE, rtol=TOLERANCE)


def test_fcn_7_is_the_maximum_over_what_time_is_left():
    encoder = restless(encoders.FCN7().double()).eval()
    x = log_mels(1, 260, torch.float64)
    with torch.no_grad():
        left = encoder.maps(x)
        assert left.shape == (1, 512, 1, 2)
        assert torch.equal(encoder(x), left.max(-1).values.squeeze(-1))


@pytest.mark.parametrize("affine_signs", [False, True])
def test_batch_norm_is_torchs(affine_signs):
    theirs = nn.BatchNorm2d(5).double()
    if affine_signs:
        restless(theirs)
    ours = encoders.BatchNorm(5).double()
    ours.load_state_dict(theirs.state_dict())
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert (ours.momentum, ours.eps) == (theirs.momentum, theirs.eps)
    weights = torch.randn(10_000, dtype=torch.float64)
    for step in range(3):
        x = torch.randn(3, 5, 4, 6, dtype=torch.float64) * 3 + step
        assert_same(run(ours, x, weights), run(theirs, x, weights), TOLERANCE)
    assert ours.num_batches_tracked == 3
    ours.eval(), theirs.eval()
    assert_same(run(ours, x, weights), run(theirs, x, weights), TOLERANCE)


def test_batch_norm_honours_its_momentum():
    ours, theirs = encoders.BatchNorm(2, momentum=0.3), nn.BatchNorm2d(2, momentum=0.3)
    x = torch.randn(4, 2, 3, 3) + 5
    ours(x), theirs(x)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)


def test_batch_norm_of_half_precision_sums_in_float32():
    x = (torch.randn(4, 2, 32, 32) + 30).bfloat16()
    norm = encoders.BatchNorm(2)
    assert norm(x).dtype == torch.bfloat16
    torch.testing.assert_close(norm.running_mean, 0.1 * x.float().mean((0, 2, 3)), atol=1e-4, rtol=1e-4)


def test_batch_norm_of_a_single_value_is_refused():
    with pytest.raises(ValueError, match="more than one value per channel"):
        encoders.BatchNorm(2)(torch.zeros(1, 2, 1, 1))


def test_evaluation_leaves_the_running_statistics_alone():
    encoder = restless(encoders.FCN4()).eval()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    encoder(log_mels(1))
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


class Small(encoders.Trunk):
    """Two layers: too few pooled windows for float32 to pick another maximum than float64 in any of them."""

    name = "small"

    def __init__(self):
        super().__init__((4, 8), ((2, 4), (4, 5)), True)

    def forward(self, mel):
        return self.maps(mel).flatten(1)


ENCODERS = {"small": Small, "fcn_4": encoders.FCN4}


def step(encoder, mel, weights):
    """One clip-wise loss, averaged over clips, and its gradients."""
    out = encoder(mel)
    (out * weights).sum(1).mean().backward()
    return out.detach()


def two_devices(rank, folder):
    """One of two processes: its half of each batch, statistics of both, gradients averaged as DDP does."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    results = []
    for job in torch.load(folder / "jobs.pt"):
        encoder = ENCODERS[job["encoder"]]().to(job["mel"].dtype)
        encoder.load_state_dict(job["state"])
        for norm in encoder.modules():
            if isinstance(norm, encoders.BatchNorm):
                norm.synchronise = True
        half = slice(len(job["mel"]) // 2 * rank, len(job["mel"]) // 2 * (rank + 1))
        out = step(encoder, job["mel"][half], job["weights"][half])
        for p in encoder.parameters():
            torch.distributed.all_reduce(p.grad)
            p.grad /= 2
        grads = {n: p.grad for n, p in encoder.named_parameters()}
        results.append({"out": out, "grads": grads, "state": encoder.state_dict()})
    torch.save(results, folder / f"rank{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_devices_equal_one_on_the_joint_batch(tmp_path):
    levels = torch.tensor([0.5, 1.0, 1.5, 2.0]).view(4, 1, 1, 1)  # the two halves differ in mean and spread
    mels = {
        "small": (torch.randn(4, 1, 16, 40) * 15 - 40) * levels,
        "fcn_4": log_mels(4, dtype=torch.float64) * levels,
        "nearly silent": torch.randn(4, 1, 16, 40) * 0.01 - 99.9,
    }
    models, jobs = [], []
    for name, mel in mels.items():
        slug = name if name in ENCODERS else "small"
        models.append(restless(ENCODERS[slug]().to(mel.dtype)))
        state = {k: v.clone() for k, v in models[-1].state_dict().items()}
        weights = torch.randn(4, models[-1](mel).shape[1], dtype=mel.dtype)
        models[-1].load_state_dict(state)
        jobs.append({"encoder": slug, "state": state, "mel": mel, "weights": weights})
    torch.save(jobs, tmp_path / "jobs.pt")
    torch.multiprocessing.spawn(two_devices, (tmp_path,), nprocs=2)
    ranks = [torch.load(tmp_path / f"rank{r}.pt") for r in range(2)]
    for i, (name, model, job) in enumerate(zip(mels, models, jobs, strict=True)):
        # between -99.9 dB and 0.01 dB of spread float32 itself keeps but four digits
        tolerance = {"small": 1e-5, "fcn_4": TOLERANCE, "nearly silent": 2e-3}[name]
        out = step(model, job["mel"], job["weights"])
        joined = torch.cat([rank[i]["out"] for rank in ranks])
        torch.testing.assert_close(joined, out, atol=tolerance, rtol=tolerance)
        for rank in ranks:
            for key, value in model.state_dict().items():
                torch.testing.assert_close(rank[i]["state"][key], value, atol=tolerance, rtol=tolerance)
            if name != "nearly silent":
                for key, p in model.named_parameters():
                    scale = max(1.0, p.grad.abs().max().item())
                    torch.testing.assert_close(
                        rank[i]["grads"][key] / scale, p.grad / scale, atol=tolerance, rtol=tolerance
                    )
            assert all(torch.isfinite(grad).all() for grad in rank[i]["grads"].values())


@pytest.mark.parametrize("training", [True, False])
def test_channels_last_gives_the_same_numbers(training):
    encoder = restless(encoders.FCN4()).train(training)
    other = twin_of(encoder, encoders.FCN4).to(memory_format=torch.channels_last)
    mel = log_mels(2)
    with torch.no_grad():
        torch.testing.assert_close(other(mel.to(memory_format=torch.channels_last)), encoder(mel), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_bfloat16_autocast_is_close(training):
    encoder = encoders.FCN4().train(training)
    other = twin_of(encoder, encoders.FCN4)
    mel = log_mels(2)
    expected = encoder(mel)
    with torch.autocast("cpu", torch.bfloat16):
        got = other(mel)
    assert (got.float() - expected).norm() / expected.norm() < 0.02
    if training:
        got.float().sum().backward()
        assert all(torch.isfinite(p.grad).all() for p in other.parameters())


@pytest.mark.parametrize("n_frames", [320, 351, 639])
def test_fcn_4_takes_320_to_639_frames(n_frames):
    assert encoders.FCN4().eval()(log_mels(1, n_frames)).shape == (1, 512)


@pytest.mark.parametrize("n_frames", [319, 640])
def test_fcn_4_refuses_other_lengths(n_frames):
    with pytest.raises(ValueError, match=rf"fcn_4 got 128 mel bands x {n_frames} frames, expected 128 x 320..639"):
        encoders.FCN4()(log_mels(1, n_frames))


def test_fcn_7_takes_128_frames_and_more_and_refuses_fewer():
    assert encoders.FCN7().eval()(log_mels(1, 128)).shape == (1, 512)
    with pytest.raises(ValueError, match="fcn_7 got 128 mel bands x 127 frames, expected 128 x at least 128"):
        encoders.FCN7()(log_mels(1, 127))


@pytest.mark.parametrize("make", [encoders.FCN4, encoders.FCN7])
def test_another_shape_is_refused(make):
    with pytest.raises(ValueError, match="96 mel bands"):
        make()(torch.zeros(1, 1, 96, 351))
    with pytest.raises(ValueError, match="join songs and clips first"):
        make()(torch.zeros(1, 2, 1, 128, 351))
    with pytest.raises(ValueError, match="join songs and clips first"):
        make()(torch.zeros(1, 2, 128, 351))


def test_encoders_are_built_by_their_slugs():
    assert isinstance(encoders.build("fcn_4"), encoders.FCN4)
    assert not encoders.build("fcn_7", pool_first=False).layers[0].pool_first
    with pytest.raises(ValueError, match="encoder='fcn_5' is unknown, expected one of fcn_4, fcn_7"):
        encoders.build("fcn_5")
