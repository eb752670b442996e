"""The systems of the paper's tables, by slug; every one in a file of its own.

Conventions
    A slug is a system's name in the tables, lower-cased: "short_chunk_cnn_res". A kind is a folder of this package:
        taggers       Table 1, supervised: wave (B, n_samples) -> logits (B, n_classes)
        pretraining   Tables 1 to 6, self-supervised: views, objective, and the encoder that stays
        covers        Table 4: CQT (B, 1, 84, n_frames) -> embedding (B, 300), and .logits() of it
        scenes        Tables 5 and 6: wave (B, n_samples) -> logits (B, n_classes)
    A kind's `SYSTEMS` maps slug to class, in the order of the table. Kinds are imported when they are asked for.
"""

import importlib
import importlib.util

import torch

from pawlib import checkpoints
from pawlib.model import MusicPAW

KINDS = ("taggers", "pretraining", "covers", "scenes")


def names(kind):
    """Slugs of a kind, in the order of its table; none for a kind of which no system is written yet.

    Raises
    ------
    ValueError
        For an unknown kind; it lists the known ones.
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r} is unknown, expected one of {', '.join(KINDS)}")
    return tuple(_systems(kind))


def build(slug, n_classes=50, **kw):
    """A system by its slug.

    Parameters
    ----------
    slug : str
    n_classes : int
        50 for the tags of MagnaTagATune, 10 for the genres of GTZAN.
    **kw
        Further arguments of the system's class, as its `settings` hold them: build(**model.settings) is its twin.

    Raises
    ------
    ValueError
        For an unknown slug; it lists the known ones.

    Told in: notebooks/04_encoders.ipynb
    """
    return system(slug)(n_classes=n_classes, **kw)


def untrained(encoder, seed=0, **readings):
    """A network whose encoder was drawn from a seed and never trained: what a pretrained one has to beat.

    Parameters
    ----------
    encoder : "fcn_4" | "fcn_7" | "sample_cnn" | "audio_ntt"
        The networks of Music-PAW, CLMR and BYOL-A hold them; the initial weights are theirs.
    seed : int
    **readings
        Of Music-PAW, for its encoders alone: how long clips are and how they are pictured, e.g. n_levels=2. The weights
        stay the same.

    Returns
    -------
    Module
        To be calibrated before it embeds (bench.embed.calibrate).

    Raises
    ------
    ValueError
        For an unknown encoder, or readings of a network that has none.

    Told in: notebooks/30_linear_probe_mtat.ipynb
    """
    if readings and encoder in ("sample_cnn", "audio_ntt"):
        raise ValueError(f"{encoder} hears clips of one length, so {readings} says nothing to it: leave readings out")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if encoder == "sample_cnn":
            return system("clmr")()
        if encoder == "audio_ntt":
            return system("byol_a")(encoder=encoder)
        return MusicPAW("baseline", encoder, **readings)


def load_pretrained(path_or_name):
    """A pretrained system, Music-PAW or another, from its checkpoint, ready to embed clips.

    Returns
    -------
    Module
        In evaluation mode, with embed_clips(clips, level) and what bench.embed asks for beside it.

    Raises
    ------
    FileNotFoundError
        If there is no such checkpoint.
    ValueError
        If it holds something else (a supervised network is loaded by transfer.load), or is damaged.

    Told in: notebooks/30_linear_probe_mtat.ipynb
    """
    path = checkpoints.find(path_or_name)
    card = checkpoints.read_card(path)
    if card.get("kind") == "music_paw":
        return MusicPAW.load(path).eval()
    if card.get("kind") != "pretraining":
        raise ValueError(
            f"{path} holds a {card.get('kind', 'foreign')!r} checkpoint, not a pretrained encoder: "
            "is it a supervised network, which transfer.from_checkpoint gives a new head?"
        )
    settings = dict(card["settings"])
    model = system(settings.pop("slug"))(**settings)
    checkpoints.load_weights(model, path)
    return model.eval()


def system(slug):
    """The class of a system; its `TABLE1` is what build() takes to give the network that Table 1 counts.

    Raises
    ------
    ValueError
        For an unknown slug; it lists the known ones.
    """
    for kind in KINDS:
        if slug in _systems(kind):
            return _systems(kind)[slug]
    known = [name for kind in KINDS for name in _systems(kind)]
    raise ValueError(f"system {slug!r} is unknown, expected one of {', '.join(known)}")


def _systems(kind):
    """{slug: class} of a kind; empty while its folder is not there."""
    package = f"{__name__}.{kind}"
    if importlib.util.find_spec(package) is None:
        return {}
    return getattr(importlib.import_module(package), "SYSTEMS", {})
