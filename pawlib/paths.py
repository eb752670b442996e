"""Where data, stores, runs and checkpoints live: an environment variable or the checkout, never the working folder.

JupyterLab and nbval start beside the notebook, papermill where it was called, a cluster job somewhere else: so every
path in the workbook starts from `data()`.

    data()/raw/<dataset>        the real datasets, as their makers ship them        (ignored by git)
    data()/twins/<dataset>      the stand-ins made here from real scores            (ignored by git)
    data()/store/<corpus name>  audio decoded once, memory-mapped                   (ignored by git)
    data()/runs/<run id>        checkpoints, executed notebooks, rows of my runs    (ignored by git)
    committed()/paper           the paper's numbers
    committed()/results         published rows
    committed()/checkpoints     released weights

What is committed stays in the checkout's data/ where PAWLIB_DATA moves the rest to a large disk.

Told in: notebooks/00_start_here.ipynb
"""

import os
from pathlib import Path

SCALES = ("toy", "small", "paper")
CORPORA = ("twin", "real")
SMALL_WEIGHTS = "music-paw-fcn4-scores"  # released: what embeds a folder where nothing else is asked for


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
    if found := _of_checkout():
        return found
    raise FileNotFoundError(
        f"{Path(__file__).resolve().parents[1]} is no checkout of the workbook (no pyproject.toml), so there is no "
        "data folder beside it: set the environment variable PAWLIB_DATA to the folder that holds raw/, twins/, store/ "
        "and runs/"
    )


def committed():
    """Where the paper's numbers, published rows and released weights lie: `data/` of the checkout, whatever PAWLIB_DATA
    says; the data folder where pawlib was installed outside a checkout.

    Returns
    -------
    pathlib.Path
    """
    return _of_checkout() or data()


def _of_checkout():
    """data/ beside this package, None where it lies in no checkout."""
    checkout = Path(__file__).resolve().parents[1]
    return checkout / "data" if (checkout / "pyproject.toml").is_file() else None


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
    return committed() / "paper"


def results():
    """Folder of published rows, one JSON per run."""
    return committed() / "results"


def checkpoints():
    """Folder of released weights, safetensors with a JSON card each."""
    return committed() / "checkpoints"


def released():
    """Released weights by name, {name: path}."""
    return {path.stem: path for path in sorted(checkpoints().glob("*.safetensors"))}
