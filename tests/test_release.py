"""Released weights: the encoder and its tags are what the run has, by name, and a name is given once."""

import numpy as np
import pytest
import torch
from test_engine import Songs

from pawlib import checkpoints, model, paths
from pawlib.bench import corpora, datasets, embed, release


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A corpus of two tags, a finished run, and the checkpoint's model."""
    monkeypatch.setenv("PAWLIB_DATA", str(tmp_path))
    store = Songs(n_songs=16, n_samples=90_000)
    tracks = [
        datasets.Track(i, None, np.array([k % 2, k % 3 == 0], np.float32), f"w{k}") for k, i in enumerate(store.ids)
    ]
    splits = datasets.Splits(tracks[:6], tracks[6:11], tracks[11:], ("odd", "third"), "mtat-twin")
    data = corpora.Corpus("mtat-twin", splits, store, [])
    monkeypatch.setattr(corpora, "open_corpus", lambda *a, **k: data)
    torch.manual_seed(0)
    paw = model.MusicPAW("music_paw", whole_seconds=5.6, n_levels=2).eval()
    paw.save(paths.runs() / "a.run" / "checkpoint.safetensors", {"system": "music_paw", "commit": "abc", "seed": 0})
    return data, paw


def test_three_lines_give_the_vectors_of_the_run(desk):
    data, paw = desk
    made = release.release("a.run", "tiny")
    assert [path.name for path in made] == ["tiny.safetensors", "tiny.tags.safetensors"]
    loaded = model.MusicPAW.load("tiny").eval()
    wave = data.store.read("song0")
    here, there = paw.embed(wave, 16_000), loaded.embed(wave, 16_000)
    assert all(torch.equal(here[n], there[n]) for n in here)
    card = checkpoints.read_card(paths.checkpoints() / "tiny.safetensors")
    assert card["holds"] == "encoder" and card["run"] == "a.run" and card["commit"] == "abc"
    assert card["licence"] and card["limits"] and 0 <= card["scores"]["roc_auc"] <= 1
    assert card["scores"]["dataset"] == "mtat-twin"


def test_tags_answer_as_the_probe_did(desk):
    data, paw = desk
    release.release("a.run", "tiny")
    tags = release.load_tags("tiny")
    assert tags.labels == ("odd", "third")
    x = embed.splits(paw, data)["test"].x
    answers = tags(x)
    assert answers.shape == (len(x), 2) and ((answers > 0) & (answers < 1)).all()
    by_hand = torch.sigmoid((x - tags.mean) / tags.deviation @ tags.weight.T + tags.bias)
    assert torch.allclose(answers, by_hand, atol=1e-6)


def test_a_name_is_given_once_and_a_run_must_have_finished(desk, capsys):
    release.release("a.run", "tiny")
    with pytest.raises(FileExistsError, match="tiny.safetensors is released already, .* choose a name"):
        release.release("a.run", "tiny")
    assert (
        release.main(["b.run", "other"]) == 2 and "neither a file nor a released checkpoint" in capsys.readouterr().err
    )
    assert release.main(["only one"]) == 2
    with pytest.raises(ValueError, match="'x.tags' cannot be a name"):
        release.release("a.run", "x.tags")
    assert not (paths.checkpoints() / "other.tags.safetensors").exists()


def test_tags_that_are_not_there_or_damaged_are_told(desk):
    release.release("a.run", "tiny")
    with pytest.raises(FileNotFoundError, match=r"no tags were released with 'huge' \(there are some for: tiny\)"):
        release.load_tags("huge")
    with pytest.raises(FileNotFoundError, match=r"released: tiny\)"):
        checkpoints.find("huge")
    path = paths.checkpoints() / "tiny.tags.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="tiny.tags.safetensors cannot be read .* cut off"):
        release.load_tags("tiny")
    (paths.checkpoints() / "tiny.safetensors").rename(path)
    with pytest.raises(ValueError, match="is no 'music-paw tags 1' file"):
        release.load_tags("tiny")


# --- what came with the checkout ---


def test_the_small_weights_embed_and_name_tags_right_after_installation():
    wave = 0.1 * torch.randn(30 * 22_050, generator=torch.Generator().manual_seed(0))
    paw = model.MusicPAW.load(paths.SMALL_WEIGHTS)
    levels = paw.embed(wave, 22_050)
    assert [tuple(levels[n].shape) for n in range(4)] == [(1, 2 * 2**n, 512) for n in range(4)]
    tags = release.load_tags(paths.SMALL_WEIGHTS)
    answers = tags(levels[3][0])
    assert len(tags.labels) == 50 and answers.shape == (16, 50) and ((answers >= 0) & (answers <= 1)).all()


def test_the_card_of_the_small_weights_says_what_random_ones_score():
    card = checkpoints.read_card(checkpoints.find(paths.SMALL_WEIGHTS))
    own, random = card["scores"], card["scores_of_random_weights"]
    assert own["dataset"] == card["data"]["corpus"] == "mtat-twin" and random["row"].split(".")[2] == "random"
    assert own["valid_roc_auc"] > random["valid_roc_auc"]  # why they were released
    assert {"licence", "limits", "run", "commit", "training"} <= set(card)
