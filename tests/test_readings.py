"""A reading that changes the tree goes through pretraining and probe: chapters 10 and 30, run by papermill at toy."""

import json

import papermill
import pytest

from pawlib import paths
from pawlib.bench import cli, runlist

READINGS = "n_levels=2"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data folder of its own for runs, with the toy twin of the usual one, which is made where it is missing."""
    usual = paths.data()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PAWLIB_DATA", str(usual))
        assert cli.main(["twins", "mtat", "--size", "toy"]) in (0, None)
        assert cli.main(["prepare", "mtat", "--corpus", "twin", "--scale", "toy"]) in (0, None)
        own = tmp_path_factory.mktemp("data")
        for name in ("twins", "store"):
            (own / name).symlink_to(usual / name)
        patch.setenv("PAWLIB_DATA", str(own))
        patch.setenv("OMP_NUM_THREADS", "1")
        yield own


def run(folder, chapter, **parameters):
    papermill.execute_notebook(
        runlist.NOTEBOOKS / f"{chapter}.ipynb",
        folder / f"{chapter}.ipynb",
        {"readings": READINGS, **parameters},
        kernel_name="python3",
        progress_bar=False,
        cwd=str(runlist.NOTEBOOKS),
    )


def test_another_number_of_levels_is_pretrained_and_probed(folder):
    run(folder, "10_pretrain_music_paw")
    run(folder, "30_linear_probe_mtat", system="music_paw")
    made = {path.parent.name: json.loads(path.read_text()) for path in folder.glob("runs/*/row.json")}
    (id, row), *others = made.items()
    assert not others and row["id"] == id and row["tag"] == "n_levels_2"
    assert row["settings"]["checkpoint"]["settings"]["n_levels"] == 2
