"""What a classifier believes of the test tracks: pictures per label, histograms, and the tracks themselves.

    scores, targets : arrays [shape=(n_tracks, n_labels)], probabilities and 0/1.

Told in: notebooks/30_linear_probe_mtat.ipynb, notebooks/20_supervised_taggers.ipynb
"""

import numpy as np

from pawlib.show import figures, players

MEASURES = {"valid_map": "MAP", "valid_roc_auc": "ROC-AUC", "valid_pr_auc": "PR-AUC"}  # as an axis calls them


def per_label(per_tag, groups, title=""):
    """A bar of ROC-AUC for every label, coloured by group.

    Parameters
    ----------
    per_tag : dict {label: {"roc_auc": ...}}
        Labels that could not be scored (None) are left out.
    groups : dict {group: sequence of labels}
    title : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    names = [name for group in groups.values() for name in group if per_tag[name]["roc_auc"] is not None]
    colour = {name: figures.level_colour(i) for i, group in enumerate(groups.values()) for name in group}
    fig, ax = figures.panels(1, height=0.6 + 0.21 * len(names))
    ax[0].barh(range(len(names)), [per_tag[n]["roc_auc"] for n in names], color=[colour[n] for n in names])
    ax[0].axvline(0.5, color=figures.GREY, lw=1)
    ax[0].set_yticks(range(len(names)), names, fontsize=8)
    ax[0].invert_yaxis()
    ax[0].set(xlim=(0, 1), xlabel="ROC-AUC (0.5 is chance)", title=title)
    return fig


def learning(history, yardstick=None):
    """A training epoch by epoch: the loss, and the validation score that chose the weights, the chosen epoch marked.

    Parameters
    ----------
    history : list of dict
        As bench.supervised.train and bench.covers.train return it: per epoch "epoch", "loss" and one "valid_<measure>".
        An epoch 0 (a linear probe, before any step) has no loss.
    yardstick : (str, float), optional
        What to lie above: its name and its score on the same songs.

    Returns
    -------
    matplotlib.figure.Figure
    """
    key = next(name for name in history[-1] if name.startswith("valid_"))
    measure, epochs = MEASURES.get(key, key.removeprefix("valid_")), [entry["epoch"] for entry in history]
    scores, trained = [entry[key] for entry in history], [entry for entry in history if "loss" in entry]
    fig, ax = figures.panels(2, height=2.8)
    losses = {"loss": [entry["loss"] for entry in trained]}
    figures.curves([entry["epoch"] for entry in trained], losses, "epoch", "cross-entropy", "Training", ax=ax[0])
    shown = {"validation": scores} | ({yardstick[0]: [yardstick[1]] * len(epochs)} if yardstick else {})
    figures.curves(
        epochs, shown, "epoch", measure, "Validation, the line: chosen", epochs[int(np.argmax(scores))], ax=ax[1]
    )
    for axis in ax:
        axis.xaxis.get_major_locator().set_params(integer=True)
    return fig


def believed(label, labels, scores, targets, tracks, store, seconds=8):
    """Scores of the tracks that carry a label and of those that do not; the surest track and the most overlooked.

    Parameters
    ----------
    label : str
    labels : sequence of str
        Names of the columns.
    scores, targets : arrays [shape=(n_tracks, n_labels)]
    tracks : list of Track
    store : bench.store.Store
    seconds : float [s]
        Of each track's beginning.

    Returns
    -------
    list of a figure and a row of players, for explorers.explore
    """
    column = list(labels).index(label)
    score, truth = scores[:, column], targets[:, column] > 0
    fig, ax = figures.panels(1, height=2.6)
    ax[0].hist([score[truth], score[~truth]], bins=20, density=True, label=["carries the label", "does not"])
    ax[0].set(xlabel="probability", ylabel="density", title=label)
    ax[0].legend()
    surest, worst = int(score.argmax()), int(np.where(truth, score, np.inf).argmin())
    heard = [tracks[surest], tracks[worst]]
    rate = store.sample_rate(heard[0].id)
    waves = [store.read(track.id)[: round(seconds * store.sample_rate(track.id))] for track in heard]
    titles = [f"surest ({'right' if truth[surest] else 'wrong'})", "most overlooked"]
    return [fig, players.row(waves, rate, titles)]


def confusion(counts, classes, title=""):
    """A matrix of answers: rows are what a track is, columns what it was taken for.

    Parameters
    ----------
    counts : int array [shape=(n_classes, n_classes)]
    classes : sequence of str
    title : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    fig, ax = figures.panels(1, height=0.9 + 0.32 * len(classes))
    ax[0].imshow(counts, cmap="Greys", aspect="auto")
    for (i, j), n in np.ndenumerate(counts):
        if n:
            ax[0].text(j, i, n, ha="center", va="center", color="white" if n > counts.max() / 2 else "black")
    ax[0].set_xticks(range(len(classes)), classes, rotation=45, ha="right")
    ax[0].set_yticks(range(len(classes)), classes)
    ax[0].set(xlabel="taken for", ylabel="is", title=title)
    return fig
