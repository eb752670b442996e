"""The diagnostic: what any encoder hears of timbre, music, parts, order and covers, on frozen twins.

    from pawlib.bench import diagnostic
    print(diagnostic.evaluate(lambda waves: net(waves), sample_rate=16_000).table())

An encoder here is a function: waveforms in, float32 Tensor [shape=(B, n_samples)] at its own rate; vectors out,
[shape=(B, D)]. Three questions are asked of it.

Tags       A linear probe on frozen vectors (bench.protocols), ROC-AUC and PR-AUC by group of tags. Tracks are heard as
           clips of the encoder's own length, side by side, probabilities averaged (reading R11); and, where the encoder
           takes any length, as wholes of 22.4 s.
Retrieval  Each clip of level n >= 1 of a test song (22.4 s cut into 2, 4, 8) looks for its own whole among those of all
           test songs, by cosine. The score is the share that finds it; a tie counts as a lot drawn among the tied.
           An encoder of a fixed length hears a longer clip as the mean over its pieces, and a shorter one repeated:
           then a whole is the mean of its own parts, which makes the question easier. The report says so.
Covers     Each recording of the Covers80 twin looks for the other one of its work among all the others: MAP, by cosine
           of the mean over a recording's clips, and of that over its wholes. The other one is played by other
           instruments, in another key and tempo: what sounds alike is another tune.

Conventions
    A number belongs to its id, which names the versions of both twins, of the works behind them and of these questions;
    seed 0, scale "small". Numbers of other versions or scales, or of the real sets, are not comparable. Version 2 of
    the questions added the covers; tags and parts are asked as in version 1.

Told in: notebooks/74_diagnostic.ipynb, notebooks/81_your_music.ipynb
"""

import dataclasses
import math

import numpy as np
import torch

from pawlib import crops, paths
from pawlib.bench import audio, corpora, datasets, evaluation, hierarchy, protocols, results, retrieval, stats
from pawlib.bench.embed import clips_of, computing_fast, encode_clips
from pawlib.bench.progress import progress
from pawlib.bench.twins import covers as cover_twins
from pawlib.bench.twins import mtat, registry

VERSION = 2
WHOLE_SECONDS, N_LEVELS, N_PARTS = 22.4, 4, 2
SHORTEST_SECONDS = WHOLE_SECONDS / N_PARTS ** (N_LEVELS - 1)
TWINS = f"mtat-v{mtat.VERSION}.covers-v{cover_twins.VERSION}.works-v{registry.VERSION}"
ID = f"{TWINS}.diagnostic-v{VERSION}"
UNLEARNED = ("log_mel_statistics", "mfcc_statistics", "random")


@dataclasses.dataclass
class Report:
    """What the diagnostic found; `table()` to read, `row()` to keep, `licence()` to pass on.

    name, id, corpus, scale, split, seed : of the encoder, the diagnostic's version, what it was asked on
    sample_rate, n_samples : of the encoder; None for any length
    width : D
    clips : dict as `evaluation.of_tracks`, asked of clips of `clip_seconds`
    wholes : the same asked of wholes, or None where the encoder's length is fixed
    retrieval : dict "level_1".. -> {"accuracy", "accuracy_interval", "chance", "n_clips"}
    pooled : bool, whether retrieval averaged over pieces
    covers : dict "clips", and "wholes" where wholes are asked -> {"map", "map_interval", "chance", "n_recordings"}; or
        None where no covers were asked for
    """

    name: str
    id: str
    corpus: str
    scale: str
    split: str
    seed: int
    sample_rate: int
    n_samples: int | None
    clip_seconds: float
    width: int
    clips: dict
    wholes: dict | None
    retrieval: dict
    pooled: bool
    covers: dict | None = None

    def row(self, system=None, backbone=None, tag=None, settings=None):
        """A row of results: tags asked of clips as `metrics` and `groups`, the rest beside them by name.

        Parameters
        ----------
        system : str, optional
            Slug; the encoder's name if not given.
        backbone, tag : str, optional
        settings : dict, optional
            What else should be known: the card of a checkpoint.

        Returns
        -------
        dict, as `results.row` makes it

        Raises
        ------
        ValueError
            If the name cannot be part of an id.
        """
        metrics, groups = self._numbers()
        return results.row(
            system=system or self.name, backbone=backbone, dataset=self.corpus, split=self.split,
            protocol="diagnostic", scale=self.scale, seed=self.seed, tag=tag, metrics=metrics, groups=groups,
            per_tag=self.clips["per_tag"], n_tracks=self.clips["n_tracks"],
            settings={
                "diagnostic": self.id, "sample_rate": self.sample_rate, "n_samples": self.n_samples,
                "clip_seconds": self.clip_seconds, "width": self.width, "pooled": self.pooled,
                "intervals": stats.INTERVALS, **(settings or {}),
            },
        )  # fmt: skip

    def table(self):
        """All numbers as plain text, with 95 % intervals, beside the published baselines."""
        groups, beside = list(self.clips["groups"]), baselines()
        asked = {f"asked of clips of {self.clip_seconds:.3g} s": self.clips}
        asked |= {f"asked of wholes of {WHOLE_SECONDS} s": self.wholes} if self.wholes else {}
        about = f"{self.id}, {self.clips['n_tracks']} test tracks"
        lines = [f"{self.name} on {self.corpus}, scale {self.scale}: {about}"]
        for metric, title in (("roc_auc", "ROC-AUC (chance 50.0)"), ("pr_auc", "PR-AUC")):
            lines += ["", _line(title, groups)]
            for what, found in asked.items():
                lines.append(_line(what, (_told(found["groups"][group], metric) for group in groups)))
        lines += ["", _about(beside, self)]
        for row in beside:
            for what, suffix in ((f"clips of {row['settings']['clip_seconds']:.3g} s", ""), ("wholes", ", wholes")):
                found = [row["groups"].get(group + suffix, {}).get("roc_auc") for group in groups]
                lines += [_line(f"{name_of(row)}, {what}", map(_percent, found))] if any(found) else []
        lines += ["", "Found again, percent: a part its whole (accuracy), a recording the other one of its work (MAP)"]
        if self.pooled or any(row["settings"]["pooled"] for row in beside):
            lines.append(
                "(pieces): of one length, hears a longer clip as the mean of its pieces, so a part is in its whole"
            )
        return "\n".join(lines + self._found_again(beside))

    def _found_again(self, beside):
        """Lines of what is found by cosine: this encoder, chance, baselines."""
        own, _ = self._numbers()
        columns = {level.replace("_", " "): (f"part_to_whole_{level}", "accuracy") for level in self.retrieval}
        columns |= {f"covers, {asked}": (f"covers_of_{asked}", "map") for asked in self.covers or {}}
        scores = [f"{asked}_{score}" for asked, score in columns.values()]
        return [
            _line("", columns),
            _line(_heard(self.name, self.pooled), (_told(own, score) for score in scores)),
            _line("by chance", (_percent(own[f"{asked}_chance"]) for asked, _ in columns.values())),
            *(["published rows:"] if beside else []),
            *(
                _line(
                    _heard(name_of(row), row["settings"]["pooled"]),
                    (_percent(row["metrics"].get(score)) for score in scores),
                )
                for row in beside
            ),
        ]

    def _numbers(self):
        """(metrics, groups) of a row."""
        metrics, groups = dict(self.clips["metrics"]), dict(self.clips["groups"])
        for level, found in self.retrieval.items():
            metrics |= {f"part_to_whole_{level}_{key}": value for key, value in found.items()}
        for asked, found in (self.covers or {}).items():
            metrics |= {f"covers_of_{asked}_{key}": value for key, value in found.items()}
        if self.wholes:
            metrics |= {f"{key}_wholes": value for key, value in _plain(self.wholes["metrics"]).items()}
            groups |= {f"{group}, wholes": found for group, found in self.wholes["groups"].items()}
        return metrics, groups

    def licence(self):
        """What may be done with the audio and the numbers."""
        return (
            f"{self.id}. {mtat.LICENCE} Scores made on it may be published freely: name this version, the scale and "
            "the number of test tracks, and never print them as scores of MagnaTagATune."
        )

    def __str__(self):
        return self.table()


def evaluate(
    embed_fn, sample_rate, corpus="twin", scale="small", n_samples=None, *, covers=None, name="encoder", seed=0,
    batch=64, n_boot=1000, max_epochs=300,
):  # fmt: skip
    """Ask an encoder what it hears.

    Parameters
    ----------
    embed_fn : callable (float32 Tensor [shape=(B, n)]) -> Tensor or array [shape=(B, D)]
        The frozen encoder, in evaluation mode and on a device of its own choice; it gets tensors on the CPU.
    sample_rate : int [Hz]
        Rate that it wants; songs are resampled to it.
    corpus : "twin" or corpora.Corpus
        An opened corpus with groups, instead of the frozen twin. Covers are then asked of `covers` alone.
    scale : "small" or "toy"
        The diagnostic is defined at "small": 1,600 songs, 1113 / 138 / 349. "toy" shows that it runs.
    n_samples : int > 0, optional [samples]
        The one length it takes. By default it takes any: clips are 2.8 s, and wholes are asked, too.
    covers : corpora.Corpus, optional
        An opened corpus whose test tracks name their works, instead of the frozen twin of Covers80.
    name : str
        Lower-case letters, digits, _ and -.
    seed : int
        Of the probe.
    batch : int > 0
        Clips handed over at once; of wholes an eighth, so that a batch holds as much audio.
    n_boot : int
        Resamples of works behind each interval.
    max_epochs : int
        Of the probe, see `protocols.linear_probe`.

    Returns
    -------
    Report

    Raises
    ------
    ValueError
        For vectors of a wrong shape, NaN, or another width than before, naming what was given; for another corpus; for
        a corpus without groups of tags.

    Told in: notebooks/81_your_music.ipynb
    """
    opened = _opened(corpus, scale)
    results.make_id(name, None, opened.name, "diagnostic", scale, seed)  # a name that cannot be is refused before work
    n_whole = crops.whole_length(WHOLE_SECONDS, sample_rate, N_LEVELS, N_PARTS, 1)
    if n_samples is not None and n_samples < 1:
        raise ValueError(f"n_samples={n_samples}, expected the length of the encoder's input, or None for any length")
    if covers is None and isinstance(corpus, str):
        covers = corpora.open_corpus("covers80", corpus, scale)
    encoder = _Checked(embed_fn, batch)
    n_clip = n_samples or n_whole // N_PARTS ** (N_LEVELS - 1)
    ask = {"seed": seed, "max_epochs": max_epochs, "n_boot": n_boot}
    lengths = {"clips": n_clip} if n_samples else {"clips": n_clip, "wholes": n_whole}
    clips = _probe(encoder, opened, sample_rate, n_clip, **ask)
    wholes = _probe(encoder, opened, sample_rate, n_whole, **ask) if n_samples is None else None
    return Report(
        name=name, id=ID, corpus=opened.name, scale=scale, split=opened.splits.split, seed=seed,
        sample_rate=sample_rate, n_samples=n_samples, clip_seconds=n_clip / sample_rate, width=encoder.width,
        clips=clips, wholes=wholes, retrieval=_retrieval(encoder, opened, sample_rate, n_whole, n_samples, n_boot),
        pooled=n_samples is not None and n_samples < n_whole,
        covers=covers and {
            asked: _covers(encoder, covers, sample_rate, n, n_boot) for asked, n in lengths.items()
        },
    )  # fmt: skip


def asking(model):
    """How a checkpoint of chapters 10 to 14 is asked: `evaluate(**asking(model), name=...)`.

    Music-PAW hears a clip of each of its levels' lengths with the hop of that level, and so any length it is asked for;
    the other systems hear one length.

    Parameters
    ----------
    model : MusicPAW, or what `systems.load_pretrained` returns

    Returns
    -------
    dict of embed_fn, sample_rate, n_samples

    Told in: notebooks/74_diagnostic.ipynb
    """
    model.eval()
    n_clip = getattr(model, "n_clip", None)
    levels = {} if n_clip else {model.n_whole // model.n_parts**n: n for n in range(model.n_levels)}

    def embed_fn(waves):
        level = levels.get(waves.shape[1], model.n_levels - 1)
        with computing_fast(model):
            return model.embed_clips(waves, level).float()

    return {"embed_fn": embed_fn, "sample_rate": model.sample_rate, "n_samples": n_clip}


def part_to_whole(tree, works=None, n_boot=1000):
    """How often a part finds its own whole among those of all songs, by cosine (hierarchy.part_to_whole), and how sure.

    Parameters
    ----------
    tree : list of arrays, [n] of shape (n_songs, M**n, D)
        Vectors of the clips of each level; tree[0] holds the wholes.
    works : sequence [shape=(n_songs,)], optional
        What the bootstrap draws; songs if not given.
    n_boot : int

    Returns
    -------
    dict "level_1", "level_2", ... -> {"accuracy", "accuracy_interval", "chance", "n_clips"}
        A clip that m wholes are equally near to counts 1/m if its own is one of them.

    Raises
    ------
    ValueError
        If the levels do not belong to the same two or more songs.

    Told in: notebooks/81_your_music.ipynb
    """
    found = {}
    for n, one in hierarchy.part_to_whole(tree).items():
        drawn = hierarchy.over_songs(one["per_song"], n_boot, units=works)
        found[f"level_{n}"] = {
            "accuracy": one["accuracy"],
            "accuracy_interval": [drawn["low"], drawn["high"]],
            "chance": one["chance"],
            "n_clips": int(np.asarray(tree[n]).shape[1] * len(one["per_song"])),
        }
    return found


def baselines():
    """Published rows of those that learned nothing, of this version: what an encoder stands beside.

    Returns
    -------
    list of dict, rows of results at scale "small", seed 0; none outside a checkout

    Told in: notebooks/74_diagnostic.ipynb
    """
    _, corpus = paths.corpus("mtat", "twin", "small")
    rows = results.read("committed", system=UNLEARNED, dataset=corpus, protocol="diagnostic", scale="small", seed=0)
    return [row for row in rows if row["settings"]["diagnostic"] == ID]


def name_of(row):
    """System and backbone of a row, as one line."""
    return row["system"] if row["backbone"] in (None, "none") else f"{row['system']}, {row['backbone']}"


class _Checked:
    """embed_fn, a batch at a time, with what it gives checked."""

    def __init__(self, function, batch):
        self.function, self.batch, self.width = function, batch, None

    @torch.no_grad()
    def __call__(self, clips, batch=None):
        """(K, n) -> float32 (K, D)."""
        return torch.cat([self._once(some) for some in clips.split(batch or self.batch)])

    def _once(self, clips):
        given = torch.as_tensor(self.function(clips.contiguous()))
        asked = f"embed_fn was given {len(clips)} clips of {clips.shape[1]:,} samples, shape {tuple(clips.shape)},"
        if given.ndim != 2 or len(given) != len(clips) or not given.shape[1]:
            raise ValueError(
                f"{asked} and returned shape {tuple(given.shape)}, expected ({len(clips)}, D): does it average over "
                "time, and keep the batch axis?"
            )
        given = given.detach().cpu().float()
        if not torch.isfinite(given).all():
            bad = int((~torch.isfinite(given)).any(dim=1).nonzero()[0])
            raise ValueError(
                f"{asked} and returned NaN or infinite values for clip {bad}: does it divide by a deviation or a peak "
                "that can be zero? The twin holds silence"
            )
        if self.width not in (None, given.shape[1]):
            raise ValueError(
                f"{asked} and returned {given.shape[1]} values a clip, {self.width} before: a vector must have one "
                "width at every length"
            )
        self.width = given.shape[1]
        return given


def _opened(corpus, scale):
    if isinstance(corpus, str):
        if corpus != "twin" or scale not in ("small", "toy"):
            raise ValueError(
                f"corpus={corpus!r} at scale {scale!r}: the diagnostic is defined on corpus='twin' at scale 'small' "
                "('toy' to try it)"
            )
        corpus = corpora.open_corpus("mtat", corpus, scale)
    if not corpus.splits.groups:
        raise ValueError(f"{corpus.name} has no groups of tags: the diagnostic asks by group, take corpus='twin'")
    return corpus


def _wave(corpus, track, sample_rate):
    """A track at the encoder's rate, (n_samples,)."""
    native = corpus.store.sample_rate(track.id)
    return torch.from_numpy(audio.resample(corpus.store.read(track.id), native, sample_rate))


def _probe(encoder, corpus, sample_rate, n_clip, seed, max_epochs, n_boot):
    """Tags by a linear probe on clips of n_clip samples: dict as `evaluation.of_tracks`."""
    what = f"embedding clips of {n_clip / sample_rate:.3g} s"
    features = [_features(encoder, corpus, part, sample_rate, n_clip, what) for part in ("train", "valid", "test")]
    labels = corpus.splits.labels
    probe = protocols.linear_probe(*features, len(labels), seed, max_epochs=max_epochs)
    heard = [corpus.splits.test[i] for i in probe.tracks]
    return evaluation.of_tracks(probe.scores, heard, corpus.splits, n_boot=n_boot)


def _features(encoder, corpus, part, sample_rate, n_clip, what):
    """The clips of one split, encoded: protocols.ClipFeatures."""
    tracks = getattr(corpus.splits, part)
    x, track_index = _encoded(encoder, corpus, tracks, sample_rate, n_clip, f"{what}, {part}")
    targets = torch.from_numpy(datasets.targets(tracks))
    return protocols.ClipFeatures(x, track_index, targets, tuple(t.id for t in tracks))


def _encoded(encoder, corpus, tracks, sample_rate, n_clip, what):
    """Vectors of the clips that cover each track, (n_clips, D), and the row of the track each is of."""
    batch = _batch(encoder, n_clip, sample_rate)
    return encode_clips(
        tracks,
        lambda track: clips_of(_wave(corpus, track, sample_rate), n_clip),
        lambda clips: encoder(clips, batch),
        batch,
        what,
    )


def _retrieval(encoder, corpus, sample_rate, n_whole, n_samples, n_boot):
    """Part-to-whole retrieval over the first whole of every test song."""
    tracks = corpus.splits.test
    tree = [[] for _ in range(N_LEVELS)]
    for track in progress(tracks, what="embedding parts and wholes, test", unit="songs"):
        wave = _wave(corpus, track, sample_rate)[:n_whole]
        whole = crops.split_wholes(wave.unsqueeze(0), n_whole)[0][:, 0]  # (1, n_whole)
        for n, clips in enumerate(crops.hierarchical_crops(whole, N_LEVELS, N_PARTS)):
            tree[n].append(_vectors(encoder, clips[0], n_samples, sample_rate))
    return part_to_whole([torch.stack(level).numpy() for level in tree], [t.work for t in tracks], n_boot)


def _covers(encoder, corpus, sample_rate, n_clip, n_boot):
    """How well recordings of a work find each other by the means over their clips of n_clip samples."""
    tracks, what = corpus.splits.test, f"embedding covers, clips of {n_clip / sample_rate:.3g} s"
    x, index = _encoded(encoder, corpus, tracks, sample_rate, n_clip, what)
    sums = torch.zeros(len(tracks), x.shape[1], dtype=torch.float64).index_add_(0, index, x.double())
    works = [track.work for track in tracks]
    found = retrieval.from_embeddings(sums / index.bincount()[:, None], works)
    drawn = retrieval.intervals(found, works, n_boot=n_boot)["map"]
    return {
        "map": found["map"],
        "map_interval": [drawn["low"], drawn["high"]],
        "chance": retrieval.chance_map(works),
        "n_recordings": len(works),
    }


def _vectors(encoder, clips, n_samples, sample_rate):
    """(K, n) -> (K, D); where the encoder's length is fixed, the mean over the pieces of each clip."""
    if n_samples is None:
        return encoder(clips, _batch(encoder, clips.shape[1], sample_rate))
    pieces = torch.stack([clips_of(clip, n_samples) for clip in clips])  # (K, n_pieces, n_samples)
    return encoder(pieces.flatten(0, 1)).unflatten(0, pieces.shape[:2]).mean(dim=1)


def _batch(encoder, n_clip, sample_rate):
    """Clips at once, so that a batch of wholes holds no more audio than one of the shortest clips."""
    return max(1, math.floor(encoder.batch * min(1.0, SHORTEST_SECONDS * sample_rate / n_clip)))


def _plain(numbers):
    """Scores by name, intervals left out: a row names an interval after its metric."""
    return {key: value for key, value in numbers.items() if key in ("roc_auc", "pr_auc")}


def _heard(name, pooled):
    return f"{name} (pieces)" if pooled else name


def _percent(value):
    return "-" if value is None else f"{100 * value:.1f}"


def _told(found, metric):
    """A score with its interval, in percent."""
    low, high = found[f"{metric}_interval"]
    return f"{_percent(found[metric])} [{_percent(low)}, {_percent(high)}]"


def _line(title, cells):
    """One line of the table."""
    cells = list(cells)
    first, others = (30, 18) if len(cells) > 4 else (38, 20)
    return f"{title:{first}s}" + "".join(f" {cell:>{others - 1}s}" for cell in cells)


def _about(beside, report):
    """What the baselines were asked on, and whether the lines above may be compared with them."""
    if not beside:
        return "no baselines: their rows are in data/results of a checkout of the workbook"
    told = f"published rows of what learned nothing, {beside[0]['n_tracks']} test tracks (ROC-AUC)"
    if report.corpus != beside[0]["dataset"] or report.scale != beside[0]["scale"]:
        return f"NOT comparable with the lines above, made on {report.corpus}: {told}"
    return told
