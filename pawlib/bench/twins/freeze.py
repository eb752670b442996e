"""Score a twin with cheap baselines only: the evidence on which its generator is frozen.

    python -m pawlib.bench.twins.freeze [ROOT]     write mtat-v1-baselines.json beside this module

Rule: before any pretraining is looked at, log-mel statistics, MFCC statistics and random encoders must be above chance
and clearly below ceiling on musical, part and order tags. After that the generator changes with its version only.

For order tags a second score tells presence from order: `direction` is the ROC-AUC of a tag among the clips that have
either scheme of its pair (crescendo among crescendo and diminuendo), where only the order differs. What hears no order
is at 0.5 there, however well it hears that something changes.

Told in: notebooks/01_data.ipynb
"""

import argparse
import csv
import datetime
from pathlib import Path

import numpy as np
import soundfile
import torch

from pawlib import paths
from pawlib.bench import baselines
from pawlib.bench.files import read_json, write_json
from pawlib.bench.progress import progress
from pawlib.bench.twins import mtat

FILE = Path(__file__).with_name(f"mtat-v{mtat.VERSION}-baselines.json")
SEEDS = range(5)


def read(root):
    """A twin's waves, targets, splits and tags, straight from its files.

    Returns
    -------
    list of np.ndarray, float32 [shape=(n_samples,)]
    np.ndarray, float32 [shape=(n_tracks, n_tags)]
    np.ndarray of str [shape=(n_tracks,)]
    list of str
    """
    root = Path(root)
    with open(root / "annotations_final.csv", newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file, delimiter="\t")
    folders = {digit: split for split, digits in mtat.FOLDERS.items() for digit in digits}
    targets = np.array([row[1:-1] for row in rows], dtype=np.float32)
    waves = [
        soundfile.read(root / row[-1], dtype="float32")[0] for row in progress(rows, what="reading", unit="tracks")
    ]
    return waves, targets, np.array([folders[row[-1][0]] for row in rows]), header[1:-1]


def score(x, targets, splits, tags, twin):
    """ROC-AUC per group, per tag, and per pair of order tags, of a logistic probe on features x."""
    train, valid, test = (splits == name for name in ("train", "valid", "test"))
    scores = baselines.logistic_probe(x[train], targets[train], x[valid], targets[valid], x[test])
    truth = targets[test]
    per_tag = {tag: _roc_auc(truth[:, k], scores[:, k]) for k, tag in enumerate(tags)}
    groups = {group: float(np.mean([per_tag[tag] for tag in names])) for group, names in twin["groups"].items()}
    direction = {}
    for a, b in twin["pairs"]:
        i, j = tags.index(a), tags.index(b)
        either = (truth[:, i] + truth[:, j]) > 0
        direction[f"{a} / {b}"] = _roc_auc(truth[either, i], scores[either, i] - scores[either, j])
    return {
        "groups": {**groups, "order, direction": float(np.mean(list(direction.values())))},
        "per_tag": per_tag,
        "direction": direction,
    }


def table(root, random=True):
    """All baselines on one twin: dict baseline -> {groups: {group: {roc_auc, spread}}, per_tag, direction}."""
    twin = read_json(Path(root) / "twin.json")
    waves, *rest = read(root)
    features = {
        "log-mel statistics": [_all(baselines.log_mel_statistics, waves)],
        "MFCC statistics": [_all(baselines.mfcc_statistics, waves)],
    }
    for name, clips in (
        (("random FCN-4, whole", "whole"), ("random FCN-4, mean of short clips", "short")) if random else ()
    ):
        seeds = progress(SEEDS, what=name, unit="seeds")
        features[name] = [baselines.random_fcn_4(waves, seed, clips, n_clips=4) for seed in seeds]
    return {name: _summary([score(x, *rest, twin) for x in runs]) for name, runs in features.items()}


def write(root, random=True, path=FILE):
    """Score the twin in `root` and write the table."""
    twin = read_json(Path(root) / "twin.json")
    found = table(root, random)
    about = {key: twin[key] for key in ("name", "version", "seed", "size", "n_tracks", "n_per_split")}
    write_json(
        path, {**about, "metric": "macro ROC-AUC", "date": datetime.date.today().isoformat(), "baselines": found}
    )
    return found


def _all(statistics, waves):
    """Features of every wave [shape=(n, n_features)]; on one thread, more only wait for each other."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return np.stack([statistics(wave, 16_000) for wave in progress(waves, what=statistics.__name__, unit="tracks")])
    finally:
        torch.set_num_threads(n_threads)


def _summary(runs):
    """Mean over seeds, and standard deviation where there are several."""
    groups = {
        group: {
            "roc_auc": round(float(np.mean([run["groups"][group] for run in runs])), 4),
            "spread": round(float(np.std([run["groups"][group] for run in runs])), 4),
        }
        for group in runs[0]["groups"]
    }
    rounded = {
        key: {name: round(float(np.mean([run[key][name] for run in runs])), 4) for name in runs[0][key]}
        for key in ("per_tag", "direction")
    }
    return {"n_seeds": len(runs), "groups": groups, **rounded}


def _roc_auc(truth, scores):
    """ROC-AUC of one tag."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(truth, scores))


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("root", nargs="?", default=paths.twins("mtat"), type=Path)
    parser.add_argument("--statistics-only", action="store_true", help="leave out the random encoders (minutes)")
    arguments = parser.parse_args()
    for name, found in write(arguments.root, not arguments.statistics_only).items():
        print(name, {group: (entry["roc_auc"], entry["spread"]) for group, entry in found["groups"].items()})


if __name__ == "__main__":
    main()
