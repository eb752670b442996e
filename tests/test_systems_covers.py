"""The five cover-song systems: published sizes and weights, what key and length may change, two branches joined.

`published_*` write CQT-Net and TPP-Net a second time, as functions of a list of tensors that are used up in the
published order. A system that holds another order, shape or wiring gives other numbers.
"""

import functools
import math

import pytest
import torch
import torch.nn.functional as F

from pawlib import checkpoints, encoders, model, systems
from pawlib.bench import results
from pawlib.systems import layers

SLUGS = ("ki_net", "tpp_net", "fcn_4_cover", "cqt_net", "fcn_4_on_cqt_net")
PARAMETERS = {  # without the classifier
    "ki_net": 1_536_812,
    "tpp_net": 3_010_796,
    "fcn_4_cover": 524_462,
    "cqt_net": 5_080_428,
    "fcn_4_on_cqt_net": 5_080_428 + 370_562 + 812 * 300 + 300,
}
STAGES = {  # each layer's map of a song of 400 frames, as the docstrings have them
    "ki_net": [[256, 12, 353], [256, 1, 326], [256, 1, 135]],
    "tpp_net": [[32, 49, 361], [64, 38, 180], [128, 36, 89], [256, 1, 44], [512, 1, 21], [512, 1, 10]],
    "cqt_net": [
        [32, 85, 398], [64, 73, 198], [64, 61, 196], [64, 59, 97], [128, 57, 95], [128, 55, 46], [256, 53, 44],
        [256, 51, 21], [512, 49, 19], [512, 47, 15],
    ],
}  # fmt: skip
TOLERANCE = 1e-4

each = pytest.mark.parametrize("slug", SLUGS)


@functools.cache
def built(slug):
    """One network per system for all tests that leave it as it is, in evaluation, with random running statistics."""
    torch.manual_seed(1)
    made = systems.build(slug, n_classes=7).eval()
    made.load_state_dict(random_state(made))
    return made


def random_state(made):
    """Weights like a trained network's: norms of their own, kernels that keep the spread of what they meet."""
    state = {}
    for name, value in made.state_dict().items():
        if value.ndim > 1:
            state[name] = torch.randn_like(value) * (1.4 / value[0].numel() ** 0.5)
        elif name.endswith(("running_var", "weight")):
            state[name] = torch.rand_like(value) + 0.5
        else:
            state[name] = torch.randn_like(value) * 0.1 if value.is_floating_point() else value + 7
    return state


def inputs(made, n_songs=1, n_frames=200, seed=0):
    """A CQT like a song's, and the encoder's features of three clips where they are asked for."""
    generator = torch.Generator().manual_seed(seed)
    cqt = torch.rand(n_songs, 1, 84, n_frames, generator=generator) ** 4
    return (cqt, torch.rand(n_songs, 3, 512, generator=generator)) if made.needs_clips else (cqt,)


# --- the registry ---


def test_cover_systems_are_listed_in_the_order_of_table_4():
    assert systems.names("covers") == SLUGS
    rows = results.paper(4)
    assert [row["slug"] for row in rows if row["group"] == "Supervised"] == list(SLUGS[:4])
    assert {row["backbone_slug"] for row in rows if row["group"] != "Supervised"} == {SLUGS[4]}


@each
def test_parameters_without_the_classifier(slug):
    made = systems.build(slug, n_classes=10)
    own = sum(p.numel() for name, p in made.named_parameters() if not name.startswith("classifier."))
    assert own == PARAMETERS[slug] == sum(p.numel() for p in systems.build(slug, n_classes=None).parameters())
    assert sum(p.numel() for p in made.parameters()) == own + 300 * 10 + 10


@each
def test_settings_build_a_twin(slug):
    made = systems.build(slug, n_classes=7)
    assert made.settings["slug"] == slug == made.slug
    twin = systems.build(**made.settings)
    twin.load_state_dict(made.state_dict())
    assert twin.settings == made.settings


# --- what goes through ---


@each
def test_a_song_becomes_300_numbers_and_a_score_per_training_song(slug):
    made = built(slug)
    with torch.no_grad():
        found = made(*inputs(made, 2))
        assert found.shape == (2, 300) and made.logits(found).shape == (2, 7)
        alone = made(*(one[1:] for one in inputs(made, 2)))
    torch.testing.assert_close(found[1:], alone, atol=TOLERANCE, rtol=TOLERANCE)
    assert not torch.allclose(found[0], found[1], atol=TOLERANCE)
    assert torch.equal(made.logits(found), F.linear(found, made.classifier.weight, made.classifier.bias))


@pytest.mark.parametrize("slug", STAGES)
def test_shapes_through_each_stage_are_those_of_the_docstring(slug):
    made, seen = built(slug), []
    parts = [part for part in made.modules() if isinstance(part, layers.Conv2dLayer)]
    hooks = [part.register_forward_hook(lambda part, x, out: seen.append(list(out.shape[1:]))) for part in parts]
    try:
        with torch.no_grad():
            made(*inputs(made, n_frames=400))
    finally:
        for hook in hooks:
            hook.remove()
    assert seen == STAGES[slug]
    for shape in seen:
        assert f"(B, {', '.join(map(str, shape))})" in type(made).__doc__


@each
def test_training_reaches_every_parameter_in_bfloat16_too(slug):
    made = systems.build(slug, n_classes=4).train()
    with torch.autocast("cpu", torch.bfloat16):
        if made.needs_clips:
            cqt, _ = inputs(made, 2)
            clips = made.log_mels(0.1 * torch.randn(2, 1, made.n_samples))
            assert clips.shape == (2, 1, 1, 128, 351) and not clips.requires_grad
            embedding = made(cqt, clips)
        else:
            embedding = made(*inputs(made, 2))
        logits = made.logits(embedding)
    assert embedding.dtype == logits.dtype == torch.float32
    F.cross_entropy(logits, torch.tensor([0, 3])).backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        if parameter.ndim > 1:
            assert parameter.grad.abs().sum() > 0, name


# --- key ---


def test_ki_net_gives_a_transposed_song_exactly_the_same_embedding():
    made, (cqt,) = built("ki_net"), inputs(built("ki_net"))
    cqt[:, :, :12], cqt[:, :, 72:] = 0, 0  # room to move
    with torch.no_grad():
        home = made(cqt)
        for semitones in (1, 5, -7, 12):
            torch.testing.assert_close(made(cqt.roll(semitones, dims=2)), home, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(made(cqt.flip(2)), home, atol=1e-2)


def test_ki_net_tiles_the_octave_by_hand():
    cqt = torch.zeros(1, 1, 84, 200)
    cqt[0, 0, 0, 3], cqt[0, 0, 14, 3], cqt[0, 0, 26, 3] = 1.0, 2.0, 6.0  # a C, and the D of two octaves
    tiled = built("ki_net").tiled(cqt)[0, 0, :, 3]
    expected = torch.zeros(23)
    expected[[0, 12]], expected[[2, 14]] = 1 / 8, 1.0
    torch.testing.assert_close(tiled, expected)


def test_cqt_net_moves_its_map_with_the_key():
    """Nothing is padded or pooled over pitch but the first layer's edge: a semitone up is a row up."""
    made, (cqt,) = built("cqt_net"), inputs(built("cqt_net"))
    cqt[:, :, :30], cqt[:, :, 54:] = 0, 0
    with torch.no_grad():
        low, high = made.layers[:2](cqt), made.layers[:2](cqt.roll(3, dims=2))
    torch.testing.assert_close(low[:, :, 6:-9], high[:, :, 9:-6], atol=1e-5, rtol=1e-5)


# --- two branches ---


def test_fcn_4_on_cqt_net_is_one_linear_layer_on_both_embeddings_side_by_side():
    made = built("fcn_4_on_cqt_net")
    cqt, features = inputs(made, 2)
    with torch.no_grad():
        both = torch.cat([made.cqt_net(cqt), features.mean(1)], dim=1)
        assert both.shape == (2, 812)
        expected = both @ made.embedding.weight.T + made.embedding.bias
        torch.testing.assert_close(made(cqt, features), expected, atol=TOLERANCE, rtol=TOLERANCE)


def test_what_each_branch_adds_sums_up_to_the_embedding():
    made = built("fcn_4_on_cqt_net")
    cqt, features = inputs(made, 2)
    with torch.no_grad():
        notes, sound = made.cqt_net(cqt), features.mean(1)
        parts = made.parts(torch.cat([notes, sound], dim=1))
        assert {name: part.shape for name, part in parts.items()} == {"cqt_net": (2, 300), "fcn_4": (2, 300)}
        together = parts["cqt_net"] + parts["fcn_4"] + made.embedding.bias
        torch.testing.assert_close(together, made(cqt, features), atol=TOLERANCE, rtol=TOLERANCE)
        other = made.parts(torch.cat([notes, 2 * sound], dim=1))
        torch.testing.assert_close(other["cqt_net"], parts["cqt_net"])
        torch.testing.assert_close(other["fcn_4"], 2 * parts["fcn_4"], atol=TOLERANCE, rtol=TOLERANCE)


def test_log_mels_and_the_features_of_the_same_encoder_give_the_same_embedding():
    made = built("fcn_4_on_cqt_net")
    cqt, _ = inputs(made, 2)
    mels = made.log_mels(0.1 * torch.randn(2, 2, made.n_samples))
    with torch.no_grad():
        features = torch.stack([made.encoder(clips) for clips in mels])
        torch.testing.assert_close(made(cqt, mels), made(cqt, features), atol=TOLERANCE, rtol=TOLERANCE)
        swapped = made(cqt, mels.flip(1))
        torch.testing.assert_close(made(cqt, mels), swapped, atol=TOLERANCE, rtol=TOLERANCE)  # a mean has no order


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(0)
    model.MusicPAW("hc", whole_seconds=5.6, n_levels=2).save(out / "hc.safetensors", {"seed": 7})
    for slug in ("fcn_4", "short_chunk_cnn"):
        tagger = systems.build(slug, n_classes=3)
        checkpoints.save(tagger, out / f"{slug}.safetensors", "tagger", {"labels": ["a", "b", "c"]})
    return out


@pytest.mark.parametrize("name", ["hc", "fcn_4"])
def test_a_pretrained_start_has_the_checkpoints_encoder_and_front_end(folder, name):
    made = systems.system("fcn_4_on_cqt_net")
    first, card = made.from_checkpoint(folder / f"{name}.safetensors", 5, seed=1)
    again, _ = made.from_checkpoint(folder / f"{name}.safetensors", 5, seed=1)
    other, _ = made.from_checkpoint(folder / f"{name}.safetensors", 5, seed=2)
    assert card["kind"] == {"hc": "music_paw", "fcn_4": "tagger"}[name]
    state = checkpoints.safetensors.torch.load_file(folder / f"{name}.safetensors")
    for key, value in first.encoder.state_dict().items():
        assert torch.equal(value, state[f"encoder.{key}"]), key
    assert (first.sample_rate, first.n_samples, first.settings["n_classes"]) == (16_000, 44_800, 5)
    assert torch.equal(first.embedding.weight, again.embedding.weight)
    assert not torch.equal(first.embedding.weight, other.embedding.weight)
    assert systems.build(**first.settings).settings == first.settings


def test_another_encoder_is_refused_by_name(folder):
    with pytest.raises(ValueError, match="holds the encoder 'fcn_7', expected fcn_4"):
        systems.system("fcn_4_on_cqt_net").from_checkpoint(folder / "short_chunk_cnn.safetensors", 5, seed=0)


def test_fcn_4_cover_is_fcn_4_in_layers_and_parameters():
    made = built("fcn_4_cover")
    ours, theirs = made.encoder.state_dict(), encoders.FCN4().state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}
    cqt = inputs(made, n_frames=400)[0]
    with torch.no_grad():
        assert made.encoder(cqt).shape == (1, 128, 10, 6) and made.features(cqt).shape == (1, 512)


# --- errors ---


@each
def test_other_shapes_short_songs_and_damaged_values_are_refused_by_name(slug):
    made = built(slug)
    rest = inputs(made, 2)[1:]
    for shape in ((2, 1, 84, 199), (2, 1, 83, 200), (2, 84, 200)):
        with pytest.raises(ValueError, match=r"_net got a CQT|cover got a CQT"):
            made(torch.zeros(shape), *rest)
    cqt = torch.zeros(2, 1, 84, 200)
    cqt[1, 0, 5, 5] = math.nan
    with pytest.raises(ValueError, match=r"NaN or infinite values in songs \[1\]"):
        made(cqt, *rest)
    with pytest.raises(ValueError, match=f"{slug} was built with n_classes=None"):
        systems.build(slug, n_classes=None).logits(torch.zeros(1, 300))


@pytest.mark.parametrize("shape", [(2, 3, 511), (1, 3, 512), (2, 3, 128, 351)])
def test_clips_that_do_not_fit_are_refused(shape):
    made = built("fcn_4_on_cqt_net")
    with pytest.raises(ValueError, match="got clips of shape .* with 2 songs' CQTs"):
        made(inputs(made, 2)[0], torch.zeros(shape))
    with pytest.raises(ValueError, match=r"expected \(B, n_clips, 44800\)"):
        made.log_mels(torch.zeros(2, 1, 44_801))


# --- the published networks, written a second time ---


class Tensors:
    """A published state dict's tensors, used up in order by the operations of a network in evaluation."""

    def __init__(self, state):
        self.left = [value for name, value in state.items() if not name.endswith("num_batches_tracked")]

    def take(self, n):
        taken, self.left = self.left[:n], self.left[n:]
        return taken

    def conv(self, x, **kw):
        (weight,) = self.take(1)
        gain, offset, mean, var = self.take(4)
        return F.relu(F.batch_norm(F.conv2d(x, weight, **kw), mean, var, gain, offset))

    def linear(self, x):
        return F.linear(x, *self.take(2))


def pool(x):
    """Maximum of two frames, the first of them alone: one frame of padding."""
    return F.max_pool2d(F.pad(x, (1, 1), value=-math.inf), (1, 2), (1, 2))


def published_cqt_net(t, x):
    x = t.conv(x, padding=(6, 0))
    x = pool(t.conv(x, dilation=(1, 2)))
    for number in range(2, 10):
        x = t.conv(x, dilation=(1, 1 + number % 2))
        x = pool(x) if number in (3, 5, 7) else x
    x = t.linear(x.flatten(2).max(2).values)
    return x, t.linear(x)


def published_tpp_net(t, x):
    x = t.conv(x)
    for _ in range(2):
        x = t.conv(x, stride=(1, 2))
    x = x.max(2, keepdim=True).values
    for _ in range(3):
        x = t.conv(x, stride=(1, 2))
    moments = x.shape[-1]
    parts = []
    for n in (4, 3, 2, 1):
        edges = [(i * moments // n, -(-(i + 1) * moments // n)) for i in range(n)]
        parts.append(torch.stack([x[:, :, 0, a:b].max(2).values for a, b in edges], dim=2).flatten(1))
    x = t.linear(torch.cat(parts, dim=1))
    return x, t.linear(x)


@pytest.mark.parametrize("n_frames", [200, 263])
@pytest.mark.parametrize("slug", ["cqt_net", "tpp_net"])
def test_weights_copied_in_the_published_order_give_the_published_outputs(slug, n_frames):
    made = systems.build(slug, n_classes=20).eval()
    state = {f"module.{i}.{name.split('.')[-1]}": value for i, (name, value) in enumerate(random_state(made).items())}
    layers.copy_in_order(made, state)
    tensors, (cqt,) = Tensors(state), inputs(made, 2, n_frames)
    with torch.no_grad():
        expected, expected_logits = globals()[f"published_{slug}"](tensors, cqt)
        ours = made(cqt)
        logits = made.logits(ours)
    assert not tensors.left and expected.std() > 0.05
    torch.testing.assert_close(ours, expected, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(logits, expected_logits, atol=1e-3, rtol=1e-3)


# --- narrow networks, for the scale small ---


@pytest.mark.parametrize("slim", [2, 4])
def test_a_narrow_cqt_net_has_the_published_depth_and_maps_with_fewer_channels(slim):
    narrow = systems.build("cqt_net", n_classes=7, slim=slim).eval()
    x, shapes = torch.rand(1, 1, 84, 400), []
    for layer in narrow.layers:
        x = layer(x)
        shapes.append(list(x.shape[1:]))
    assert shapes == [[n // slim, *rest] for n, *rest in STAGES["cqt_net"]]
    assert narrow(torch.rand(2, 1, 84, 200)).shape == (2, 300)
    again = systems.build(**narrow.settings)
    assert narrow.settings["slim"] == slim and again.settings == narrow.settings
    again.load_state_dict(narrow.state_dict())


def test_only_at_small_is_anything_narrow_and_the_published_settings_say_nothing_of_it():
    for slug in SLUGS:
        made = systems.system(slug)
        assert made.at_scale("paper") == made.at_scale("toy") == {}
        assert "slim" not in systems.build(slug, n_classes=7).settings
    narrow, branch = (systems.system(slug).at_scale("small") for slug in ("cqt_net", "fcn_4_on_cqt_net"))
    assert narrow == branch == {"slim": 4}, "CQT-Net alone and below FCN-4 must be the same network"


def test_fcn_4_on_a_narrow_cqt_net_keeps_the_encoder_of_its_start(tmp_path):
    start = model.MusicPAW("music_paw", "fcn_4", n_levels=2, feed_forward=16)
    path = tmp_path / "checkpoint.safetensors"
    start.save(path)
    made, _ = systems.system("fcn_4_on_cqt_net").from_checkpoint(path, 7, 0, slim=4)
    assert made.settings["slim"] == 4 and made.cqt_net.embedding.in_features == 128
    for name, value in start.encoder.state_dict().items():
        assert torch.equal(value, made.encoder.state_dict()[name]), name


@pytest.mark.parametrize("slim", [0, 3, 64, -4])
def test_channels_that_cannot_be_divided_are_refused(slim):
    with pytest.raises(ValueError, match=f"slim={slim} does not divide 32 channels"):
        systems.build("cqt_net", slim=slim)
