"""Where data, stores, runs and checkpoints live: an environment variable or the checkout, never the working folder.

JupyterLab and nbval start beside the notebook, papermill where it was called, a cluster job somewhere else: so every
path in the workbook starts from `data()`.

    data()/raw/<dataset>        the real datasets, as their makers ship them        (ignored by git)
    data()/twins/<dataset>      the stand-ins made here from real scores            (ignored by git)
    data()/store/<corpus name>  audio decoded once, memory-mapped                   (ignored by git)
    data()/runs/<run id>        checkpoints, executed notebooks, rows of my runs    (ignored by git)
    data()/paper                the paper's numbers
    data()/results              published rows
    data()/checkpoints          released weights

Told in: notebooks/00_start_here.ipynb
"""

import os
from pathlib import Path

SCALES = ("toy", "small", "paper")
CORPORA = ("twin", "real")
SMALL_WEIGHTS = "music-paw-fcn4-scores"  # released: what embeds a folder where nothing else is asked for
SHIPPED = Path(__file__).resolve().parents[1] / "data" / "checkpoints"  # weights that came with the checkout


def data():
    """The data folder: `$PAWLIB_DATA` where it is set, else `data/` of the checkout this package lies in.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    FileNotFoundError
        If neither exists: pawlib was installed outside a checkout and PAWLIB_DATA is not set.
    """
    chosen = os.environ.get("PAWLIB_DATA")
    if chosen:
        return Path(chosen).expanduser().resolve()
    checkout = Path(__file__).resolve().parents[1]
    if (checkout / "pyproject.toml").is_file():
        return checkout / "data"
    raise FileNotFoundError(
        f"{checkout} is no checkout of the workbook (no pyproject.toml), so there is no data folder beside it: "
        "set the environment variable PAWLIB_DATA to the folder that holds raw/, twins/, store/ and runs/"
    )


def raw(dataset):
    """Folder of a real dataset as its makers ship it, e.g. raw("mtat")."""
    return data() / "raw" / dataset


def twins(dataset, scale="small"):
    """Folder of a dataset's twin; at toy scale its small sister, a few dozen tracks."""
    return data() / "twins" / (f"{dataset}-toy" if scale == "toy" else dataset)


def corpus(dataset, corpus="twin", scale="small"):
    """(root folder, name in rows and stores) of a dataset under the two switches every run has.

    The name says what was heard: "mtat" only for the real audio, "mtat-twin" or "mtat-twin-toy" for stand-ins.

    Raises
    ------
    ValueError
        If `corpus` or `scale` is not one of CORPORA or SCALES.
    """
    if corpus not in CORPORA:
        raise ValueError(f"corpus={corpus!r} is unknown, expected one of {CORPORA}")
    if scale not in SCALES:
        raise ValueError(f"scale={scale!r} is unknown, expected one of {SCALES}")
    if corpus == "real":
        return raw(dataset), dataset
    return twins(dataset, scale), f"{dataset}-twin-toy" if scale == "toy" else f"{dataset}-twin"


def store(name):
    """Folder of the decoded store of a corpus, by the name `corpus()` gives."""
    return data() / "store" / name


def runs():
    """Folder of my runs: one folder per run id."""
    return data() / "runs"


def paper():
    """Folder of the paper's numbers, table1.csv .. table6.csv."""
    return data() / "paper"


def results():
    """Folder of published rows, one JSON per run."""
    return data() / "results"


def checkpoints():
    """Folder of released weights, safetensors with a JSON card each."""
    return data() / "checkpoints"


def released():
    """Released weights by name, {name: path}: the checkout's, and those in a data folder that lies elsewhere."""
    found = [path for folder in (SHIPPED, checkpoints()) for path in sorted(folder.glob("*.safetensors"))]
    return {path.stem: path for path in found}
