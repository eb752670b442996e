"""FCN-4 on CQT-Net: a pretrained encoder of the sound beside a network of the notes (paper Sec. 4.4, Table 4)."""

import torch

from pawlib import encoders, mels
from pawlib.systems import layers, transfer
from pawlib.systems.covers.cqt_net import CQTNet


class FCN4OnCQTNet(layers.CoverNet):
    """The paper's own cover-song system: FCN-4 "on the top of CQTNet"; Table 4, rows 5 to 10.

    How the two are wired is nowhere stated; this is reading R12::

        CQT       (B, 1, 84, n_frames)            CQT-Net's embedding          (B, 300)
        log-mels  (B, n_clips, 1, 128, 351)       FCN-4, mean over the clips   (B, 512)
        together  (B, 812)                        side by side
        embedding (B, 300)                        linear
        logits    (B, n_classes)                  linear

    The rows of the table differ in how FCN-4 began: random weights, or those of a checkpoint (`from_checkpoint`). Both
    branches go on learning. A frozen FCN-4's features can be given in place of the log-mels: (B, n_clips, 512).

    Parameters
    ----------
    n_classes : int, optional
        Songs of the training set; None for no classifier.
    front_end : dict
        Arguments of mels.LogMel: the clips' log-mel, that of the paper's Sec. 4.1.
    n_samples : int
        Length of a clip at the front-end's rate; 2.8 s at 16 kHz.
    slim : int
        As CQTNet has it, of the CQT-Net branch; FCN-4 is that of the checkpoints.

    Attributes
    ----------
    sample_rate, n_samples : int
        Of the clips that `log_mels` takes.
    """

    slug = "fcn_4_on_cqt_net"
    needs_clips = True
    SMALL = CQTNet.SMALL

    def __init__(self, n_classes=50, front_end=transfer.FRONT_END, n_samples=transfer.N_SAMPLES, slim=1):
        narrow = {} if slim == 1 else {"slim": slim}
        super().__init__(n_classes, front_end=dict(front_end), n_samples=n_samples, **narrow)
        self.sample_rate, self.n_samples = front_end["sample_rate"], n_samples
        self.log_mel = mels.LogMel(**front_end)
        self.cqt_net = CQTNet(n_classes=None, slim=slim)
        self.encoder = encoders.FCN4()
        self.add_head(self.cqt_net.width + self.encoder.width)

    @classmethod
    def from_checkpoint(cls, path_or_name, n_classes, seed, slim=1):
        """A pretrained start: the checkpoint's front-end and FCN-4, all else random by `seed`.

        Parameters
        ----------
        path_or_name : path-like
            Of Music-PAW, another pretraining, or a supervised tagger (Supervised-MTAT), with FCN-4 as encoder.
        n_classes : int
        seed : int
        slim : int

        Returns
        -------
        FCN4OnCQTNet, and the checkpoint's card

        Raises
        ------
        FileNotFoundError
            If there is no such checkpoint.
        ValueError
            If it holds another encoder, naming it, or is damaged.
        """
        start, card = transfer.from_checkpoint(path_or_name, 1, seed)
        if not isinstance(start.encoder, encoders.FCN4):
            name = start.settings["encoder"]
            raise ValueError(f"{path_or_name} holds the encoder {name!r}, expected fcn_4: the paper puts FCN-4 on top")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = cls(n_classes, start.settings["front_end"], start.n_samples, slim)
        model.encoder.load_state_dict(start.encoder.state_dict())
        return model, card

    @torch.no_grad()
    def log_mels(self, clips):
        """(B, n_clips, n_samples) -> (B, n_clips, 1, 128, 351) in dB, without gradient.

        Raises
        ------
        ValueError
            For another shape, or clips of another length.
        """
        if clips.ndim != 3 or clips.shape[2] != self.n_samples:
            raise ValueError(
                f"{self.slug} got clips of shape {tuple(clips.shape)}, expected (B, n_clips, {self.n_samples}): "
                f"{self.n_samples / self.sample_rate:.2f} s at {self.sample_rate} Hz each"
            )
        return self.log_mel(clips).unsqueeze(2)

    def forward(self, cqt, clips):
        """A song's CQT and its clips -> embedding (B, 300), not normalised.

        Parameters
        ----------
        cqt : Tensor [shape=(B, 1, 84, n_frames)]
        clips : Tensor [shape=(B, n_clips, 1, 128, 351)] of log-mels, or [shape=(B, n_clips, 512)] of FCN-4's features

        Raises
        ------
        ValueError
            For another shape of either, or different numbers of songs.
        """
        x = torch.cat([self.cqt_net(cqt), self.encode(clips, len(cqt))], dim=1)  # (B, 300 + 512)
        return self.embed(x)

    def parts(self, x):
        """What each branch adds to the embedding; with the bias they sum up to it.

        Parameters
        ----------
        x : Tensor [shape=(B, 300 + 512)]
            Both branches side by side, as `embed` takes them.

        Returns
        -------
        dict
            "cqt_net" and "fcn_4" : Tensor [shape=(B, 300)]
        """
        weight, n_notes = self.embedding.weight, self.cqt_net.width
        x = x.to(weight.dtype)
        return {"cqt_net": x[:, :n_notes] @ weight[:, :n_notes].T, "fcn_4": x[:, n_notes:] @ weight[:, n_notes:].T}

    def encode(self, clips, n_songs):
        """Mean over a song's clips of what FCN-4 makes of them (reading R11): (B, 512), in float32 at least."""
        if clips.ndim not in (3, 5) or len(clips) != n_songs or (clips.ndim == 3 and clips.shape[2] != encoders.WIDTH):
            raise ValueError(
                f"{self.slug} got clips of shape {tuple(clips.shape)} with {n_songs} songs' CQTs, expected log-mels "
                f"({n_songs}, n_clips, 1, 128, 351) or FCN-4's features ({n_songs}, n_clips, {encoders.WIDTH})"
            )
        if clips.ndim == 5:
            clips = self.encoder(clips.flatten(0, 1)).unflatten(0, clips.shape[:2])  # (B, n_clips, 512)
        return clips.to(self.embedding.weight.dtype).mean(dim=1)
