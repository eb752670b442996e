"""What a run answered for every test track, kept beside its row: whoever has two of them can compare runs pair by pair.

    data()/runs/<id>/answers.npz        written by the notebook that makes the row
    data/results/answers/<id>.npz       published with it, where a figure needs it (`publish`)

No audio and no corpus is needed to read them: the true labels, and what belongs to one work, are inside.

Told in: notebooks/30_linear_probe_mtat.ipynb, notebooks/70_figure3_ablation.ipynb
"""

import dataclasses
import shutil
import zipfile
from pathlib import Path

import numpy as np

from pawlib import paths
from pawlib.bench import datasets, files

NAME = "answers.npz"


@dataclasses.dataclass(frozen=True, eq=False)
class Answers:
    """The scores of a run and what they are compared with.

    Attributes
    ----------
    ids, works : str array (n_tracks,)
    labels, groups : str array (n_labels,)
        "" where a label belongs to no group.
    scores : float32 array (n_tracks, n_labels)
        Probabilities.
    targets : uint8 array (n_tracks, n_labels)
    """

    ids: np.ndarray
    works: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    scores: np.ndarray
    targets: np.ndarray

    def of(self, group=None):
        """(scores, targets) of all labels, or of those of a group.

        Raises
        ------
        ValueError
            For a group that no label belongs to.
        """
        chosen = slice(None) if group is None else self.groups == group
        if group is not None and not chosen.any():
            known = sorted(set(self.groups.tolist()) - {""})
            raise ValueError(f"group {group!r} has no label, expected one of {', '.join(known) or 'none'}")
        return self.scores[:, chosen], self.targets[:, chosen]


def write(folder, tracks, splits, scores):
    """Keep the scores of test tracks in a run's folder, atomically; returns the path.

    Parameters
    ----------
    folder : path-like
    tracks : list of Track
        Those that were scored, in the order of the scores.
    splits : Splits
        Names the labels and their groups.
    scores : array [shape=(n_tracks, n_labels)]

    Raises
    ------
    ValueError
        If scores do not fit tracks and labels.
    """
    scores = np.asarray(scores, dtype=np.float32)
    if scores.shape != (len(tracks), len(splits.labels)):
        raise ValueError(f"scores {scores.shape} for {len(tracks)} tracks and {len(splits.labels)} labels")
    group_of = {label: group for group, labels in splits.groups.items() for label in labels}
    path = Path(folder) / NAME
    with files.atomic(path) as part, open(part, "wb") as opened:
        np.savez_compressed(
            opened, ids=np.array([t.id for t in tracks]), works=np.array([t.work for t in tracks]),
            labels=np.array(splits.labels), groups=np.array([group_of.get(label, "") for label in splits.labels]),
            scores=scores, targets=datasets.targets(tracks).astype(np.uint8),
        )  # fmt: skip
    return path


def read(id, rows="all"):
    """The answers of a run; None where it kept none.

    Parameters
    ----------
    id : str
    rows : "committed" | "mine" | "all"
        Published ones, those of my runs, or mine before published ones: as `results.read` takes rows.

    Raises
    ------
    ValueError
        If the file is damaged.
    """
    places = {"committed": [published(id)], "mine": [paths.runs() / id / NAME]}
    places["all"] = [*places["mine"], *places["committed"]]
    for path in places[rows]:
        if path.is_file():
            try:
                with np.load(path, allow_pickle=False) as found:
                    return Answers(**{field.name: found[field.name] for field in dataclasses.fields(Answers)})
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
                raise ValueError(f"{path} holds no answers ({error}): was it cut off while copying?") from error
    return None


def published(id):
    """Where the published answers of a run lie."""
    return paths.results() / "answers" / f"{id}.npz"


def publish(ids):
    """Copy the answers of my runs to the published ones; what is published is left as it is. Returns the new paths.

    Runs that kept none are passed over.
    """
    copies = []
    for id in ids:
        mine, target = paths.runs() / id / NAME, published(id)
        if mine.is_file() and not target.exists():
            with files.atomic(target) as part:
                shutil.copyfile(mine, part)
            copies.append(target)
    return copies
