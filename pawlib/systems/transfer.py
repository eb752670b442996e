"""An encoder from anywhere with a new linear layer on top: what is fine-tuned in Tables 2 and 3.

    start                                     front-end and input
    from_scratch("fcn_4")                     the paper's log-mel of 2.8 s; He's initialisation (paper Sec. 4.2, [25])
    from_checkpoint(path of Music-PAW)        the log-mel of the checkpoint's shortest clips
    from_checkpoint(path of COLA, Multi-Format, BYOL-A)  that of its clips
    from_checkpoint(path of CLMR)             none: its SampleCNN takes the wave
    from_checkpoint(path of fcn_4 or short_chunk_cnn)   that tagger's own: the Supervised-MTAT start

So the rows of Table 2 with one encoder differ in how the weights began and in nothing else.

Told in: notebooks/31_few_labels_mtat.ipynb, notebooks/32_finetune_gtzan.ipynb
"""

import torch
from torch import nn

from pawlib import checkpoints, encoders, mels, systems
from pawlib.model import MusicPAW

FRONT_END = {"sample_rate": 16_000, "n_fft": 256, "hop_length": 128, "n_mels": 128}  # paper Sec. 4.1
N_SAMPLES = 44_800  # 2.8 s, the shortest clip (reading R1)
SAMPLE_CNN = "sample_cnn"  # takes the wave


class Transfer(nn.Module):
    """Log-mel, encoder, one linear layer: wave (B, n_samples) -> logits (B, n_classes).

    Parameters
    ----------
    encoder : "fcn_4" | "fcn_7" | "sample_cnn"
    n_classes : int
    front_end : dict
        Arguments of mels.LogMel; for "sample_cnn", which takes the wave, its sample_rate alone.
    n_samples : int
        Length of the input at the front-end's rate.

    Told in: notebooks/31_few_labels_mtat.ipynb
    """

    slug = "transfer"
    n_levels, n_parts = 1, 1  # for bench.embed: a whole is one clip

    def __init__(self, encoder="fcn_4", n_classes=50, front_end=FRONT_END, n_samples=N_SAMPLES):
        super().__init__()
        self.settings = {
            "slug": self.slug, "encoder": encoder, "n_classes": n_classes, "front_end": dict(front_end),
            "n_samples": n_samples,
        }  # fmt: skip
        self.sample_rate, self.n_samples = front_end["sample_rate"], n_samples
        self.log_mel = None if encoder == SAMPLE_CNN else mels.LogMel(**front_end)
        self.encoder = systems.system("clmr")().encoder if encoder == SAMPLE_CNN else encoders.build(encoder)
        self.head = nn.Linear(self.encoder.width, n_classes)

    @torch.no_grad()
    def front_end(self, wave):
        """(B, n_samples) -> log-mel in dB (B, 1, n_mels, n_frames), or the wave itself for "sample_cnn".

        Raises
        ------
        ValueError
            For another length than n_samples.
        """
        if wave.ndim != 2 or wave.shape[1] != self.n_samples:
            raise ValueError(
                f"transfer got a wave of shape {tuple(wave.shape)}, expected (B, {self.n_samples}): mono, "
                f"{self.n_samples / self.sample_rate:.2f} s at {self.sample_rate} Hz"
            )
        return wave if self.log_mel is None else self.log_mel(wave).unsqueeze(1)

    def forward(self, wave):
        """(B, n_samples) -> logits (B, n_classes), in float32."""
        s = self.embed_clips(wave)
        with torch.autocast(wave.device.type, enabled=False):
            return self.head(s.float())

    @property
    def n_whole(self):
        """Length of the clips that are embedded: n_samples."""
        return self.n_samples

    def embed_clips(self, clips, level=0):
        """What the last layer sees: (B, n_samples) -> (B, 512)."""
        return self.encoder(self.front_end(clips))


def from_scratch(encoder, n_classes, seed):
    """A start that knows nothing: He's normal initialisation of the convolutions, biases at zero (paper Sec. 4.2).

    Told in: notebooks/31_few_labels_mtat.ipynb
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Transfer(encoder, n_classes)
        for layer in model.encoder.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)
    return model


def from_checkpoint(path_or_name, n_classes, seed):
    """A pretrained start: the checkpoint's front-end and encoder, a new linear layer.

    Parameters
    ----------
    path_or_name : path-like
        Of Music-PAW, its variants, or a tagger with one of the paper's encoders.
    n_classes : int
    seed : int
        Of the new layer's weights.

    Returns
    -------
    Transfer, and the checkpoint's card

    Raises
    ------
    FileNotFoundError
        If there is no such checkpoint.
    ValueError
        If the checkpoint holds no FCN-4 or FCN-7, or is damaged.

    Told in: notebooks/32_finetune_gtzan.ipynb
    """
    path = checkpoints.find(path_or_name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        front_end, encoder, n_samples = _parts(path)
        name = getattr(encoder, "name", SAMPLE_CNN)
        model = Transfer(name, n_classes, front_end, n_samples)
    model.encoder.load_state_dict(encoder.state_dict())
    return model, checkpoints.read_card(path)


def load(path_or_name, labels=None):
    """A trained tagger, or a fine-tuned network, from its checkpoint.

    Parameters
    ----------
    path_or_name : path-like
    labels : sequence of str, optional
        The labels that its answers will be compared with.

    Returns
    -------
    Module

    Raises
    ------
    FileNotFoundError
        If there is no such checkpoint.
    ValueError
        If it holds something else, was trained on other labels or on the same in another order, or is damaged.

    Told in: notebooks/20_supervised_taggers.ipynb
    """
    path = checkpoints.find(path_or_name)
    card = checkpoints.read_card(path)
    if card.get("kind") != "tagger":
        raise ValueError(
            f"{path} holds a {card.get('kind', 'foreign')!r} checkpoint, not a trained tagger: "
            "give it a new head with from_checkpoint and train that"
        )
    if labels is not None:
        _same_labels(path, card["labels"], list(labels))
    settings = dict(card["settings"])
    slug = settings.pop("slug")
    model = Transfer(**settings) if slug == Transfer.slug else systems.build(slug, **settings)
    checkpoints.load_weights(model, path)
    return model.eval()


def _parts(path):
    """Front-end, encoder and input length of a checkpoint, whoever made it."""
    card = checkpoints.read_card(path)
    if card.get("kind") == "music_paw":
        paw = MusicPAW.load(path)
        return _settings(paw.mels.fronts[-1]), paw.encoder, paw.n_whole // paw.n_parts ** (paw.n_levels - 1)
    if card.get("kind") == "pretraining":
        trained = systems.load_pretrained(path)
        if trained.slug == "clmr":
            return {"sample_rate": trained.sample_rate}, trained.encoder, trained.n_clip
        if trained.encoder.name in encoders.ENCODERS:
            return _settings(trained.log_mel), trained.encoder, trained.n_clip
    else:
        tagger = load(path)
        if getattr(getattr(tagger, "encoder", None), "name", None) in encoders.ENCODERS:
            return _settings(tagger.log_mel), tagger.encoder, tagger.n_samples
    raise ValueError(
        f"{path} holds {card['settings'].get('slug')!r}, which has none of the encoders "
        f"{', '.join(encoders.ENCODERS)}: fine-tune fcn_4 or short_chunk_cnn (FCN-7)"
    )


def _settings(log_mel):
    return {
        "sample_rate": log_mel.sample_rate, "n_fft": log_mel.n_fft, "hop_length": log_mel.hop_length,
        "n_mels": log_mel.filters.shape[1],
    }  # fmt: skip


def _same_labels(path, trained, wanted):
    if trained == wanted:
        return
    if sorted(trained) == sorted(wanted):
        first = next(i for i, (a, b) in enumerate(zip(trained, wanted, strict=True)) if a != b)
        raise ValueError(
            f"{path} answers for the same {len(trained)} labels in another order (column {first} is "
            f"{trained[first]!r}, here {wanted[first]!r}): reorder the columns of its scores by the card's `labels`"
        )
    foreign = sorted(set(trained) - set(wanted))
    raise ValueError(
        f"{path} was trained on {len(trained)} labels, here are {len(wanted)}; it knows "
        f"{', '.join(foreign[:3]) or 'no other ones'}: is it a checkpoint of another dataset?"
    )
