"""Two numbers that tell whether a contrastive system learns, beside its loss (Wang and Isola 2020).

    alignment    how far apart the two views of a song are: mean squared distance of unit vectors. 0: the same; 2: no
                 more alike than two directions taken at random
    uniformity   how well different songs spread over the sphere: log of the mean of exp(-2 squared distance) over pairs
                 of songs. 0: all songs in one place; -4: all at right angles

Told in: notebooks/11_pretrain_clmr.ipynb
"""

import torch
import torch.nn.functional as F


@torch.no_grad()
def of_views(z_1, z_2):
    """Alignment of two views and uniformity of the first.

    Parameters
    ----------
    z_1, z_2 : Tensor [shape=(B, D)]
        Of any length: they are normalised here.

    Returns
    -------
    dict of str to float
        No uniformity for a single song.
    """
    z_1, z_2 = (F.normalize(z.float(), dim=-1) for z in (z_1, z_2))
    logs = {"alignment": (z_1 - z_2).square().sum(-1).mean().item()}
    if len(z_1) > 1:
        logs["uniformity"] = torch.pdist(z_1).square().mul(-2).exp().mean().log().item()
    return logs
