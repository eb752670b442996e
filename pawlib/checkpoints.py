"""Checkpoints: weights as safetensors, and a card that says what they are and where they come from.

    name.safetensors   the weights; the card travels inside, too
    name.json          the card: format, kind, settings (enough to build the module again), data, seed, metrics, commit

kind is "music_paw" for the method's models, "pretraining" for other self-supervised systems, "tagger" for supervised
networks, "cover" for cover-song systems. No pickle anywhere.

Told in: notebooks/10_pretrain_music_paw.ipynb
"""

import json
import os
from pathlib import Path

import safetensors
import safetensors.torch

from pawlib import paths

FORMAT = "music-paw checkpoint 1"


def save(module, path, kind, card=None):
    """Write a module's weights and its card, both atomically.

    Parameters
    ----------
    module : Module
        With `settings`, a dict of the arguments that build it again.
    path : path-like
        Ends in .safetensors; the card takes the same name with .json.
    kind : str
        Who can load it: "music_paw", "pretraining" or "tagger".
    card : dict, optional
        What else is known: data, scale, seed, epochs, metrics, commit.
    """
    path = Path(path)
    card = {"format": FORMAT, "kind": kind, "settings": module.settings, **(card or {})}
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(card, indent=1)
    kept = {}  # what is shared stands in the state once per user: keep the first
    for name, value in module.state_dict().items():
        kept.setdefault(_identity(module, name), (name, value.detach().cpu().contiguous()))
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        safetensors.torch.save_file(dict(kept.values()), part, metadata={"format": FORMAT, "card": text})
        part.chmod(0o644)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    part = path.with_name(f".{path.stem}.json.{os.getpid()}.part")
    part.write_text(text + "\n", encoding="utf-8")
    os.replace(part, path.with_suffix(".json"))


def find(path_or_name):
    """Path of a checkpoint given as a path or as a released name.

    Raises
    ------
    FileNotFoundError
        Listing the released names.
    """
    path = Path(path_or_name)
    if path.is_file():
        return path
    named = paths.checkpoints() / f"{path_or_name}.safetensors"
    if named.is_file():
        return named
    released = (p.stem for p in paths.checkpoints().glob("*.safetensors"))
    known = ", ".join(sorted(name for name in released if "." not in name)) or "none yet"
    raise FileNotFoundError(f"{path_or_name} is neither a file nor a released checkpoint (released: {known})")


def read_card(path):
    """The card inside a checkpoint file: its settings and where it comes from.

    Raises
    ------
    ValueError
        If the file is no checkpoint of this workbook, or damaged.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as opened:
            metadata = opened.metadata() or {}
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read as safetensors ({error}): was it cut off while copying?") from error
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"{path} is no {FORMAT!r} file (it says {metadata.get('format')!r}): was it made by another program?"
        )
    return json.loads(metadata["card"])


def load_weights(model, path):
    """Fill a model from a checkpoint; every weight must be there and fit.

    Raises
    ------
    ValueError
        Naming the first weight that is missing, unknown, or of another shape.
    """
    state = safetensors.torch.load_file(path)
    wanted = model.state_dict()
    first = {}
    for name in wanted:
        first.setdefault(_identity(model, name), name)
    complete = {name: state[first[_identity(model, name)]] for name in wanted if first[_identity(model, name)] in state}
    missing, unknown = sorted(set(wanted) - set(complete)), sorted(set(state) - set(wanted))
    other = [n for n in complete if complete[n].shape != wanted[n].shape]
    if missing or unknown or other:
        what = (
            f"{other[0]} is {tuple(complete[other[0]].shape)}, expected {tuple(wanted[other[0]].shape)}" if other
            else f"{missing[0]} is missing" if missing else f"{unknown[0]} is not part of the model"
        )  # fmt: skip
        raise ValueError(f"{path} has another geometry than the model: {what}; was it trained with other settings?")
    model.load_state_dict(complete)


def _identity(model, name):
    """Identity of a parameter or buffer, the same for all names of a shared one."""
    owner, _, leaf = name.rpartition(".")
    return id(getattr(model.get_submodule(owner), leaf))
