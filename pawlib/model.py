"""Music-PAW wired (paper Figure 1): crops -> log-mels -> encoder -> part-whole block -> projector -> loss.

Variants
    music_paw            the paper's model
    hc                   hierarchical contrast, no part-whole block       (paper Sec. 4.3)
    pw_block             part-whole block, plain NT-Xent                  (paper Sec. 4.3)
    baseline             neither: NT-Xent on the whole and its view       (paper Sec. 4.3)
    cousins              control: music_paw with each whole paired with its sibling's parts: same work, wrong tree
    flat_multicrop       control: all clips of a song are positives of its whole, no tree and no block
    baseline_multicrop   control: NT-Xent from every clip Music-PAW sees, no part-whole term and no block

Conventions
    wave : Tensor [shape=(B, n_whole)] at the model's sample rate.
    tree : log-mels per level, [n] of shape (B, M**n, 1, n_mels, n_frames); mel_aug that of the augmented whole.
    s[n] : Tensor [shape=(B, M**n, 512)], encoded; z[n] : Tensor [shape=(B, M**n, 256)], projected.

Told in: notebooks/10_pretrain_music_paw.ipynb
"""

import ast
import copy
import inspect

import torch
import torchaudio
from torch import nn

from pawlib import augment, checkpoints, crops, encoders, interaction, losses, mels

VARIANTS = {
    # name: (has the block, loss, tree)
    "music_paw": (True, "hierarchical", "own"),
    "hc": (False, "hierarchical", "own"),
    "pw_block": (True, "nt_xent", "own"),
    "baseline": (False, "nt_xent", "own"),
    "cousins": (True, "hierarchical", "cousins"),
    "flat_multicrop": (False, "hierarchical", "flat"),
    "baseline_multicrop": (False, "multicrop", "own"),
}
FRAMES = 350  # hops in the shortest clip; one frame more, 351, is what Table 1's cost shows (reading R1)


def readings(text):
    """Arguments of MusicPAW off their defaults, from one line: readings("temperature=0.1 mix=0.25").

    Parameters
    ----------
    text : str
        Pairs name=value between spaces; "" for none. A value is a number, True, False, None or a word.

    Returns
    -------
    dict
        In the order given.

    Raises
    ------
    ValueError
        For an unknown name (it lists the known ones), a name given twice, a pair without "=", or a value of another
        kind than the default's: share=false is a word, share=False is not.

    Told in: notebooks/73_readings.ipynb
    """
    known = [name for name in inspect.signature(MusicPAW).parameters if name not in ("variant", "encoder")]
    found = {}
    for pair in text.split():
        name, equals, value = pair.partition("=")
        if not equals or name not in known or name in found:
            wrong = "is given twice" if name in found else "is no reading written as name=value"
            raise ValueError(f"{pair!r} in {text!r} {wrong}; the readings are {', '.join(known)}")
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[name] = value
        default = inspect.signature(MusicPAW).parameters[name].default
        kinds = (
            bool if isinstance(default, bool) else str if isinstance(default, str) else (int, float, list, type(None))
        )
        if not isinstance(found[name], kinds) or (kinds is not bool and isinstance(found[name], bool)):
            raise ValueError(f"{pair!r} in {text!r}: {name} is {default!r} by default, expected something of that kind")
    return found


class Embedding(dict):
    """What `MusicPAW.embed` returns: level -> Tensor [shape=(B, W * M**n, 512)], and when each clip sounds.

    Attributes
    ----------
    times : dict, level -> Tensor [shape=(W * M**n, 2)] of start and end in seconds
    repeated : dict, level -> bool Tensor [shape=(W * M**n,)], True where a clip holds any repeated audio, because the
        last whole was completed by repeating the song.
    """

    def __init__(self, levels, times, repeated):
        super().__init__(levels)
        self.times, self.repeated = times, repeated


class Absent(nn.Module):
    """In place of the block and the projector where a checkpoint holds the encoder alone."""

    def forward(self, *_):
        raise ValueError(
            "this checkpoint holds the encoder alone, as released weights do: it embeds songs, but clips cannot "
            "interact and nothing can be projected; pretrain it whole (10_pretrain_music_paw) or load such a run"
        )


class MusicPAW(nn.Module):
    """Music-PAW, its ablations and its controls.

    Parameters
    ----------
    variant : str
        See the module's map.
    encoder : "fcn_4" | "fcn_7"
    sample_rate : int [Hz]
    whole_seconds : float [s]
        Length of the top clip, 22.4 s or 2.8 s (reading R1).
    n_fft : int [samples]
    hop_length : int [samples], optional
        Hop of the shortest clips; by default what gives them 351 frames: 128 for wholes of 22.4 s, 16 for 2.8 s.
    n_mels, n_levels, n_parts : int
    window : "fixed" | "scaled"
        Reading R2.
    mix : float or list of floats
        lambda of Eqs. 1-2 (reading R5).
    share, order
        Reading R4.
    temperature : float
        Reading R8.
    pw_exponent, reduce, symmetric, tau_pw, positives, level_negatives
        Readings R6, R15, R9, R16.
    augment_clips : bool
        Whether the clips of the tree are augmented, too, with a draw of their own (reading R10).
    descent : "full" | "random_path"
        All clips of the tree, or those of one random path down each song's: 7 clips of 15 (reading R36).
    batch_norm : "joint" | "per_level"
        All levels and the augmented view pass the encoder in one batch, or one level after the other (reading R14).
    n_heads, head_width, n_layers, feed_forward, dropout
        Of the transformer (reading R3).

    Raises
    ------
    ValueError
        For an unknown variant, encoder or switch.

    Told in: notebooks/10_pretrain_music_paw.ipynb
    """

    def __init__(
        self,
        variant="music_paw",
        encoder="fcn_4",
        *,
        sample_rate=16_000,
        whole_seconds=22.4,
        n_fft=256,
        hop_length=None,
        n_mels=128,
        n_levels=4,
        n_parts=2,
        window="fixed",
        mix=0.5,
        share=True,
        order="top_down",
        temperature=0.5,
        pw_exponent="inside",
        reduce="sum",
        symmetric=False,
        tau_pw=None,
        positives="inside_log",
        level_negatives=False,
        augment_clips=False,
        descent="full",
        batch_norm="joint",
        n_heads=3,
        head_width=128,
        n_layers=3,
        feed_forward=2048,
        dropout=0.1,
    ):
        super().__init__()
        self.settings = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        if variant not in VARIANTS:
            raise ValueError(f"variant={variant!r} is unknown, expected one of {', '.join(VARIANTS)}")
        if batch_norm not in ("joint", "per_level"):
            raise ValueError(f'batch_norm={batch_norm!r} is unknown, expected "joint" or "per_level" (reading R14)')
        if descent not in ("full", "random_path"):
            raise ValueError(f'descent={descent!r} is unknown, expected "full" or "random_path" (reading R36)')
        if descent == "random_path" and variant not in ("music_paw", "hc", "pw_block"):
            raise ValueError(
                f"descent='random_path' is for music_paw, hc and pw_block, not for {variant} (reading R36)"
            )
        if hop_length is None:
            hop_length = max(1, round(whole_seconds * sample_rate / n_parts ** (n_levels - 1) / FRAMES))
        has_block, self.loss_name, self.tree = VARIANTS[variant]
        self.variant, self.batch_norm, self.temperature, self.symmetric = variant, batch_norm, temperature, symmetric
        self.descent = descent
        self.sample_rate, self.n_levels, self.n_parts = sample_rate, n_levels, n_parts
        self.n_whole = crops.whole_length(whole_seconds, sample_rate, n_levels, n_parts, hop_length)
        self.mels = mels.LevelMels(sample_rate, n_fft, hop_length, n_mels, n_levels, n_parts, window)
        self.encoder = encoders.build(encoder)
        self.block = None
        if has_block:
            self.block = interaction.PartWholeBlock(
                n_levels, n_parts, encoders.WIDTH, n_heads, head_width, n_layers, mix, share, order, self.tree,
                feed_forward, dropout,
            )  # fmt: skip
        self.projector = encoders.ProjectionHead()
        self.part_whole = {
            "pw_exponent": pw_exponent,
            "reduce": reduce,
            "tau_pw": tau_pw,
            "positives": positives,
            "level_negatives": level_negatives,
        }
        if self.loss_name == "hierarchical":  # a misspelt switch is refused here, not in the first step
            tree = [torch.zeros(1, n_parts**n, 2) for n in range(n_levels)]
            self.loss(tree, torch.zeros(1, 2))

    @property
    def n_seen_levels(self):
        """Levels that take part in training: all, or the whole alone where no clip enters the loss or the block."""
        return 1 if self.block is None and self.loss_name == "nt_xent" else self.n_levels

    def views(self, wave, keys):
        """What one training step sees: the log-mels of the tree and of the augmented view of the whole.

        Parameters
        ----------
        wave : Tensor [shape=(B, n_whole)]
        keys : sequence of B int
            See `augment.augment`; one key, one view.

        Returns
        -------
        tree : list of Tensors, [n] of shape (B, M**n, 1, n_mels, n_frames)
            Below the first level (B, M, 1, n_mels, n_frames) with descent="random_path".
        mel_aug : Tensor [shape=(B, 1, 1, n_mels, n_frames)]
        """
        wave_aug = augment.augment(wave, keys, self.sample_rate)
        if self.settings["augment_clips"]:  # reading R10
            wave = augment.augment(wave, [augment.sample_key(key, 2) for key in keys], self.sample_rate)
        return self.log_mels(wave, keys), self.log_mel_of_whole(wave_aug)

    def forward(self, tree, mel_aug):
        """Projected tree and augmented view.

        Parameters
        ----------
        tree : list of Tensors, [n] of shape (B, M**n, 1, n_mels, n_frames)
        mel_aug : Tensor [shape=(B, 1, 1, n_mels, n_frames)]

        Returns
        -------
        z : list of Tensors, [n] of shape (B, M**n, 256)
            After the block where the variant has one.
        z_aug : Tensor [shape=(B, 256)]
        """
        s, s_aug = self.encode(tree, mel_aug)
        return [self.projector(level) for level in self.interact(s)], self.projector(s_aug)

    def objective(self, z, z_aug):
        """Loss of each song, (B,), and what an epoch logs: alignment, uniformity, part-whole similarity and share, ().

        similarity_of_songs_n is the mean cosine of different songs' clips at level n: near 1 they have collapsed.
        """
        with torch.no_grad():
            top, aug = (nn.functional.normalize(v.float(), dim=-1) for v in (z[0][:, 0], z_aug))
            logs = {"alignment": (top - aug).square().sum(-1).mean()}
            if len(top) > 1:
                logs["uniformity"] = torch.pdist(top).square().mul(-2).exp().mean().log()
            tree = self._tree_of(z)
            for n, similarity in enumerate(losses.part_whole_similarity(z, "path" if tree == "path" else "own")):
                logs[f"part_whole_similarity_{n}{n + 1}"] = similarity
            if len(top) > 1:
                logs |= {f"similarity_of_songs_{n}": losses.similarity_of_songs(level) for n, level in enumerate(z)}
            if self.has_part_whole_ratio:
                share = losses.part_whole_share(z, z_aug, self.temperature, tree=tree, **self.part_whole)
                logs["part_whole_share"] = share.mean()
        return self.loss(z, z_aug), logs

    def log_mel_of_whole(self, wave):
        """(B, n_whole) -> (B, 1, 1, n_mels, n_frames)."""
        return self.mels.level(0, wave.unsqueeze(1))

    def log_mels(self, wave, keys=None):
        """(B, n_whole) -> list of (B, M**n, 1, n_mels, n_frames), of the levels this variant trains on.

        With keys, one per song, and descent="random_path": of one path down each tree, drawn from the song's key.
        """
        clips = crops.hierarchical_crops(wave, self.n_levels, self.n_parts)
        if keys is not None and self.descent == "random_path":
            drawn = [torch.Generator().manual_seed(augment.sample_key(key, 3)) for key in keys]
            choices = [torch.randint(self.n_parts, (self.n_levels - 1,), generator=one) for one in drawn]
            clips = crops.follow(clips, torch.stack(choices).to(wave.device))
        return [self.mels.level(n, clips[n]) for n in range(self.n_seen_levels)]

    def encode(self, tree, mel_aug):
        """Encode a tree of log-mels and the augmented view's, (B, 1, 1, n_mels, n_frames): s list, s_aug (B, 512)."""
        groups = [level.flatten(0, 1) for level in (*tree, mel_aug)]  # (B * M**n, 1, n_mels, n_frames)
        if self.batch_norm == "per_level":
            encoded = [self.encoder(group) for group in groups]
        else:
            encoded = self.encoder(torch.cat(groups)).split([len(group) for group in groups])
        s = [e.unflatten(0, level.shape[:2]) for e, level in zip(encoded, tree, strict=False)]
        return s, encoded[-1]

    def interact(self, s):
        """The part-whole block where the variant has one: (B, M**n, 512) per level, the same shapes."""
        return s if self.block is None else self.block(s, "path" if self._tree_of(s) == "path" else None)

    def _tree_of(self, levels):
        """What the clips of these levels are to each other: "path" where a path was followed (reading R36)."""
        followed = self.descent == "random_path" and len(levels) > 2 and levels[2].shape[1] == self.n_parts
        return "path" if followed else self.tree

    def loss(self, z, z_aug):
        """Loss of each song, (B,), of the variant's kind."""
        if self.loss_name == "nt_xent":
            return losses.nt_xent(z[0][:, 0], z_aug, self.temperature, self.symmetric)
        if self.loss_name == "multicrop":
            return losses.multicrop_nt_xent(z, z_aug, self.temperature, self.symmetric)
        return losses.hierarchical_contrastive(
            z, z_aug, self.temperature, symmetric=self.symmetric, tree=self._tree_of(z), **self.part_whole
        )

    @property
    def has_part_whole_ratio(self):
        """Whether the part-whole term stands inside Eq. 5's ratio, where it can swamp it."""
        return self.loss_name == "hierarchical" and self.part_whole["positives"] == "inside_log"

    @torch.no_grad()  # not inference_mode: its tensors could not train a probe
    def embed(self, wave, sample_rate, levels=None, batch_clips=64):
        """Embed songs of any length: the encoder's output before block and projector, at every level.

        Parameters
        ----------
        wave : Tensor or array [shape=(n_samples,) or (B, n_samples)]
        sample_rate : int [Hz]
            Of `wave`; it is resampled to the model's.
        levels : sequence of int, optional
            Only these levels; all by default.
        batch_clips : int
            Clips encoded at once: memory against speed.

        Returns
        -------
        Embedding
            level -> (B, W * M**n, 512) for W wholes in time order, with `times` and `repeated` per clip. The last whole
            is completed by repeating the song.

        Raises
        ------
        ValueError
            For NaN, integer samples, another shape, an unknown level, or less audio than one STFT window.

        Told in: notebooks/30_linear_probe_mtat.ipynb
        """
        wave = self._checked(wave, sample_rate)
        wholes, n_real = crops.split_wholes(wave, self.n_whole)  # (B, W, n_whole)
        n_songs, n_wholes, _ = wholes.shape
        tree = crops.hierarchical_crops(wholes.flatten(0, 1), self.n_levels, self.n_parts)
        chosen = list(range(self.n_levels)) if levels is None else list(levels)
        if any(n not in range(self.n_levels) for n in chosen):
            raise ValueError(f"levels={chosen} are not all in 0..{self.n_levels - 1}")
        modes = [(module, module.training) for module in self.modules()]
        self.eval()
        try:
            embedded, times, repeated = {}, {}, {}
            for n in chosen:
                clips = tree[n].flatten(0, 1)  # (B * W * M**n, n_clip)
                s = [self.embed_clips(some, n).float() for some in clips.split(batch_clips)]
                embedded[n] = torch.cat(s).unflatten(0, (n_songs, -1))  # (B, W * M**n, 512)
                starts = torch.arange(embedded[n].shape[1]) * clips.shape[-1]
                times[n] = torch.stack([starts, starts + clips.shape[-1]], dim=1) / self.sample_rate
                repeated[n] = starts + clips.shape[-1] > (n_wholes - 1) * self.n_whole + n_real
        finally:
            for module, was_training in modes:
                module.training = was_training
        return Embedding(embedded, times, repeated)

    def embed_clips(self, clips, level):
        """Encode clips of one level's length: (K, n_clip) at the model's rate -> (K, 512)."""
        return self.encoder(self.mels.level(level, clips.unsqueeze(1)).flatten(0, 1))

    def _checked(self, wave, sample_rate):
        wave = torch.as_tensor(wave)
        if not wave.is_floating_point():
            raise ValueError(
                f"wave holds integer samples ({wave.dtype}), expected floats in [-1, 1]: divide by 32768 if it is int16"
            )
        wave = wave.to(device=next(self.parameters()).device, dtype=torch.float32)
        if wave.ndim not in (1, 2):
            raise ValueError(
                f"wave has shape {tuple(wave.shape)}, expected (n_samples,) or (B, n_samples): is it stereo?"
            )
        if not torch.isfinite(wave).all():
            raise ValueError(
                "wave holds NaN or infinite samples: is the file corrupt, or was it divided by a zero peak?"
            )
        wave = wave if wave.ndim == 2 else wave.unsqueeze(0)
        if sample_rate != self.sample_rate:
            with torch.autocast(wave.device.type, enabled=False):  # in bf16 its convolution would add noise
                wave = torchaudio.functional.resample(wave, sample_rate, self.sample_rate)
        if wave.shape[-1] < self.mels.n_fft:
            raise ValueError(
                f"wave has {wave.shape[-1]} samples at {self.sample_rate} Hz, less than one STFT window of "
                f"{self.mels.n_fft}: is the file cut off, or the sample rate given wrong?"
            )
        return wave

    def encoder_alone(self):
        """A copy without block and projector, a twentieth of the size: it embeds as this one does, and can no more."""
        alone = copy.deepcopy(self)
        alone.block = None if self.block is None else Absent()
        alone.projector = Absent()
        return alone

    def save(self, path, card=None):
        """Write the weights as safetensors and a JSON card beside them, both atomically.

        Parameters
        ----------
        path : path-like
            Ends in .safetensors; the card takes the same name with .json.
        card : dict, optional
            What else is known: data, scale, seed, epochs, metrics, commit.
        """
        holds = {"holds": "encoder"} if isinstance(self.projector, Absent) else {}
        checkpoints.save(self, path, "music_paw", {**holds, **(card or {})})

    @classmethod
    def load(cls, path_or_name):
        """A model from a checkpoint file, or a released one by its name in data/checkpoints (`encoder_alone`).

        Raises
        ------
        FileNotFoundError
            If there is no such file or name; it lists the names there are.
        ValueError
            If the file is no checkpoint of this kind, is damaged, or its weights have another geometry.
        """
        path = checkpoints.find(path_or_name)
        card = checkpoints.read_card(path)
        if card.get("kind") != "music_paw":
            raise ValueError(
                f"{path} holds a {card.get('kind', 'foreign')!r} checkpoint, not Music-PAW: load its encoder instead"
            )
        model = cls(**card["settings"])
        if card.get("holds") == "encoder":
            model = model.encoder_alone()
        checkpoints.load_weights(model, path)
        return model
