"""Checkpoints: weights as safetensors, and a card that says what they are and where they come from.

    name.safetensors   the weights; the card travels inside, too
    name.json          the card: format, kind, settings (enough to build the module again), data, seed, metrics, commit

A checksum of the weights stands in the card, one of the card beside it: a byte that a disk or a copy has changed is
found when the file is read, and named. Files written before there were checksums are read without.

kind is "music_paw" for the method's models, "pretraining" for other self-supervised systems, "tagger" for supervised
networks, "cover" for cover-song systems. No pickle anywhere.

Told in: notebooks/10_pretrain_music_paw.ipynb
"""

import hashlib
import json
import os
import re
from pathlib import Path

import safetensors
import safetensors.torch
import torch

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

    Raises
    ------
    OSError
        As the file system says (disk full, no permission), naming `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {}  # what is shared stands in the state once per user: keep the first
    for name, value in module.state_dict().items():
        kept.setdefault(_identity(module, name), (name, value.detach().cpu().contiguous()))
    weights = dict(kept.values())
    card = {
        "format": FORMAT, "kind": kind, "settings": module.settings, **(card or {}),
        "weights_sha256": checksum(weights),
    }  # fmt: skip
    text = json.dumps(card, indent=1)
    metadata = {"format": FORMAT, "card": text, "card_sha256": checksum({}, text)}
    _write(path, lambda part: safetensors.torch.save_file(weights, part, metadata=metadata))
    _write(path.with_suffix(".json"), lambda part: part.write_text(text + "\n", encoding="utf-8"))


def checksum(tensors, *words):
    """SHA-256 of named tensors (names, types, shapes, values) and of words beside them, hexadecimal.

    Parameters
    ----------
    tensors : dict of str to Tensor
        In any order.
    *words : str
    """
    digest = hashlib.sha256()
    for word in words:
        digest.update(f"{len(word)} {word}".encode())
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


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
    released = paths.released()
    if str(path_or_name) in released:
        return released[str(path_or_name)]
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
        raise _unreadable(path, error) from error
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"{path} is no {FORMAT!r} file (it says {metadata.get('format')!r}): was it made by another program?"
        )
    card = metadata.get("card", "")
    if metadata.get("card_sha256", checksum({}, card)) != checksum({}, card):
        raise _changed(path, "card")
    try:
        return json.loads(card)
    except ValueError as error:
        raise _changed(path, "card") from error


def load_weights(model, path):
    """Fill a model from a checkpoint; every weight must be there and fit.

    Raises
    ------
    ValueError
        Naming the first weight that is missing, unknown, or of another shape; if the file is damaged, or its weights
        are not those that were written.
    """
    written = read_card(path).get("weights_sha256")
    try:
        state = safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error
    if written is not None and checksum(state) != written:
        raise _changed(path, "weights")
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


def _write(path, write):
    """Let `write` fill a file beside `path`, then put it in its place in one step."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(part)
        with open(part, "rb") as written:
            os.fsync(written.fileno())
        part.chmod(0o644)
        os.replace(part, path)
    except safetensors.SafetensorError as error:
        told = re.search(r"\(os error (\d+)\)", str(error))
        if told is None:
            raise
        raise OSError(int(told[1]), f"{os.strerror(int(told[1]))} while writing", str(path)) from error
    finally:
        part.unlink(missing_ok=True)


def _unreadable(path, error):
    return ValueError(f"{path} cannot be read as safetensors ({error}): was it cut off while copying?")


def _changed(path, what):
    return ValueError(
        f"the {what} in {path} differ from their checksum: a failing disk, or a copy gone wrong? Take another copy, or "
        "delete it and run what made it again"
    )


def _identity(model, name):
    """Identity of a parameter or buffer, the same for all names of a shared one."""
    owner, _, leaf = name.rpartition(".")
    return id(getattr(model.get_submodule(owner), leaf))
