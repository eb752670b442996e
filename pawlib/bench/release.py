"""Weights to load by name: the encoder of a run, a probe that names what it hears, and a card for both.

    python -m pawlib.bench.release RUN NAME

    data/checkpoints/NAME.safetensors         the encoder alone; MusicPAW.load("NAME") anywhere
    data/checkpoints/NAME.json                its card: data, licence, settings, scores, limits
    data/checkpoints/NAME.tags.safetensors    a linear probe of its shortest clips; `load_tags("NAME")`
    data/checkpoints/NAME.tags.json           its card: the tags in order, what it was trained on, its scores

A name is never given twice: whoever cites weights by their name must get the same ones next year.
"""

import dataclasses
import datetime
import json
import re
import sys

import safetensors.torch
import torch

from pawlib import checkpoints, paths
from pawlib.bench import corpora, embed, evaluation, protocols, results
from pawlib.bench.files import atomic, write_json
from pawlib.model import MusicPAW

TAGS = "music-paw tags 1"
LICENCE = "MIT, as the code; trained on audio rendered from scores in the public domain, of which nothing is included"
LIMITS = (
    "Pretrained for minutes on rendered scores, not on recordings. What it is worth beside an encoder that learned "
    "nothing stands under `scores_of_random_weights`; read the README before building on it."
)


@dataclasses.dataclass(frozen=True, eq=False)
class Tags:
    """A linear probe by name: tags(x) of clips' vectors (n_clips, 512) gives probabilities (n_clips, n_tags)."""

    labels: tuple
    mean: torch.Tensor
    deviation: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor
    constants: dict = dataclasses.field(default_factory=dict)  # {column: 0 or 1} of tags that training never varied

    def __call__(self, x):
        x = (torch.as_tensor(x).cpu().float() - self.mean) / self.deviation
        answers = torch.sigmoid(torch.nn.functional.linear(x, self.weight, self.bias))
        for column, constant in self.constants.items():
            answers[:, column] = constant
        return answers


def release(run, name, scale="small", seed=0):
    """Release the encoder of a pretraining run, with a probe on the twin of MTAT.

    Parameters
    ----------
    run : str
        Id of the run, in data()/runs.
    name : str
    scale : "toy" | "small"
        Of the twin the probe learns from.
    seed : int
        Of the probe.

    Returns
    -------
    list of pathlib.Path

    Raises
    ------
    FileExistsError
        If the name was given before.
    FileNotFoundError
        If there is no such run, or it has not finished.
    ValueError
        For a name that is none.
    """
    if not re.fullmatch(r"[a-z0-9_-]+", name):
        raise ValueError(f"{name!r} cannot be a name: use lower-case letters, digits, _ and -")
    if given := paths.released().get(name):
        raise FileExistsError(f"{given} is released already, and released weights are never replaced: choose a name")
    target = paths.checkpoints() / f"{name}.safetensors"
    source = checkpoints.find(paths.runs() / run / "checkpoint.safetensors")
    paw = MusicPAW.load(source).eval()
    data = corpora.open_corpus("mtat", "twin", scale)
    labels = data.splits.labels
    features = embed.splits(paw, data)
    probe = protocols.linear_probe(features["train"], features["valid"], features["test"], len(labels), seed)
    numbers = evaluation.of_tracks(probe.scores, [data.splits.test[i] for i in probe.tracks], data.splits)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    scores = {"dataset": data.name, "protocol": "linear_probe", **numbers["metrics"], "groups": numbers["groups"]}
    card = {
        key: value for key, value in checkpoints.read_card(source).items() if key not in ("format", "kind", "settings")
    }
    scores["valid_roc_auc"] = probe.valid_score
    told = {"released": today, "run": run, "licence": LICENCE, "limits": LIMITS, "scores": scores}
    told["scores_of_random_weights"] = _untrained(paw.settings["encoder"], data.name, scale)
    files = [target, _write_tags(name, probe, labels, told | {"of": name, "released_by": results.commit()})]
    paw.encoder_alone().save(target, card | told)  # last: a name is taken when everything is there
    return files


def load_tags(name):
    """The probe that was released with weights of this name.

    Returns
    -------
    Tags

    Raises
    ------
    FileNotFoundError
        Listing the names that have one.
    ValueError
        If the file is damaged or something else.
    """
    released = paths.released()
    path = released.get(f"{name}.tags")
    if path is None:
        known = sorted(one.removesuffix(".tags") for one in released if one.endswith(".tags"))
        raise FileNotFoundError(
            f"no tags were released with {name!r} (there are some for: {', '.join(known) or 'none'})"
        )
    try:
        with safetensors.safe_open(path, framework="pt") as opened:
            told = opened.metadata() or {}
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118, it is no dict
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read ({error}): was it cut off while copying?") from error
    if told.get("format") != TAGS:
        raise ValueError(
            f"{path} is no {TAGS!r} file (it says {told.get('format')!r}): was it made by another program?"
        )
    constants = {int(column): value for column, value in json.loads(told["constants"]).items()}
    return Tags(tuple(json.loads(told["labels"])), **tensors, constants=constants)


def main(argv=None):
    """The command line; returns the exit status."""
    words = sys.argv[1:] if argv is None else argv
    if len(words) != 2:
        print(
            "python -m pawlib.bench.release RUN NAME: the id of a pretraining run, and the name to give",
            file=sys.stderr,
        )
        return 2
    try:
        for path in release(*words):
            print(f"released: {path}, {path.stat().st_size / 1e6:.1f} MB")
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _untrained(encoder, dataset, scale):
    """What a published row says of the same encoder with random weights; None where there is no such row."""
    for row in results.read("committed"):
        told = (row["system"], row["backbone"], row["dataset"], row["protocol"], row["scale"], row["tag"])
        if told == ("random", encoder, dataset, "linear_probe", scale, None):
            valid = {"valid_roc_auc": row["settings"].get("valid_roc_auc")}
            return {"row": row["id"], **row["metrics"], "groups": row["groups"], **valid}
    return None


def _told(probe, labels):
    return {"format": TAGS, "labels": json.dumps(list(labels)), "constants": json.dumps(probe.untrained)}


def _write_tags(name, probe, labels, card):
    path = paths.checkpoints() / f"{name}.tags.safetensors"
    tensors = {key: getattr(probe, key).contiguous() for key in ("mean", "deviation", "weight", "bias")}
    with atomic(path) as part:
        safetensors.torch.save_file(tensors, part, metadata=_told(probe, labels))
    write_json(path.with_suffix(".json"), {"format": TAGS, "labels": list(labels), **card})
    return path


if __name__ == "__main__":
    sys.exit(main())
