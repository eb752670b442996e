"""The pretraining loop: it resumes to the bit, counts devices right, and says what is wrong."""

import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch

from pawlib import encoders, losses, model
from pawlib.bench import corpora, datasets, engine, loop

TOLERANCE = 1e-5
SMALL = {"whole_seconds": 5.6, "n_levels": 2}  # 351 frames, as the paper's, with a quarter of the clips


class Songs:
    """A store of made-up songs: the interface the engine reads from."""

    def __init__(self, n_songs=8, n_samples=120_000, sample_rate=16_000):
        random = np.random.default_rng(0)
        self.waves = {f"song{i}": (0.1 * random.standard_normal(n_samples)).astype(np.float32) for i in range(n_songs)}
        self.rate = sample_rate

    @property
    def ids(self):
        return list(self.waves)

    def sample_rate(self, track_id):
        return self.rate

    def n_samples(self, track_id):
        return len(self.waves[track_id])

    def read(self, track_id, start=0, n_samples=None, mono=True):
        return self.waves[track_id][start:][:n_samples]


def build(seed=0, **settings):
    torch.manual_seed(seed)
    return model.MusicPAW(**{"variant": "music_paw", **SMALL, **settings})


def run(out, store=None, paw=None, **changes):
    store = store or Songs()
    paw = paw or build()
    told = []
    settings = {"n_epochs": 2, "batch_size": 4, "compile": False, "report": told.append, **changes}
    history = engine.pretrain(paw, store, store.ids, out, **settings)
    return paw, history, told


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed")
    return out, *run(out)


def test_a_run_leaves_a_checkpoint_with_its_card_and_nothing_to_resume(undisturbed):
    out, paw, history, told = undisturbed
    card = json.loads((out / "checkpoint.json").read_text())
    assert card["settings"] == paw.settings and card["training"]["weight_decay"] == 1e-6
    assert not (out / "last.safetensors").exists()
    assert len(history) == len(told) == 2
    assert {"loss", "alignment", "uniformity", "part_whole_similarity_01", "part_whole_share"} <= set(history[0])
    loaded = model.MusicPAW.load(out / "checkpoint.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), paw.state_dict().values(), strict=True))


@pytest.mark.parametrize(
    "precision, told", [("32-true", "float32"), ("bf16-mixed", "bfloat16"), ("64-true", "float64")]
)
def test_a_card_says_what_products_are_computed_in(precision, told):
    assert loop.machine(fabric=loop.fabric(precision))["precision"] == told
    assert torch.get_default_dtype() == torch.float32


def test_a_run_says_it_too(undisturbed):
    out, *_ = undisturbed
    told = json.loads((out / "checkpoint.json").read_text())["machine"]["precision"]
    assert told == ("bfloat16" if loop.has_bf16() else "float32")


@pytest.mark.parametrize("stops", [(1,), (2,), (1, 2)], ids=["inside an epoch", "between epochs", "twice"])
def test_stopping_and_resuming_gives_bit_equal_weights(undisturbed, tmp_path, stops):
    _, paw, history, _ = undisturbed
    for n_steps in stops:
        run(tmp_path, stop_after_steps=n_steps)
        assert (tmp_path / "last.safetensors").exists() and not (tmp_path / "checkpoint.safetensors").exists()
    resumed, again, _ = run(tmp_path, paw=build(seed=5))  # whatever it begins with is replaced
    for name, value in paw.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert [e["loss"] for e in again] == [e["loss"] for e in history]


def test_a_finished_run_is_read_back_and_not_repeated(undisturbed):
    out, _, history, _ = undisturbed
    before = (out / "checkpoint.safetensors").stat().st_mtime_ns
    _, again, told = run(out)
    assert again == history and told == []
    assert (out / "checkpoint.safetensors").stat().st_mtime_ns == before


def test_another_seed_gives_other_weights(undisturbed, tmp_path):
    _, paw, _, _ = undisturbed
    other, _, _ = run(tmp_path, seed=1)
    assert not torch.equal(paw.projector.layers[0].weight, other.projector.layers[0].weight)


def test_a_folder_of_another_run_is_refused(undisturbed):
    out, _, _, _ = undisturbed
    with pytest.raises(ValueError, match="was made with n_epochs=2, this run wants 3"):
        run(out, n_epochs=3)


def test_a_damaged_resume_file_is_named(tmp_path):
    (tmp_path / "last.safetensors").write_bytes(b"not a file of ours")
    with pytest.raises(ValueError, match="last.safetensors is damaged"):
        run(tmp_path)


def test_too_few_songs_for_a_batch_are_told(tmp_path):
    with pytest.raises(ValueError, match="3 songs do not fill one batch of 4"):
        run(tmp_path, store=Songs(n_songs=3))


def test_a_loss_that_is_not_finite_stops_and_names_the_songs(tmp_path):
    paw = build()
    store = Songs()
    run(tmp_path, store=store, paw=paw, stop_after_steps=1)
    store.waves = {name: np.full_like(wave, np.nan) for name, wave in store.waves.items()}
    with pytest.raises(FloatingPointError, match=r"epoch 1, step 2, songs song\d"):
        run(tmp_path, store=store)
    assert (tmp_path / "last.safetensors").exists()


def test_weight_decay_reaches_the_weights(tmp_path):
    plain, _, _ = run(tmp_path / "without", weight_decay=0.0, n_epochs=1)
    decayed, _, _ = run(tmp_path / "with", weight_decay=0.5, n_epochs=1)
    assert not torch.equal(plain.encoder.layers[0].conv.weight, decayed.encoder.layers[0].conv.weight)


def test_a_run_warns_when_the_part_whole_term_swamps_the_ratio(tmp_path):
    with pytest.warns(UserWarning, match="part-whole term makes up .* of Eq. 5's numerator"):
        run(tmp_path, paw=build(temperature=0.01, tau_pw=0.002), n_epochs=1)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"loss": 0.01, "alignment": 0.5, "part_whole_share": 0.99}, "hardly anything is learnt from negatives"),
        ({"loss": 0.5, "alignment": 2.2, "part_whole_share": 0.98}, "own augmented view is pushed away"),
        ({"loss": 0.5, "alignment": 1.9, "part_whole_share": 0.98}, None),
        ({"loss": 0.01, "alignment": 2.2, "part_whole_share": 0.5}, None),
        ({"loss": 0.01, "alignment": 2.2}, None),
    ],
)
def test_both_ways_of_being_swamped_are_told_apart(entry, said, recwarn):
    engine._warn_if_swamped({"epoch": 1, **entry})
    assert [str(w.message) for w in recwarn] == [] if said is None else said in str(recwarn.pop(UserWarning).message)


def test_the_share_is_that_of_the_numerator_at_every_epoch(undisturbed):
    _, _, history, _ = undisturbed
    assert all(0 < entry["part_whole_share"] < 1 for entry in history)


def test_ctrl_c_keeps_the_step_that_was_reached(tmp_path):
    store = Songs()

    class Impatient(Songs):
        n_read = 0

        def read(self, *a, **k):
            self.n_read += 1
            if self.n_read > 12:
                raise KeyboardInterrupt
            return super().read(*a, **k)

    impatient = Impatient()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, store=impatient)
    resumed, _, _ = run(tmp_path, store=store)
    assert (tmp_path / "checkpoint.safetensors").exists()
    assert all(torch.isfinite(p).all() for p in resumed.parameters())


def test_crops_are_chosen_by_their_key_alone_and_short_songs_repeated():
    store = Songs(n_songs=1, n_samples=1000)
    a, b = (loop.crop(store, "song0", 16_000, 400, key) for key in (7, 7))
    assert np.array_equal(a, b)
    starts = {loop.crop(store, "song0", 16_000, 400, key)[0] for key in range(200)}
    assert len(starts) > 100
    repeated = loop.crop(store, "song0", 16_000, 2500, 3)
    assert len(repeated) == 2500 and np.array_equal(repeated[:1000], repeated[1000:2000])


def test_a_crop_of_another_rate_is_resampled():
    store = Songs(n_songs=1, n_samples=60_000, sample_rate=48_000)
    t = np.arange(60_000) / 48_000
    store.waves["song0"] = np.sin(2 * np.pi * 1000 * t).astype(np.float32)
    wave = loop.crop(store, "song0", 16_000, 16_000, 0)
    assert len(wave) == 16_000
    assert np.abs(np.fft.rfft(wave)).argmax() == 1000  # bins of 1 Hz


def test_small_scale_takes_the_same_songs_for_every_seed(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(engine, "pretrain", lambda model, store, ids, out, **k: seen.append(list(ids)))
    monkeypatch.setattr(engine.checkpoints, "load_weights", lambda *a: None)
    tracks = [datasets.Track(f"t{i}", None, np.zeros(0, np.float32), f"w{i}") for i in range(500)]
    corpus = corpora.Corpus("mtat-twin", datasets.Splits(tracks, [], [], (), "mtat-twin"), None, [])
    for seed in (0, 1):
        engine.pretrain_at_scale(build, corpus, "music_paw", "fcn_4", scale="small", seed=seed, out=tmp_path)
    assert seen[0] == seen[1] and len(seen[0]) == 400
    with pytest.raises(ValueError, match="scale='tiny' is unknown, expected one of toy, small, paper"):
        engine.pretrain_at_scale(build, corpus, "music_paw", "fcn_4", scale="tiny", seed=0)


class Tiny(torch.nn.Module):
    """The engine's interface around a few smooth layers: no max pool, whose near ties would differ in float32."""

    sample_rate, n_whole, settings = 16_000, 400, {}

    def __init__(self):
        super().__init__()
        self.encoder = torch.nn.Sequential(
            encoders.BatchNorm(1), torch.nn.Flatten(), torch.nn.Linear(400, 16), torch.nn.Tanh()
        )
        self.unused = torch.nn.Linear(3, 3)

    def views(self, wave, keys):
        shift = torch.tensor([[key % 7 / 7.0] for key in keys])
        return wave[:, None, None], (wave.cos() + shift * wave)[:, None, None]

    def forward(self, wave, view):
        return self.encoder(torch.cat([wave, view])).chunk(2)

    def objective(self, z, z_aug):
        return losses.nt_xent(z, z_aug, 0.5), {}


TWO_PROCESSES = """
    import sys, torch
    sys.path.insert(0, {tests!r})
    from test_engine import Songs, Tiny, engine
    torch.set_num_threads(1)
    n, freeze, out = int(sys.argv[1]), sys.argv[2] == "frozen", sys.argv[3]
    torch.manual_seed(0)
    engine.pretrain(Tiny(), Songs(), Songs().ids, out, n_epochs=1, batch_size=4, n_devices=n, compile=False,
                    precision="32-true", freeze_batch_norm=freeze, report=lambda line: None, stop_after_steps=1)
"""


@pytest.mark.parametrize("batch_norm", ["synchronised", "frozen"])
def test_two_processes_have_the_gradients_of_one(tmp_path, batch_norm):
    """Gathered negatives with right gradients: Adam's first moment after one step is a tenth of the gradient."""
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(TWO_PROCESSES.format(tests=str(__import__("pathlib").Path(__file__).parent))))
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node=2",
        "--master_port=0",
        "--rdzv_backend=c10d",
    ]
    launch += ["--rdzv_endpoint=localhost:0"]
    for n, command in ((1, [sys.executable]), (2, launch)):
        done = subprocess.run([*command, script, str(n), batch_norm, tmp_path / str(n)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
    one, two = (safetensors.torch.load_file(tmp_path / n / "last.safetensors") for n in "12")
    told = []
    for n in "12":
        with safetensors.safe_open(tmp_path / n / "last.safetensors", framework="pt") as opened:
            told.append(json.loads(opened.metadata()["told"]))
    assert told[0]["sums"]["loss"] == pytest.approx(told[1]["sums"]["loss"], abs=TOLERANCE)
    gradients = [name for name in one if name.endswith("exp_avg")]
    assert len(gradients) >= 4 and max(one[name].abs().max() for name in gradients) > 1e-4
    for name in gradients:
        assert torch.allclose(10 * one[name], 10 * two[name], atol=TOLERANCE), name
