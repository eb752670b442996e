"""Score a twin with cheap baselines only: the evidence on which its generator is frozen.

    python -m pawlib.bench.twins.freeze [ROOT]                      write mtat-v2-baselines.json beside this module
    python -m pawlib.bench.twins.freeze --dataset gtzan [ROOT]      write gtzan-v2-baselines.json
    python -m pawlib.bench.twins.freeze --dataset dcase2016         write dcase2016-v2-baselines.json

Rule: before any pretraining is looked at, log-mel statistics, MFCC statistics and random encoders must be above chance
and clearly below ceiling: on musical, part and order tags (MTAT), in the share of tracks whose class is right (GTZAN;
for the synthetic scenes below a half on every split).
After that the generator changes with its version only.

The scenes' baselines are measured as the rows of Tables 5 and 6 that bear their names are (51_scene_transfer): on what
the store holds at its own 44.1 kHz, by the probe whose classes exclude each other. Version 1 was frozen on another
measure, one classifier for each class at 16 kHz, and its rows were higher: MFCC statistics 52 % of the evaluation set,
where the frozen table said 34 %. MFCCs are heard at 16 kHz, too, in longer windows: the harder measure of the two.

For order tags a second score tells presence from order: `direction` is the ROC-AUC of a tag among the clips that have
either scheme of its pair (crescendo among crescendo and diminuendo), where only the order differs. What hears no order
is at 0.5 there, however well it hears that something changes.

Told in: notebooks/01_data.ipynb, notebooks/50_scene_systems.ipynb
"""

import argparse
import csv
import datetime
import functools
from pathlib import Path

import numpy as np
import soundfile
import torch

from pawlib import encoders, mels, paths
from pawlib.bench import audio, baselines, corpora, embed, metrics, protocols, scenes, supervised
from pawlib.bench.datasets import dcase2016 as scenes_reader
from pawlib.bench.datasets import gtzan as gtzan_reader
from pawlib.bench.datasets import targets
from pawlib.bench.files import read_json, write_json
from pawlib.bench.progress import progress
from pawlib.bench.twins import dcase2016, gtzan, mtat

FILE = Path(__file__).with_name(f"mtat-v{mtat.VERSION}-baselines.json")
GTZAN_FILE = Path(__file__).with_name(f"gtzan-v{gtzan.VERSION}-baselines.json")
SCENES_FILE = Path(__file__).with_name(f"dcase2016-v{dcase2016.VERSION}-baselines.json")
SEEDS = range(5)
SCENES_SEEDS = range(1)  # each is asked on five splits
HEARD_HZ = 16_000


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
    features = _features(waves, random)
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


def genres_table(root, random=True):
    """All baselines on the GTZAN twin, heard at 16 kHz: dict baseline -> {n_seeds, accuracy, spread, per_class}.

    The classifier is `protocols.logistic`, its answer the label with the highest score; with a random encoder there is
    one result per seed.
    """
    splits = gtzan_reader.read(root)
    tracks = progress(splits.tracks, what="reading", unit="tracks")
    waves = [audio.resample(soundfile.read(t.path, dtype="float32")[0], gtzan.SAMPLE_RATE, HEARD_HZ) for t in tracks]
    features = {
        "log-mel statistics": [_all(baselines.log_mel_statistics, waves)],
        "MFCC statistics": [_all(baselines.mfcc_statistics, waves)],
    }
    if random:
        seeds = progress(SEEDS, what="random FCN-4, whole", unit="seeds")
        features["random FCN-4, whole"] = [baselines.random_fcn_4(waves, seed, "whole") for seed in seeds]
    found = {}
    for name, runs in features.items():
        scored = [accuracies(x, splits, seed) for seed, x in enumerate(runs)]
        found[name] = {
            "n_seeds": len(runs),
            "accuracy": round(float(np.mean([overall for overall, _ in scored])), 4),
            "spread": round(float(np.std([overall for overall, _ in scored])), 4),
            "per_class": {
                label: round(float(np.mean([per_class[label] for _, per_class in scored])), 4)
                for label in splits.labels
            },
        }
    return found


def accuracies(x, splits, seed=0):
    """Accuracy over all test tracks, and by class, of a linear classifier on one row of features per track.

    Parameters
    ----------
    x : np.ndarray, float [shape=(n_tracks, n_features)]
        In the order of `splits.tracks`.
    splits : datasets.Splits
        With single_label.
    seed : int

    Returns
    -------
    float
    dict label -> float
    """
    parts, first = {}, 0
    for name in ("train", "valid", "test"):
        listed = getattr(splits, name)
        rows = torch.as_tensor(x[first : first + len(listed)])
        parts[name] = protocols.ClipFeatures(rows, torch.arange(len(listed)), torch.as_tensor(targets(listed)))
        first += len(listed)
    probe = protocols.logistic(**parts, n_labels=len(splits.labels), seed=seed)
    truth = probe.targets.argmax(axis=1)
    by_class = {
        label: metrics.accuracy(probe.scores[truth == k], truth[truth == k]) for k, label in enumerate(splits.labels)
    }
    return metrics.accuracy(probe.scores, truth), by_class


def write_genres(root, random=True, path=GTZAN_FILE):
    """Score the GTZAN twin in `root` and write the table."""
    twin = read_json(Path(root) / "twin.json")
    found = genres_table(root, random)
    about = {key: twin[key] for key in ("name", "version", "seed", "size", "n_tracks", "n_per_split", "n_per_class")}
    chance = max(counts["test"] for counts in twin["n_per_class"].values()) / twin["n_per_split"]["test"]
    write_json(
        path,
        {
            **about,
            "metric": "accuracy",
            "most_frequent_class": round(chance, 4),
            "date": datetime.date.today().isoformat(),
            "baselines": found,
        },
    )
    return found


def scenes_table(scale="small", random=True):
    """All baselines on the synthetic scenes, on each fold and the evaluation set, as chapter 51 measures its rows.

    Parameters
    ----------
    scale : "small" | "toy"
        Of the twin; it and its store are made where they are missing.
    random : bool
        Whether to embed with untrained encoders, too.

    Returns
    -------
    dict baseline -> {n_seeds, accuracy, spread, by_split, per_class}
        accuracy is the mean of the four folds, spread its deviation over seeds, by_split has the evaluation set, too,
        per_class is the mean over folds.
    """
    splits = [corpora.open_corpus("dcase2016", "twin", scale, split=split) for split in scenes_reader.SPLITS]
    statistics = {
        "log-mel statistics": baselines.log_mel_statistics,
        "MFCC statistics": baselines.mfcc_statistics,
        "MFCC statistics, 16 kHz": mfcc_statistics_at_16_khz,
    }
    measures = {name: [_statistics_of_scenes(function, splits[-1])] for name, function in statistics.items()}
    if random:
        measures["random FCN-4"] = [functools.partial(untrained_features, seed=seed) for seed in SCENES_SEEDS]
    found = {}
    for name, runs in progress(measures.items(), what="scoring baselines", unit="baselines"):
        pool = "probabilities" if name.startswith("random") else "embeddings"
        scored = [
            [scene_accuracies(features(corpus), corpus.splits.labels, seed, pool) for corpus in splits]
            for seed, features in enumerate(runs)
        ]
        found[name] = _summary_of_splits(scored, scenes_reader.SPLITS, splits[0].splits.labels)
    return found


def scene_accuracies(features, labels, seed=0, pool="embeddings"):
    """Accuracy over the test files of a fold, and by class, of chapter 51's linear layer on frozen features.

    Parameters
    ----------
    features : dict {"train" | "valid" | "test": protocols.ClipFeatures}
    labels : sequence of str
    seed : int
    pool : "embeddings" | "probabilities"
        As chapter 51 has it: statistics are one row a file, an encoder's clips are averaged after the layer.

    Returns
    -------
    float
    dict label -> float
    """
    probe = protocols.linear_probe(*features.values(), len(labels), seed, pool=pool, single_label=True)
    answers, truth = probe.scores.argmax(axis=1), probe.targets.argmax(axis=1)
    told = scenes.fold_scores(answers, truth, labels)
    return told["accuracy"], told["per_class"]


def mfcc_statistics_at_16_khz(wave, sample_rate):
    """`baselines.mfcc_statistics` of a wave at any rate, resampled to 16 kHz: np.ndarray, float32 (40,)."""
    return baselines.mfcc_statistics(audio.resample(wave, sample_rate, HEARD_HZ), HEARD_HZ)


class Untrained(torch.nn.Module):
    """FCN-4 as chapter 51 begins with it from new weights: log-mel of 2.8 s at 16 kHz, He's initialisation.

    Parameters
    ----------
    seed : int
        The same weights as systems.transfer.from_scratch draws from it.
    n_classes : int
        Of the last layer that is drawn there and not used here.
    """

    n_levels, n_parts, n_samples, n_whole, sample_rate = 1, 1, baselines.CLIP_SAMPLES, baselines.CLIP_SAMPLES, HEARD_HZ

    def __init__(self, seed=0, n_classes=15):
        super().__init__()
        self.settings = {"untrained": "fcn_4", "seed": seed}
        self.log_mel = mels.LogMel()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.encoder = encoders.FCN4()
            torch.nn.Linear(self.encoder.width, n_classes)
            for layer in self.encoder.modules():
                if isinstance(layer, torch.nn.Conv2d):
                    torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                    torch.nn.init.zeros_(layer.bias)

    @torch.no_grad()
    def embed_clips(self, clips, level=0):
        """(B, n_samples) -> (B, 512)."""
        return self.encoder(self.log_mel(clips).unsqueeze(1))


def untrained_features(corpus, seed):
    """Clip features of an untrained FCN-4 with the batch-norm statistics of the training files, by split."""
    model = Untrained(seed, len(corpus.splits.labels))
    supervised.take_statistics(model, corpus, corpus.splits.train, seed)
    return embed.splits(model, corpus)


def write_scenes(scale="small", random=True, path=SCENES_FILE):
    """Score the synthetic scenes and write the table."""
    found = scenes_table(scale, random)
    twin = read_json(paths.twins("dcase2016", scale) / "twin.json")
    about = {key: twin[key] for key in ("name", "version", "seed", "size", "n_tracks", "n_per_set", "synthetic")}
    write_json(
        path,
        {
            **about,
            "metric": "accuracy",
            "most_frequent_class": round(1 / len(twin["classes"]), 4),
            "date": datetime.date.today().isoformat(),
            "baselines": found,
        },
    )
    return found


def _statistics_of_scenes(function, corpus):
    """Features of every file, computed once: a function from a corpus to its splits' ClipFeatures."""
    store, every = corpus.store, corpus.store.ids
    with protocols.one_thread():
        rows = {
            one: function(store.read(one), store.sample_rate(one))
            for one in progress(every, what=function.__name__.replace("_", " "), unit="files")
        }

    def features(corpus):
        found = {}
        for part in ("train", "valid", "test"):
            tracks = getattr(corpus.splits, part)
            x = torch.from_numpy(np.stack([rows[track.id] for track in tracks]).astype(np.float32))
            found[part] = protocols.ClipFeatures(x, torch.arange(len(tracks)), torch.as_tensor(targets(tracks)))
        return found

    return features


def _summary_of_splits(scored, names, labels):
    """Means of [seed][split] -> (accuracy, {label: accuracy}); the folds are all splits but the last."""
    overall = np.array([[accuracy for accuracy, _ in one] for one in scored])  # (n_seeds, n_splits)
    return {
        "n_seeds": len(scored),
        "accuracy": round(float(overall[:, :-1].mean()), 4),
        "spread": round(float(overall[:, :-1].mean(axis=1).std()), 4),
        "by_split": {name: round(float(mean), 4) for name, mean in zip(names, overall.mean(axis=0), strict=True)},
        "per_class": {
            label: round(float(np.mean([per_class[label] for one in scored for _, per_class in one[:-1]])), 4)
            for label in labels
        },
    }


def _features(waves, random):
    """Features of all baselines, dict baseline -> one array a run: of random encoders one for each seed."""
    features = {
        "log-mel statistics": [_all(baselines.log_mel_statistics, waves)],
        "MFCC statistics": [_all(baselines.mfcc_statistics, waves)],
    }
    for name, clips in (
        (("random FCN-4, whole", "whole"), ("random FCN-4, mean of short clips", "short")) if random else ()
    ):
        seeds = progress(SEEDS, what=name, unit="seeds")
        features[name] = [baselines.random_fcn_4(waves, seed, clips, n_clips=4) for seed in seeds]
    return features


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
    parser.add_argument("root", nargs="?", type=Path, help="the twin's folder (default: data/twins/DATASET)")
    parser.add_argument("--dataset", choices=("mtat", "gtzan", "dcase2016"), default="mtat")
    parser.add_argument("--statistics-only", action="store_true", help="leave out the random encoders (minutes)")
    arguments = parser.parse_args()
    root, random = arguments.root or paths.twins(arguments.dataset), not arguments.statistics_only
    if arguments.dataset == "dcase2016":
        if arguments.root:
            parser.error("dcase2016 is measured through its store: say with PAWLIB_DATA where twin and store lie")
        for name, found in write_scenes("small", random).items():
            print(name, (found["accuracy"], found["spread"]), found["by_split"])
        return
    if arguments.dataset == "gtzan":
        for name, found in write_genres(root, random).items():
            print(name, (found["accuracy"], found["spread"]), found["per_class"])
        return
    for name, found in write(root, random).items():
        print(name, {group: (entry["roc_auc"], entry["spread"]) for group, entry in found["groups"].items()})


if __name__ == "__main__":
    main()
