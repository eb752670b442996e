"""The aims for speed, each beside what was measured, with the command that measures it again.

Conventions
    A row is what chapter 90 (or `gpu_table --out`) wrote: a dict of measurements with their machine and commit.
    An aim is missed if any row misses it: the worst of several measurements counts.
    Processors that compute in bf16 and those that do not (`bf16` of the row) are judged apart: what is compared runs in
    float32 on both, ours in what the processor offers.
    Rows at toy scale say nothing, and those with an `environment` were measured under settings that most people do not
    have: both are left out.

Told in: notebooks/90_speed.ipynb
"""

from collections.abc import Callable
from typing import NamedTuple

CHAPTER = "papermill notebooks/90_speed.ipynb speed.ipynb -k python3 -p scale small -p parts {}"
GPU = "python -m pawlib.bench.gpu_table --out data/results/speed/gpu.json"


class Aim(NamedTuple):
    """What was to be reached.

    what : in words
    value : callable (row) -> float; KeyError where the row has not measured it
    aim : float, the least (or most) that counts as reached
    form : how a value is written, e.g. "{:.1f} times"
    command : the line that measures it
    at_most : whether less is better
    """

    what: str
    value: Callable
    aim: float
    form: str
    command: str
    at_most: bool = False


def aims(taggers, loops):
    """All of them, in the order of chapter 90; graphics cards last.

    Parameters
    ----------
    taggers : sequence of str
        Slugs of the networks whose answering is timed.
    loops : sequence of str
        Slugs of the pretrainings that are timed beside their published loops.

    Returns
    -------
    list of Aim
    """
    step, folder, covers = (CHAPTER.format(part) for part in ("step", "folder", "covers"))
    times, real_time = "{:.1f} times", "{:.0f} times real time"
    return [
        Aim("pretraining step beside the first-written one", lambda row: row["times_faster"], 7, times, step),
        Aim("pretraining step, share of the matrix rate", lambda row: row["share_of_matrix_rate"], 0.6, "{:.0%}", step),
        Aim("augmentation and log-mels, share of a step", lambda row: row["augmentation_and_mels_share"], 0.1, "{:.1%}",
            step, at_most=True),
        Aim("waiting for data, share of a step", lambda row: row["waiting_share"], 0.05, "{:.1%}", step, at_most=True),
        *(
            Aim(f"{slug}, answering beside the plain way", lambda row, slug=slug: row["taggers"][slug]["times_plain"],
                3, times, CHAPTER.format("taggers"))
            for slug in taggers
        ),
        *(
            Aim(f"{slug}, pretraining beside its published loop", lambda row, slug=slug:
                row["loops"][slug]["times_faster"], 3, times, CHAPTER.format("loops"))
            for slug in loops
        ),
        Aim("folder of mp3, all levels", lambda row: row["folder"]["times_real_time"]["embed, all levels"], 150,
            real_time, folder),
        Aim("folder of mp3, shortest level", lambda row: row["folder"]["times_real_time"]["embed, shortest level"], 250,
            real_time, folder),
        Aim("an epoch of CQT-Net at small", lambda row: row["covers"]["epoch_s"], 120, "{:.0f} s", covers,
            at_most=True),
        Aim("a search among 100,000 songs", lambda row: row["covers"]["search_ms"]["graph"], 5, "{:.1f} ms", covers,
            at_most=True),
        *(
            Aim(f"one GPU, pretraining of {encoder}", lambda row, encoder=encoder: row["gpu"][encoder]["songs_per_s"],
                aim, "{:.0f} songs/s", GPU)
            for encoder, aim in (("fcn_4", 800), ("fcn_7", 400))
        ),
    ]  # fmt: skip


def beside_measurements(asked, rows):
    """Each aim with what the rows say about it.

    Parameters
    ----------
    asked : list of Aim
    rows : dict
        Name of a row to the row.

    Returns
    -------
    list of dict
        what, aim (str, "at least 7.0 times"), measured ({name of the row: str}), command; worst (str or None) and
        times_aim (float: how many times as good as asked, by the worst row, 1 at the aim; None: not measured), and both
        again with "_float32" behind them, from processors without bf16.
    """
    found = []
    for one in asked:
        measured, judged = {}, {"": [], "_float32": []}
        for name, row in rows.items():
            if "environment" not in row and row.get("scale") != "toy":
                try:
                    value = one.value(row)
                except KeyError:
                    continue
                measured[name] = one.form.format(value)
                judged["" if row.get("bf16", True) else "_float32"].append(value)
        told = {
            "what": one.what,
            "aim": f"{'at most' if one.at_most else 'at least'} {one.form.format(one.aim)}",
            "measured": measured,
            "command": one.command,
        }
        for where, values in judged.items():
            worst = (max if one.at_most else min)(values, default=None)
            told[f"worst{where}"] = None if worst is None else one.form.format(worst)
            told[f"times_aim{where}"] = None if worst is None else one.aim / worst if one.at_most else worst / one.aim
        found.append(told)
    return found
