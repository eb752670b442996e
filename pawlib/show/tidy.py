"""Take audio out of notebooks before they are committed: a player is made again when its cell is run.

python -m pawlib.show.tidy NOTEBOOK...
"""

import json
import sys
from pathlib import Path

from pawlib.bench.files import atomic


def drop_audio(path):
    """Remove every kept output that holds audio from a notebook's file; other outputs and counts stay.

    Returns
    -------
    int
        Outputs removed. A notebook without audio is not written.
    """
    notebook = json.loads(Path(path).read_text(encoding="utf-8"))
    dropped = 0
    for cell in notebook["cells"]:
        kept = [output for output in cell.get("outputs", []) if not _is_audio(output)]
        if len(kept) < len(cell.get("outputs", [])):
            dropped += len(cell["outputs"]) - len(kept)
            cell["outputs"] = kept
    if dropped:
        with atomic(path) as temporary:
            temporary.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return dropped


def _is_audio(output):
    data = output.get("data", {})
    return any(kind.startswith("audio/") for kind in data) or "<audio" in "".join(data.get("text/html", ""))


if __name__ == "__main__":
    for name in sys.argv[1:]:
        if dropped := drop_audio(name):
            print(f"{name}: {dropped} outputs with audio removed")
