"""Part-whole transformer block (paper Sec. 3.2, Eqs. 1-2, Figure 2).

Conventions
    B songs, N levels, M parts per whole; s[n] : Tensor [shape=(B, M**n, D_e)], encoded clips of level n.
    One interaction takes the K wholes of a level and their K * M parts, in time order.
    D_t = n_heads * head_width is the width inside the transformer, 384 in the paper (reading R3).
    `mix` is the lambda of Eqs. 1-2 (reading R5): 0 leaves every clip as it was.

Told in: notebooks/05_interaction.ipynb
"""

import torch
from torch import nn

from pawlib import crops


class Projections(nn.Module):
    """W_Q, W_K, W_V of one level, D_e -> D_t, for its clips whether they are the whole or the parts (reading R4)."""

    def __init__(self, width, inner):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, inner, bias=False) for _ in range(3))


class TransformerLayer(nn.Module):
    """Post-norm layer: the query stream attends to a memory, then a feed-forward net (Vaswani 2017).

    The memory (key, value) is the same for all layers, projected anew in each (reading R4); there is no position code.
    """

    def __init__(self, inner, n_heads, feed_forward, dropout):
        super().__init__()
        self.attention = nn.MultiheadAttention(inner, n_heads, dropout=dropout, batch_first=True)
        self.norm_attention = nn.LayerNorm(inner)
        self.feed_forward = nn.Sequential(
            nn.Linear(inner, feed_forward), nn.ReLU(), nn.Dropout(dropout), nn.Linear(feed_forward, inner)
        )
        self.norm_feed_forward = nn.LayerNorm(inner)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, key, value):
        """x (B, Q, D_t), key and value (B, T, D_t) -> x (B, Q, D_t), attention (B, n_heads, Q, T)."""
        attended, attention = self.attention(x, key, value, average_attn_weights=False)
        x = self.norm_attention(x + self.dropout(attended))
        return self.norm_feed_forward(x + self.dropout(self.feed_forward(x))), attention


class Transformer(nn.Module):
    """Transformer(Q, K, V) of Eqs. 1-2: n_layers layers, then a linear map from D_t back to D_e (reading R3)."""

    def __init__(self, width=512, n_heads=3, head_width=128, n_layers=3, feed_forward=2048, dropout=0.1):
        super().__init__()
        inner = n_heads * head_width
        self.layers = nn.ModuleList(TransformerLayer(inner, n_heads, feed_forward, dropout) for _ in range(n_layers))
        self.back = nn.Linear(inner, width)

    def forward(self, query, key, value):
        """query (B, Q, D_t), key and value (B, T, D_t) -> (B, Q, D_e), attention of each layer (B, n_heads, Q, T)."""
        attentions = []
        for layer in self.layers:
            query, attention = layer(query, key, value)
            attentions.append(attention)
        return self.back(query), attentions


class InteractionUnit(nn.Module):
    """One interaction of wholes with their parts (Figure 2).

    whole_hat = whole + mix * Transformer(Q_whole, K_parts, V_parts)   (Eq. 1)
    parts_hat = parts + mix * Transformer(Q_parts, K_whole, V_whole)   (Eq. 2)

    Both read the pair as it was before either update (reading R4). In Eq. 2 the memory is a single clip, so the
    softmax over it is always 1: what the parts receive does not depend on what they ask.

    Parameters
    ----------
    width, n_heads, head_width, n_layers, feed_forward, dropout
        See `Transformer`.
    mix : float or (float, float)
        lambda of the whole and of the parts.
    of_whole, of_parts : Projections, optional
        Shared with the other interactions of the same level; own ones by default.
    to_whole, to_parts : Transformer, optional
        The transformers of Eq. 1 and Eq. 2; by default one serves both.

    Told in: notebooks/05_interaction.ipynb
    """

    def __init__(
        self,
        width=512,
        n_heads=3,
        head_width=128,
        n_layers=3,
        feed_forward=2048,
        dropout=0.1,
        mix=0.5,
        of_whole=None,
        of_parts=None,
        to_whole=None,
        to_parts=None,
    ):
        super().__init__()
        inner = n_heads * head_width
        fresh = not (of_whole and of_parts and to_whole)
        self.of_whole = of_whole or Projections(width, inner)
        self.of_parts = of_parts or Projections(width, inner)
        self.to_whole = to_whole or Transformer(width, n_heads, head_width, n_layers, feed_forward, dropout)
        self.to_parts = to_parts or self.to_whole
        self.mix = tuple(mix) if isinstance(mix, (tuple, list)) else (mix, mix)
        self.last_attention = None
        if fresh:
            xavier_(self)

    def forward(self, whole, parts):
        """Let wholes and parts see each other.

        Parameters
        ----------
        whole : Tensor [shape=(B, K, D_e)]
        parts : Tensor [shape=(B, K * M, D_e)]
            In time order: parts k*M .. k*M + M-1 belong to whole k.

        Returns
        -------
        The same pair, the same shapes. `last_attention` keeps what each whole looked at, per layer (B, K, n_heads, M).

        Raises
        ------
        ValueError
            If the parts are no whole multiple of the wholes.
        """
        n_songs, n_wholes, width = whole.shape
        if parts.shape[0] != n_songs or parts.shape[1] % n_wholes or parts.shape[2] != width:
            raise ValueError(
                f"wholes {tuple(whole.shape)} and parts {tuple(parts.shape)} do not fit: expected (B, K, D) and "
                "(B, K * M, D); were the levels passed in order?"
            )
        w = whole.reshape(n_songs * n_wholes, 1, width)  # (B * K, 1, D_e)
        p = parts.reshape(n_songs * n_wholes, -1, width)  # (B * K, M, D_e)
        to_whole, attentions = self.to_whole(self.of_whole.query(w), self.of_parts.key(p), self.of_parts.value(p))
        to_parts, _ = self.to_parts(self.of_parts.query(p), self.of_whole.key(w), self.of_whole.value(w))
        self.last_attention = [a.detach().squeeze(2).unflatten(0, (n_songs, n_wholes)) for a in attentions]
        return whole + self.mix[0] * to_whole.reshape_as(whole), parts + self.mix[1] * to_parts.reshape_as(parts)


class PartWholeBlock(nn.Module):
    """Every adjacent pair of levels interacts once, so the middle levels twice: first output is second input.

    Parameters
    ----------
    n_levels, n_parts : int
        N and M.
    width, n_heads, head_width, n_layers, feed_forward, dropout
        See `Transformer`.
    mix : float or sequence of N floats
        lambda^n of Eqs. 1-2, one for all levels or one per level (reading R5).
    share : bool
        One transformer for all levels and both directions, or one for each (reading R4).
    order : "top_down" | "bottom_up"
        Pairs 0-1, 1-2, 2-3 as printed, where what levels 2 and 3 know never reaches the whole; or 2-3, 1-2, 0-1.
    tree : "own" | "cousins"
        "cousins" is a control: each whole meets its sibling's parts. Same work, wrong tree.

    Raises
    ------
    ValueError
        For an unknown order or tree, or as many mixes as there are not levels.

    Told in: notebooks/05_interaction.ipynb
    """

    def __init__(
        self,
        n_levels=4,
        n_parts=2,
        width=512,
        n_heads=3,
        head_width=128,
        n_layers=3,
        mix=0.5,
        share=True,
        order="top_down",
        tree="own",
        feed_forward=2048,
        dropout=0.1,
    ):
        super().__init__()
        if order not in ("top_down", "bottom_up"):
            raise ValueError(
                f'order={order!r} is unknown, expected "top_down" (as printed) or "bottom_up" (reading R4)'
            )
        mixes = list(mix) if isinstance(mix, (tuple, list)) else [mix] * n_levels
        if len(mixes) != n_levels:
            raise ValueError(f"{len(mixes)} mixes for {n_levels} levels: give one value, or one per level (reading R5)")
        self.n_levels, self.n_parts, self.order, self.tree = n_levels, n_parts, order, tree
        sizes = (width, n_heads, head_width, n_layers, feed_forward, dropout)
        levels = [Projections(width, n_heads * head_width) for _ in range(n_levels)]
        common = Transformer(*sizes) if share else None
        self.units = nn.ModuleList(
            InteractionUnit(
                *sizes,
                mix=(mixes[n], mixes[n + 1]),
                of_whole=levels[n],
                of_parts=levels[n + 1],
                to_whole=common or Transformer(*sizes),
                to_parts=common or Transformer(*sizes),
            )
            for n in range(n_levels - 1)
        )
        crops.families(torch.zeros(1, n_parts, 1), 1, tree)  # an unknown tree is refused here, not in the first step
        xavier_(self)

    def forward(self, s, tree=None):
        """Interacted clips.

        Parameters
        ----------
        s : list of N Tensors, [n] of shape (B, M**n, D_e)
        tree : "path", optional
            s are the clips of one path down each tree (`crops.follow`), (B, M, D_e) below the first level; there the
            first clip of each level meets its parts.

        Returns
        -------
        list of N Tensors of the same shapes

        Raises
        ------
        ValueError
            If a level has another number of clips than M**n.
        """
        tree = tree or self.tree
        crops.check_levels(s, self.n_levels, self.n_parts, tree)
        s = list(s)
        pairs = range(self.n_levels - 1)
        for n in pairs if self.order == "top_down" else reversed(pairs):
            n_wholes = 1 if tree == "path" else s[n].shape[1]
            parts = crops.families(s[n + 1], n_wholes, tree).flatten(1, 2)  # (B, M**(n+1), D_e)
            wholes, parts = self.units[n](s[n][:, :n_wholes], parts)
            s[n] = torch.cat([wholes, s[n][:, n_wholes:]], dim=1)
            s[n + 1] = crops.families(parts, n_wholes, tree, back=True).flatten(1, 2)
        return s


def xavier_(module):
    """Initialise every linear map by Xavier's normal rule, biases with zero (as in PEMR)."""
    for part in module.modules():
        if isinstance(part, nn.MultiheadAttention):
            for third in part.in_proj_weight.detach().chunk(3):
                nn.init.xavier_normal_(third)
            nn.init.zeros_(part.in_proj_bias)
        if isinstance(part, nn.Linear):
            nn.init.xavier_normal_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
