"""pawlib/model.py: the variants wired, checkpoints there and back, songs of any length embedded."""

import json

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from pawlib import augment, checkpoints, crops, losses, model

SMALL = {
    "whole_seconds": 0.64,
    "hop_length": 16,
    "n_levels": 2,
    "feed_forward": 16,
    "n_layers": 1,
    "n_heads": 2,
    "head_width": 4,
}
DEEP = {**SMALL, "whole_seconds": 1.28, "n_levels": 3}
RATE = 16_000
N_WHOLE = 10_240


class Quick(nn.Module):
    """Stands for an encoder where only the wiring is tested: batch norm, then a map of each band's mean and peak."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.map = nn.Linear(256, 512)

    def forward(self, mel):
        x = self.norm(mel).squeeze(1)
        return torch.tanh(self.map(torch.cat([x.mean(-1), x.amax(-1)], dim=-1)))


def small(variant="music_paw", quick=False, seed=0, **kw):
    torch.manual_seed(seed)
    made = model.MusicPAW(variant, **{**SMALL, **kw})
    if quick:
        made.encoder = Quick()
    return made


def noise(n_songs=2, n_samples=N_WHOLE, seed=0):
    return 0.1 * torch.randn(n_songs, n_samples, generator=torch.Generator().manual_seed(seed))


def step(made, wave, keys=(1, 2)):
    torch.manual_seed(0)  # dropout
    z, z_aug = made(*made.views(wave, keys))
    return made.loss(z, z_aug), z, z_aug


WITHOUT_GRADIENT = {
    # the single whole is the only key of Eq. 2: its softmax is 1 whatever W_K of level 0 says
    "music_paw": {"block.units.0.of_whole.key.weight"},
    "cousins": {"block.units.0.of_whole.key.weight"},
    # and here Eq. 2's outcome, the parts, does not enter the loss
    "pw_block": {f"block.units.0.{name}.weight" for name in ("of_whole.key", "of_whole.value", "of_parts.query")},
}


@pytest.mark.parametrize("variant", model.VARIANTS)
def test_every_variant_learns_with_every_parameter_that_matters(variant):
    made = small(variant).train()
    loss, z, z_aug = step(made, noise())
    assert loss.shape == (2,) and torch.isfinite(loss).all()
    assert [level.shape for level in z] == [(2, 2**n, 256) for n in range(made.n_seen_levels)]
    assert z_aug.shape == (2, 256)
    loss.mean().backward()
    idle = {name for name, p in made.named_parameters() if p.grad is None or not p.grad.any()}
    idle -= {name for name in idle if name.endswith("conv.bias")}  # batch norm takes every shift away again
    assert idle == WITHOUT_GRADIENT.get(variant, set())
    assert all(torch.isfinite(p.grad).all() for p in made.parameters() if p.grad is not None)
    assert (made.block is not None) == (variant in ("music_paw", "pw_block", "cousins"))


def test_only_what_enters_the_loss_is_computed():
    assert [small(v, quick=True).n_seen_levels for v in model.VARIANTS] == [2, 2, 2, 1, 2, 2, 2]


@pytest.mark.parametrize("variant", model.VARIANTS)
def test_variants_have_the_loss_of_their_name(variant):
    made = small(variant, quick=True, **DEEP).eval()
    loss, z, z_aug = step(made, noise(3, 2 * N_WHOLE), (1, 2, 3))
    expected = {
        "music_paw": lambda: losses.hierarchical_contrastive(z, z_aug, 0.5),
        "hc": lambda: losses.hierarchical_contrastive(z, z_aug, 0.5),
        "pw_block": lambda: losses.nt_xent(z[0][:, 0], z_aug, 0.5),
        "baseline": lambda: losses.nt_xent(z[0][:, 0], z_aug, 0.5),
        "cousins": lambda: losses.hierarchical_contrastive(z, z_aug, 0.5, tree="cousins"),
        "flat_multicrop": lambda: losses.hierarchical_contrastive(z, z_aug, 0.5, tree="flat"),
        "baseline_multicrop": lambda: losses.multicrop_nt_xent(z, z_aug, 0.5),
    }[variant]()
    torch.testing.assert_close(loss, expected)


def test_switches_reach_the_loss():
    made = small(
        "hc", quick=True, **DEEP, temperature=0.3, symmetric=True, reduce="mean", tau_pw=0.2, pw_exponent="printed"
    ).eval()
    loss, z, z_aug = step(made, noise(2, 2 * N_WHOLE))
    kw = {"symmetric": True, "reduce": "mean", "tau_pw": 0.2, "pw_exponent": "printed"}
    torch.testing.assert_close(loss, losses.hierarchical_contrastive(z, z_aug, 0.3, **kw))


def test_switches_reach_the_block():
    made = small("cousins", quick=True, **DEEP, order="bottom_up", share=False, mix=[0.1, 0.2, 0.3])
    assert (made.block.order, made.block.tree) == ("bottom_up", "cousins")
    assert [unit.mix for unit in made.block.units] == [(0.1, 0.2), (0.2, 0.3)]
    assert made.block.units[0].to_whole is not made.block.units[1].to_whole


@pytest.mark.parametrize(("training", "batch_norm"), [(False, "joint"), (True, "per_level")])
def test_block_with_mix_zero_equals_the_baseline(training, batch_norm):
    block, plain = (small(v, quick=True, mix=0.0, batch_norm=batch_norm) for v in ("pw_block", "baseline"))
    plain.load_state_dict({k: v for k, v in block.state_dict().items() if not k.startswith("block.")})
    (a, z_a, aug_a), (b, z_b, aug_b) = (step(m.train(training), noise()) for m in (block, plain))
    torch.testing.assert_close(a, b)
    torch.testing.assert_close(z_a[0], z_b[0])
    torch.testing.assert_close(aug_a, aug_b)


def test_hierarchical_contrast_of_one_level_equals_the_baseline():
    hc, plain = (small(v, quick=True, n_levels=1, whole_seconds=0.32) for v in ("hc", "baseline"))
    wave = noise(2, 5120)
    torch.testing.assert_close(step(hc.train(), wave)[0], step(plain.train(), wave)[0])


def test_batch_norm_per_level_differs_from_joint_in_training_only():
    joint, per_level = (small("hc", quick=True, batch_norm=b) for b in ("joint", "per_level"))
    torch.testing.assert_close(step(joint.eval(), noise())[0], step(per_level.eval(), noise())[0])
    assert (step(joint.train(), noise())[0] - step(per_level.train(), noise())[0]).abs().max() > 1e-4
    assert (joint.encoder.norm.num_batches_tracked, per_level.encoder.norm.num_batches_tracked) == (1, 3)


def test_clips_are_encoded_in_their_place():
    made = small("hc", quick=True, **DEEP).eval()
    wave = noise(2, 2 * N_WHOLE)
    tree, mel_aug = made.views(wave, (1, 2))
    s, s_aug = made.encode(tree, mel_aug)
    clips = crops.hierarchical_crops(wave, 3)
    for n in range(3):
        for b in range(2):
            for k in range(2**n):
                alone = made.encoder(made.mels.level(n, clips[n][b : b + 1, k : k + 1]).flatten(0, 1))[0]
                torch.testing.assert_close(s[n][b, k], alone, atol=1e-3, rtol=1e-3)
    view = augment.augment(wave, (1, 2), RATE)
    expected = made.encoder(made.mels.level(0, view.unsqueeze(1)).flatten(0, 1))
    torch.testing.assert_close(s_aug, expected, atol=1e-3, rtol=1e-3)
    assert (s[0][:, 0] - s_aug).abs().max() > 0.05


def test_augmented_view_bypasses_the_block():
    made = small(quick=True).eval()
    tree, mel_aug = made.views(noise(), (1, 2))
    _, z_aug = made(tree, mel_aug)
    made.block = None
    torch.testing.assert_close(made(tree, mel_aug)[1], z_aug)


def test_clips_of_the_tree_are_augmented_only_on_request():
    wave, keys = noise(), [augment.sample_key(0, 0, i) for i in range(2)]
    plain, augmented = small("hc", quick=True), small("hc", quick=True, augment_clips=True)
    tree, aug = plain.views(wave, keys)
    for got, expected in zip(tree, plain.mels(crops.hierarchical_crops(wave, 2)), strict=True):
        assert torch.equal(got, expected)
    other_tree, other_aug = augmented.views(wave, keys)
    assert torch.equal(other_aug, aug)
    assert not torch.equal(other_tree[0], tree[0])
    assert not torch.equal(other_tree[0], aug)  # a draw of its own
    assert all(torch.equal(a, b) for a, b in zip(augmented.views(wave, keys)[0], other_tree, strict=True))


def test_logged_numbers_are_what_they_say():
    made = small("hc", quick=True, **DEEP)
    z = [torch.randn(3, 2**n, 256) for n in range(3)]
    z_aug = torch.randn(3, 256)
    loss, logs = made.objective(z, z_aug)
    torch.testing.assert_close(loss, made.loss(z, z_aug))
    top, aug = (v / v.norm(dim=-1, keepdim=True) for v in (z[0][:, 0], z_aug))
    assert logs["alignment"] == pytest.approx((2 - 2 * (top * aug).sum(-1)).mean().item(), rel=1e-4)
    apart = [torch.exp(-2 * (top[i] - top[j]).square().sum()) for i in range(3) for j in range(i)]
    assert logs["uniformity"] == pytest.approx(torch.log(sum(apart) / 3).item(), rel=1e-4)
    assert [logs["part_whole_similarity_01"], logs["part_whole_similarity_12"]] == losses.part_whole_similarity(z)
    assert logs["part_whole_share"] == pytest.approx(losses.part_whole_share(z, z_aug, 0.5).mean().item())


def test_share_is_logged_only_where_it_stands_in_the_ratio():
    z, z_aug = [torch.randn(2, 2**n, 256) for n in range(2)], torch.randn(2, 256)
    assert "part_whole_share" not in small("baseline", quick=True).objective(z[:1], z_aug)[1]
    assert "part_whole_share" not in small("hc", quick=True, positives="outside_log").objective(z, z_aug)[1]
    assert "part_whole_share" in small("flat_multicrop", quick=True).objective(z, z_aug)[1]


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"variant": "musicpaw"}, "variant='musicpaw' is unknown, expected one of music_paw, hc"),
        ({"encoder": "fcn_5"}, "encoder='fcn_5' is unknown"),
        ({"batch_norm": "none"}, "batch_norm='none' is unknown"),
        ({"window": "grown"}, "window='grown' is unknown"),
        ({"order": "sideways"}, "order='sideways' is unknown"),
        ({"pw_exponent": "outside"}, "pw_exponent='outside' is unknown"),
        ({"reduce": "max"}, "reduce='max' is unknown"),
        ({"positives": "both"}, "positives='both' is unknown"),
        ({"temperature": 0.0}, "temperature=0.0 must be positive"),
        ({"tau_pw": 0.0}, "tau_pw=0.0 must be positive"),
        ({"mix": [0.5]}, "1 mixes for 2 levels"),
        ({"whole_seconds": 0.0001}, "no hop of 16 samples"),
    ],
)
def test_unknown_switches_are_refused_before_the_first_step(switches, message):
    with pytest.raises(ValueError, match=message):
        model.MusicPAW(**{**SMALL, **switches})


def test_wave_of_another_length_is_refused():
    with pytest.raises(ValueError, match="do not divide into 2 equal clips"):
        small(quick=True).views(noise(2, N_WHOLE + 1), (1, 2))


# Checkpoints


@pytest.mark.parametrize("share", [True, False])
def test_weights_come_back_from_a_checkpoint(tmp_path, share):
    made = small(share=share, mix=[0.2, 0.4], **{k: v for k, v in DEEP.items() if k == "whole_seconds"})
    with torch.no_grad():
        for p in made.parameters():
            p.add_(torch.randn_like(p))
    path = tmp_path / "folder" / "weights.safetensors"
    made.save(path, {"epochs": 3})
    back = model.MusicPAW.load(path)
    assert back.settings == made.settings
    assert back.state_dict().keys() == made.state_dict().keys()
    assert all(torch.equal(value, back.state_dict()[name]) for name, value in made.state_dict().items())
    assert sorted(p.name for p in path.parent.iterdir()) == ["weights.json", "weights.safetensors"]
    card = json.loads((path.parent / "weights.json").read_text())
    assert card == checkpoints.read_card(path)
    assert card["epochs"] == 3 and card["settings"]["share"] is share


def test_a_shared_transformer_is_saved_once(tmp_path):
    made = small(**DEEP)
    made.save(tmp_path / "a.safetensors")
    stored = safetensors.torch.load_file(tmp_path / "a.safetensors")
    unique = {id(t) for t in (*made.parameters(), *made.buffers()) if t is not None} - {
        id(b) for b in made.mels.buffers()
    }
    assert len(stored) == len(unique) < len(made.state_dict())
    back = model.MusicPAW.load(tmp_path / "a.safetensors")
    assert len({id(unit.to_whole) for unit in back.block.units} | {id(unit.to_parts) for unit in back.block.units}) == 1


def test_a_checkpoint_is_replaced_whole(tmp_path):
    path = tmp_path / "a.safetensors"
    small("hc", quick=False, seed=1).save(path)
    second = small("hc", seed=2)
    second.save(path)
    assert torch.equal(model.MusicPAW.load(path).projector.layers[0].weight, second.projector.layers[0].weight)


def test_a_released_checkpoint_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setenv("PAWLIB_DATA", str(tmp_path))
    with pytest.raises(
        FileNotFoundError, match=r"paw_a is neither a file nor a released checkpoint \(released: none yet\)"
    ):
        model.MusicPAW.load("paw_a")
    made = small("hc")
    made.save(tmp_path / "checkpoints" / "paw_a.safetensors")
    assert torch.equal(model.MusicPAW.load("paw_a").encoder.norm.weight, made.encoder.norm.weight)
    with pytest.raises(FileNotFoundError, match=r"paw_b is neither.*\(released: paw_a\)"):
        model.MusicPAW.load("paw_b")


@pytest.mark.parametrize("keep", [0, 4, 0.5, -1])
def test_a_damaged_checkpoint_is_refused(tmp_path, keep):
    path = tmp_path / "a.safetensors"
    small("hc").save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep) if 0 < keep < 1 else keep])
    with pytest.raises(ValueError, match="a.safetensors cannot be read as safetensors .*was it cut off while copying"):
        model.MusicPAW.load(path)


def test_a_file_of_another_program_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file({"weight": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="is no 'music-paw checkpoint 1' file .*made by another program"):
        model.MusicPAW.load(path)


def test_a_checkpoint_of_another_system_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    small("hc").save(path, {"kind": "clmr"})
    with pytest.raises(ValueError, match="holds a 'clmr' checkpoint, not Music-PAW"):
        model.MusicPAW.load(path)


def test_weights_of_another_geometry_are_refused_with_the_first_that_does_not_fit(tmp_path):
    full, hc = tmp_path / "full.safetensors", tmp_path / "hc.safetensors"
    small().save(full)
    small("hc").save(hc)
    with pytest.raises(ValueError, match=r"another geometry.*feed_forward\.0\.weight is \(16, 8\), expected \(24, 8\)"):
        checkpoints.load_weights(small(feed_forward=24), full)
    with pytest.raises(ValueError, match=r"hc\.safetensors has another geometry.*block\..* is missing"):
        checkpoints.load_weights(small(), hc)
    with pytest.raises(ValueError, match=r"block\..* is not part of the model; was it trained with other settings"):
        checkpoints.load_weights(small("hc"), full)
    before = small("hc")
    with pytest.raises(ValueError):
        checkpoints.load_weights(before, full)
    assert torch.equal(before.projector.layers[0].weight, small("hc").projector.layers[0].weight)


# Embedding


def test_embedding_is_the_encoders_output_of_each_clip():
    made = small(**DEEP).eval()
    wave = noise(2, 2 * N_WHOLE)
    got = made.embed(wave, RATE)
    clips = crops.hierarchical_crops(wave, 3)
    with torch.no_grad():
        for n in range(3):
            expected = made.encoder(made.mels.level(n, clips[n]).flatten(0, 1)).unflatten(0, (2, 2**n))
            torch.testing.assert_close(got[n], expected, atol=1e-4, rtol=1e-4)
    assert sorted(got) == [0, 1, 2]


@pytest.mark.parametrize("n_samples", [300, N_WHOLE // 2, N_WHOLE, N_WHOLE + 1, 3 * N_WHOLE - 5000])
def test_songs_of_any_length_are_embedded_with_times_and_marks(n_samples):
    made = small("hc", quick=True)
    wave = noise(2, n_samples)
    got = made.embed(wave, RATE)
    n_wholes = -(-n_samples // N_WHOLE)
    for n in range(2):
        n_clip, n_clips = N_WHOLE // 2**n, n_wholes * 2**n
        assert got[n].shape == (2, n_clips, 512)
        torch.testing.assert_close(
            got.times[n], torch.tensor([[k * n_clip, (k + 1) * n_clip] for k in range(n_clips)]) / RATE
        )
        assert got.repeated[n].tolist() == [(k + 1) * n_clip > n_samples for k in range(n_clips)]


def test_a_completed_whole_is_the_song_repeated():
    made = small("hc", quick=True)
    wave = noise(1, N_WHOLE // 2)
    torch.testing.assert_close(made.embed(wave, RATE)[0], made.embed(wave.repeat(1, 2), RATE)[0])


def test_one_song_may_come_without_a_batch_axis_and_as_an_array():
    made = small("hc", quick=True)
    wave = noise(2)
    both = made.embed(wave, RATE)
    assert made.embed(wave[0], RATE)[1].shape == (1, 2, 512)
    torch.testing.assert_close(made.embed(wave[1].numpy().astype(np.float64), RATE)[1], both[1][1:])


def test_only_the_levels_asked_for_come_back():
    made = small("hc", quick=True)
    got = made.embed(noise(), RATE, levels=[1])
    assert list(got) == list(got.times) == list(got.repeated) == [1]
    for levels in ([2], [-1], [0, 5]):
        with pytest.raises(ValueError, match=r"are not all in 0\.\.1"):
            made.embed(noise(), RATE, levels=levels)


def test_embedding_is_the_same_twice_and_for_any_batch_of_clips():
    made = small(**DEEP)
    wave = noise(2, 3 * N_WHOLE)
    first, second, little = made.embed(wave, RATE), made.embed(wave, RATE), made.embed(wave, RATE, batch_clips=3)
    for n in range(3):
        assert torch.equal(first[n], second[n])
        torch.testing.assert_close(little[n], first[n], atol=1e-4, rtol=1e-4)


def test_another_sample_rate_gives_nearly_the_same_embedding():
    made = small()

    def sine(hz, rate):
        return 0.3 * torch.sin(2 * torch.pi * hz * torch.arange(int(rate * N_WHOLE / RATE)) / rate)

    at_16k, at_44k, other = (
        made.embed(sine(1000, RATE), RATE),
        made.embed(sine(1000, 44_100), 44_100),
        made.embed(sine(1100, RATE), RATE),
    )
    for n in range(2):
        assert at_44k[n].shape == at_16k[n].shape
        assert (at_44k[n] - at_16k[n]).norm() < 0.3 * (other[n] - at_16k[n]).norm()


def test_a_song_is_resampled_in_float32_whatever_the_encoder_computes_in(monkeypatch):
    paw, heard = model.MusicPAW("hc", **SMALL), []
    monkeypatch.setattr(paw, "embed_clips", lambda clips, level: heard.append(clips) or clips[:, :512])
    wave = 0.1 * torch.randn(22_050 * 6, generator=torch.Generator().manual_seed(0))
    paw.embed(wave, 22_050, levels=[0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        paw.embed(wave, 22_050, levels=[0])
    assert torch.equal(*heard)


def test_embedding_leaves_every_modules_mode_and_the_weights_as_they_were():
    made = small("hc", quick=True).train()
    made.encoder.eval()  # a frozen encoder in a training model
    before = {k: v.clone() for k, v in made.state_dict().items()}
    made.embed(noise(), RATE)
    assert made.training and made.projector.training and not made.encoder.training
    with pytest.raises(RuntimeError):
        made.encoder.map = nn.Linear(3, 3)
        made.embed(noise(), RATE)
    assert made.training and not made.encoder.training
    assert all(torch.equal(made.state_dict()[k], v) for k, v in before.items() if "encoder.map" not in k)


def test_a_probe_can_be_trained_on_embeddings():
    made = small("hc", quick=True)
    probe = nn.Linear(512, 3)
    probe(made.embed(noise(), RATE)[1]).sum().backward()
    assert probe.weight.grad.any()


def test_silence_is_embedded():
    assert all(torch.isfinite(level).all() for level in small().embed(torch.zeros(N_WHOLE), RATE).values())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_audio_with_nan_is_refused(bad):
    wave = noise(1)
    wave[0, 77] = bad
    with pytest.raises(ValueError, match="NaN or infinite samples: is the file corrupt"):
        small("hc", quick=True).embed(wave, RATE)


def test_integer_samples_are_refused_before_they_shift_every_decibel():
    with pytest.raises(ValueError, match="integer samples .*divide by 32768"):
        small("hc", quick=True).embed((noise() * 32768).to(torch.int16).numpy(), RATE)


def test_too_short_and_empty_audio_is_refused():
    made = small("hc", quick=True)
    with pytest.raises(ValueError, match="255 samples at 16000 Hz, less than one STFT window of 256"):
        made.embed(noise(1, 255), RATE)
    with pytest.raises(ValueError, match="less than one STFT window"):
        made.embed(noise(1, 600), 44_100)
    with pytest.raises(ValueError, match="0 samples at 16000 Hz"):
        made.embed(torch.zeros(0), RATE)


def test_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"shape \(1, 2, 10240\), expected .*is it stereo"):
        small("hc", quick=True).embed(noise().unsqueeze(0), RATE)


@pytest.mark.parametrize("variant", ["music_paw", "baseline"])
def test_released_weights_embed_as_the_whole_model_does_and_can_no_more(tmp_path, variant):
    torch.manual_seed(0)
    paw = model.MusicPAW(variant, **SMALL).eval()
    paw.save(tmp_path / "whole.safetensors")
    paw.encoder_alone().save(tmp_path / "alone.safetensors", {"data": "made-up"})
    alone = model.MusicPAW.load(tmp_path / "alone.safetensors").eval()
    card = json.loads((tmp_path / "alone.json").read_text())
    assert card["holds"] == "encoder" and card["data"] == "made-up"
    assert {name.split(".")[0] for name in alone.state_dict()} <= {"encoder", "mels"}
    wave = 0.1 * torch.randn(2, paw.n_whole, generator=torch.Generator().manual_seed(0))
    here, there = (one.embed(wave, paw.sample_rate) for one in (paw, alone))
    assert all(torch.equal(here[n], there[n]) for n in here)
    with pytest.raises(ValueError, match="holds the encoder alone"):
        alone(*alone.views(wave, [0, 1]))
    if variant == "music_paw":
        with pytest.raises(ValueError, match="clips cannot interact"):
            alone.interact(list(here.values()))
    size = {name: (tmp_path / f"{name}.safetensors").stat().st_size for name in ("whole", "alone")}
    assert size["alone"] < size["whole"] - 1_000_000


@pytest.mark.parametrize("variant", ["music_paw", "hc", "pw_block"])
def test_a_random_path_trains_on_seven_clips_of_fifteen(variant):
    made = small(variant, quick=True, whole_seconds=2.56, n_levels=4, descent="random_path")
    wave = noise(3, made.n_whole)
    tree, mel_aug = made.views(wave, (1, 2, 3))
    assert [level.shape[1] for level in tree] == [1, 2, 2, 2]
    alone, _ = made.views(wave[2:], (3,))
    assert all(torch.equal(one[0], level[2]) for one, level in zip(alone, tree, strict=True))
    loss, logs = made.objective(*made(tree, mel_aug))
    loss.mean().backward()
    assert loss.shape == (3,) and "alignment" in logs and made.encoder.map.weight.grad.abs().sum() > 0


def test_a_path_is_drawn_anew_for_every_key_and_the_whole_tree_stays_open_to_inspection():
    made = small(quick=True, whole_seconds=2.56, n_levels=4, descent="random_path")
    wave = noise(1, made.n_whole).expand(40, -1)
    tree, _ = made.views(wave, range(40))
    sums = torch.stack(
        [level.sum(dim=(1, 2, 3, 4)) for level in tree], dim=1
    )  # of each path: its clips, not their order
    assert len(sums.unique(dim=0)) == 4  # 2 parts, twice
    s, _ = made.encode(made.log_mels(wave[:2]), made.log_mel_of_whole(wave[:2]))
    assert [level.shape[1] for level in made.interact(s)] == [1, 2, 4, 8]


def test_a_path_is_refused_where_there_is_none_to_follow():
    with pytest.raises(ValueError, match="descent='random_path' is for music_paw, hc and pw_block, not for cousins"):
        small("cousins", descent="random_path")
    with pytest.raises(ValueError, match="descent='sideways' is unknown"):
        small(descent="sideways")
