"""What all datasets share: drawing a share of the labels (Tables 2 and 3)."""

import numpy as np
import pytest

from pawlib.bench import datasets
from pawlib.bench.datasets import Track


def labelled(n=200, n_labels=6):
    random = np.random.default_rng(1)
    share = np.array([0.5, 0.4, 0.3, 0.2, 0.03, 0.01])[:n_labels]
    target = (random.random((n, n_labels)) < share).astype(np.float32)
    target[0] = 1
    return [Track(str(i), None, row, str(i)) for i, row in enumerate(target)], [f"l{k}" for k in range(n_labels)]


def test_every_label_is_heard_where_there_is_room():
    tracks, _ = labelled()
    for seed in range(20):
        few = datasets.few_labels(tracks, 5, seed)
        assert len(few) == 10 == len({track.id for track in few})
        assert datasets.targets(few).any(axis=0).all()


def test_a_draw_depends_on_the_seed_alone_and_keeps_the_order():
    tracks, _ = labelled()
    ids = [[t.id for t in datasets.few_labels(tracks, 10, seed)] for seed in (0, 0, 1)]
    assert ids[0] == ids[1] != ids[2]
    assert ids[0] == sorted(ids[0], key=int)


def test_tracks_without_a_rare_label_are_drawn_alike():
    tracks, _ = labelled()
    drawn = np.zeros(len(tracks))
    for seed in range(300):
        for track in datasets.few_labels(tracks, 10, seed):
            drawn[int(track.id)] += 1
    plain = [int(t.id) for t in tracks if not t.target[4:].any()]
    assert drawn[plain].mean() / 300 == pytest.approx(0.1, abs=0.02)
    assert drawn[plain].max() < 60 and drawn[plain].min() > 8  # 300 draws at a tenth: 30 +- 5


def test_labels_that_found_no_room_are_named():
    tracks, names = labelled()
    one = datasets.few_labels([t for t in tracks if t.id != "0"], 0.5, 0)
    assert len(one) == 1
    assert datasets.unheard(one, names) == [name for name, yes in zip(names, one[0].target, strict=True) if not yes]


def test_a_floor_keeps_toy_corpora_from_having_no_label():
    tracks, _ = labelled(n=20)
    assert (
        len(datasets.few_labels(tracks, 1, seed=0, floor=4)) == 4
        and len(datasets.few_labels(tracks, 50, 0, floor=4)) == 10
    )
    with pytest.raises(ValueError, match="floor=21 tracks are more than the 20"):
        datasets.few_labels(tracks, 1, seed=0, floor=21)


@pytest.mark.parametrize(("percent", "said"), [(0, "no share"), (101, "no share"), (0.1, "is none")])
def test_impossible_shares_are_refused(percent, said):
    tracks, _ = labelled()
    with pytest.raises(ValueError, match=said):
        datasets.few_labels(tracks, percent, 0)


def test_a_split_without_tracks_has_no_targets():
    with pytest.raises(ValueError, match="no tracks, so no targets"):
        datasets.targets([])
