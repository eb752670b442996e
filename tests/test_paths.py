"""paths: what is made follows PAWLIB_DATA, what is committed stays in the checkout."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ASKED = """
from pawlib import model, paths
from pawlib.bench import kept_answers, results
for folder in (paths.data(), paths.runs(), paths.paper(), paths.results(), paths.checkpoints()):
    print(folder)
print(len(results.read("committed")), len(results.read("mine")), len(results.paper(1)))
print(model.MusicPAW.load(paths.SMALL_WEIGHTS).n_levels)
"""


def asked(**environment):
    """What a process of its own says: in the tests' process rows and weights follow PAWLIB_DATA, too (conftest)."""
    given = {key: value for key, value in os.environ.items() if key != "PAWLIB_DATA"} | environment
    done = subprocess.run([sys.executable, "-c", ASKED], env=given, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_large_disk_takes_what_is_made_and_leaves_what_is_committed(tmp_path):
    committed = [str(ROOT / "data" / name) for name in ("paper", "results", "checkpoints")]
    *folders, counts, levels = asked(PAWLIB_DATA=str(tmp_path))
    assert folders == [str(tmp_path), str(tmp_path / "runs"), *committed]
    published = len(list((ROOT / "data" / "results").glob("*.json")))
    assert counts == f"{published} 0 19" and levels == "4"
    assert asked()[:2] == [str(ROOT / "data"), str(ROOT / "data" / "runs")]
