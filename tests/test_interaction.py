"""pawlib/interaction.py against Eqs. 1-2 written as slow loops over heads, queries and keys."""

import math

import pytest
import torch

from pawlib import crops, interaction

TOLERANCE = 1e-8
SIZES = {"width": 5, "n_heads": 2, "head_width": 3, "n_layers": 2, "feed_forward": 7}


def small(cls, **kw):
    """A tiny float64 module in evaluation mode, with every weight and bias away from its start value."""
    module = cls(**SIZES, **kw).double().eval()
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.5 * torch.randn_like(p))
    return module


def level_clips(n_levels, n_parts=2, n_songs=2):
    return [torch.randn(n_songs, n_parts**n, SIZES["width"], dtype=torch.float64) for n in range(n_levels)]


def slow_norm(x, norm):
    centred = x - sum(x) / len(x)
    return norm.weight * centred / torch.sqrt(sum(centred**2) / len(x) + norm.eps) + norm.bias


def slow_attention(attention, queries, keys, values):
    """softmax(q k / sqrt(d)) v, one head, one query and one key at a time; lists of vectors in and out."""
    inner, n_heads = attention.embed_dim, attention.num_heads
    d = inner // n_heads
    w_q, w_k, w_v = (attention.in_proj_weight[i * inner : (i + 1) * inner] for i in range(3))
    b_q, b_k, b_v = (attention.in_proj_bias[i * inner : (i + 1) * inner] for i in range(3))
    answers = []
    for query in queries:
        heads = []
        for h in range(n_heads):
            of_head = slice(h * d, (h + 1) * d)
            q = (w_q @ query + b_q)[of_head]
            weights = [math.exp(float(q @ (w_k @ key + b_k)[of_head]) / math.sqrt(d)) for key in keys]
            mixed = sum(w * (w_v @ value + b_v)[of_head] for w, value in zip(weights, values, strict=True))
            heads.append(mixed / sum(weights))
        answers.append(attention.out_proj.weight @ torch.cat(heads) + attention.out_proj.bias)
    return answers


def slow_transformer(transformer, queries, keys, values):
    """Post-norm layers, the memory the same for each, and the map back to D_e."""
    stream = list(queries)
    for layer in transformer.layers:
        first, _, _, second = layer.feed_forward
        attended = slow_attention(layer.attention, stream, keys, values)
        for i, answer in enumerate(attended):
            x = slow_norm(stream[i] + answer, layer.norm_attention)
            fed = second.weight @ (first.weight @ x + first.bias).clamp(min=0) + second.bias
            stream[i] = slow_norm(x + fed, layer.norm_feed_forward)
    return [transformer.back.weight @ x + transformer.back.bias for x in stream]


def slow_pair(unit, whole, parts):
    """Eqs. 1-2 for one whole (a vector) and its parts (a list of vectors), both from the pair as it was."""
    of_whole, of_parts = unit.of_whole, unit.of_parts
    to_whole = slow_transformer(
        unit.to_whole,
        [of_whole.query.weight @ whole],
        [of_parts.key.weight @ p for p in parts],
        [of_parts.value.weight @ p for p in parts],
    )
    to_parts = slow_transformer(
        unit.to_parts,
        [of_parts.query.weight @ p for p in parts],
        [of_whole.key.weight @ whole],
        [of_whole.value.weight @ whole],
    )
    new_parts = [p + unit.mix[1] * t for p, t in zip(parts, to_parts, strict=True)]
    return whole + unit.mix[0] * to_whole[0], new_parts


@torch.no_grad()
def slow_block(block, s):
    """Every adjacent pair in the block's order, song by song and whole by whole; middle levels meet twice."""
    n_parts = block.n_parts
    out = [level.clone() for level in s]
    pairs = list(range(len(s) - 1))
    for n in pairs if block.order == "top_down" else pairs[::-1]:
        before = [level.clone() for level in out]
        for b in range(s[0].shape[0]):
            for k in range(n_parts**n):
                of = k
                if block.tree == "cousins" and n > 0:
                    of = k // n_parts * n_parts + (k % n_parts + 1) % n_parts
                family = [of * n_parts + m for m in range(n_parts)]
                whole, parts = slow_pair(block.units[n], before[n][b, k], [before[n + 1][b, j] for j in family])
                out[n][b, k] = whole
                for j, part in zip(family, parts, strict=True):
                    out[n + 1][b, j] = part
    return out


@pytest.mark.parametrize("n_parts", [2, 3])
@pytest.mark.parametrize("n_wholes", [1, 2])
def test_unit_equals_equations_1_and_2_as_loops(n_wholes, n_parts):
    unit = small(interaction.InteractionUnit, mix=(0.3, 0.7))
    whole = torch.randn(2, n_wholes, 5, dtype=torch.float64)
    parts = torch.randn(2, n_wholes * n_parts, 5, dtype=torch.float64)
    with torch.no_grad():
        got_whole, got_parts = unit(whole, parts)
        for b in range(2):
            for k in range(n_wholes):
                family = slice(k * n_parts, (k + 1) * n_parts)
                new_whole, new_parts = slow_pair(unit, whole[b, k], list(parts[b, family]))
                torch.testing.assert_close(got_whole[b, k], new_whole, atol=TOLERANCE, rtol=TOLERANCE)
                torch.testing.assert_close(got_parts[b, family], torch.stack(new_parts), atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize("tree", ["own", "cousins"])
@pytest.mark.parametrize("order", ["top_down", "bottom_up"])
@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize(("n_levels", "n_parts"), [(2, 2), (4, 2), (3, 3)])
def test_block_equals_the_loops(n_levels, n_parts, share, order, tree):
    mixes = [0.2 + 0.2 * n for n in range(n_levels)]
    block = small(
        interaction.PartWholeBlock, n_levels=n_levels, n_parts=n_parts, mix=mixes, share=share, order=order, tree=tree
    )
    s = level_clips(n_levels, n_parts)
    with torch.no_grad():
        got = block(s)
    for level, expected in zip(got, slow_block(block, s), strict=True):
        torch.testing.assert_close(level, expected, atol=TOLERANCE, rtol=TOLERANCE)


def test_top_down_keeps_the_leaves_from_the_whole_and_bottom_up_does_not():
    s = level_clips(4)
    changed = [*s[:3], s[3] + 1]
    for order, reaches in (("top_down", False), ("bottom_up", True)):
        block = small(interaction.PartWholeBlock, order=order)
        with torch.no_grad():
            assert torch.equal(block(s)[0], block(changed)[0]) != reaches


def test_zero_mix_leaves_every_clip_as_it_was():
    s = level_clips(4)
    for got, before in zip(small(interaction.PartWholeBlock, mix=0.0)(s), s, strict=True):
        assert torch.equal(got, before)


def test_zero_mix_of_one_level_leaves_that_level_alone():
    s = level_clips(3)
    got = small(interaction.PartWholeBlock, n_levels=3, mix=[0.5, 0.0, 0.5])(s)
    assert [torch.equal(a, b) for a, b in zip(got, s, strict=True)] == [False, True, False]


def test_input_is_left_as_it_was():
    s = level_clips(4)
    before = [level.clone() for level in s]
    small(interaction.PartWholeBlock)(s)
    assert all(torch.equal(a, b) for a, b in zip(s, before, strict=True))


def test_attention_over_the_single_whole_is_one():
    unit = small(interaction.InteractionUnit)
    _, attentions = unit.to_parts(*(torch.randn(4, n, 6, dtype=torch.float64) for n in (2, 1, 1)))
    assert len(attentions) == 2
    for attention in attentions:
        torch.testing.assert_close(attention, torch.ones(4, 2, 2, 1, dtype=torch.float64))


def test_kept_attention_is_what_each_whole_looked_at():
    unit = small(interaction.InteractionUnit)
    whole, parts = torch.randn(2, 3, 5, dtype=torch.float64), torch.randn(2, 6, 5, dtype=torch.float64)
    unit(whole, parts)
    assert [a.shape for a in unit.last_attention] == [(2, 3, 2, 2)] * 2
    layer = unit.to_whole.layers[0].attention
    q = (layer.in_proj_weight[:6] @ (unit.of_whole.query.weight @ whole[1, 2]) + layer.in_proj_bias[:6]).view(2, 3)
    keys = [unit.of_parts.key.weight @ parts[1, 4 + m] for m in range(2)]
    k = torch.stack([(layer.in_proj_weight[6:12] @ key + layer.in_proj_bias[6:12]).view(2, 3) for key in keys], dim=1)
    expected = torch.softmax(torch.einsum("hd,hmd->hm", q, k) / math.sqrt(3), dim=-1)
    torch.testing.assert_close(unit.last_attention[0][1, 2], expected.detach())


def test_inner_width_of_the_paper_is_384():
    block = interaction.PartWholeBlock()
    unit = block.units[0]
    assert unit.of_whole.query.weight.shape == (384, 512)
    assert (unit.to_whole.layers[0].attention.embed_dim, unit.to_whole.layers[0].attention.num_heads) == (384, 3)
    assert unit.to_whole.back.weight.shape == (512, 384)
    assert len(unit.to_whole.layers) == 3


def n_parameters(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("share", "n_transformers"), [(True, 1), (False, 6)])
def test_sharing_means_one_transformer_for_all(share, n_transformers):
    layer = 4 * (6 * 6 + 6) + 2 * 2 * 6 + (6 * 7 + 7) + (7 * 6 + 6)  # attention, two norms, feed-forward; D_t = 6
    transformer = 2 * layer + (6 * 5 + 5)
    projections = 3 * 5 * 6
    block = interaction.PartWholeBlock(**SIZES, share=share)
    assert n_parameters(block) == 4 * projections + n_transformers * transformer
    assert len({id(u.to_whole) for u in block.units} | {id(u.to_parts) for u in block.units}) == n_transformers


def test_a_level_projects_alike_as_whole_and_as_part():
    block = interaction.PartWholeBlock(**SIZES)
    for upper, lower in zip(block.units, list(block.units)[1:], strict=False):
        assert upper.of_parts is lower.of_whole


def test_unit_alone_uses_one_transformer_for_both_directions():
    unit = interaction.InteractionUnit(**SIZES)
    assert unit.to_whole is unit.to_parts
    assert unit.mix == (0.5, 0.5)


@pytest.mark.parametrize("tree", ["own", "cousins"])
def test_songs_do_not_mix(tree):
    block = small(interaction.PartWholeBlock, tree=tree)
    s = level_clips(4)
    changed = [level.clone() for level in s]
    for level in changed:
        level[1] += 1
    with torch.no_grad():
        for a, b in zip(block(s), block(changed), strict=True):
            assert torch.equal(a[0], b[0])
            assert not torch.equal(a[1], b[1])


def test_cousins_differ_from_the_own_tree():
    own = small(interaction.PartWholeBlock, n_levels=3)
    wrong = interaction.PartWholeBlock(**SIZES, n_levels=3, tree="cousins").double().eval()
    wrong.load_state_dict(own.state_dict())
    s = level_clips(3)
    with torch.no_grad():
        assert all((a - b).abs().max() > 1e-6 for a, b in zip(own(s)[1:], wrong(s)[1:], strict=True))


def test_dropout_acts_in_training_only():
    block = small(interaction.PartWholeBlock)
    s = level_clips(4)
    with torch.no_grad():
        assert torch.equal(block(s)[0], block(s)[0])
        block.train()
        assert not torch.equal(block(s)[0], block(s)[0])


def test_gradients_of_the_unit_are_right():
    unit = small(interaction.InteractionUnit)
    whole, parts = (torch.randn(1, n, 5, dtype=torch.float64, requires_grad=True) for n in (1, 2))
    assert torch.autograd.gradcheck(unit, (whole, parts))


@pytest.mark.parametrize("order", ["top_down", "bottom_up"])
def test_gradients_of_the_block_are_right(order):
    block = small(interaction.PartWholeBlock, n_levels=3, order=order)
    s = [level.requires_grad_() for level in level_clips(3, n_songs=1)]
    assert torch.autograd.gradcheck(lambda *levels: tuple(block(list(levels))), s)


def test_biases_start_at_zero_and_weights_by_xaviers_normal_rule():
    block = interaction.PartWholeBlock(feed_forward=512, n_layers=1)
    layer = block.units[0].to_whole.layers[0]
    for bias in (layer.attention.in_proj_bias, layer.attention.out_proj.bias, layer.feed_forward[0].bias):
        assert not bias.any()
    for weight in (
        block.units[0].of_whole.query.weight,
        layer.attention.in_proj_weight[:384],
        layer.feed_forward[0].weight,
    ):
        assert weight.std().item() == pytest.approx(math.sqrt(2 / sum(weight.shape)), rel=0.02)


def test_one_level_has_nothing_to_interact_with():
    s = level_clips(1)
    assert torch.equal(interaction.PartWholeBlock(**SIZES, n_levels=1).double()(s)[0], s[0])


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"order": "sideways"}, "order='sideways' is unknown"),
        ({"tree": "uncles"}, "tree='uncles' is unknown"),
        ({"mix": [0.5, 0.5]}, "2 mixes for 4 levels"),
    ],
)
def test_unknown_switches_are_refused(switches, message):
    with pytest.raises(ValueError, match=message):
        interaction.PartWholeBlock(**SIZES, **switches)


def test_levels_that_are_no_tree_are_refused():
    block = small(interaction.PartWholeBlock, n_levels=3)
    with pytest.raises(ValueError, match="4 levels, expected 3"):
        block(level_clips(4))
    with pytest.raises(ValueError, match="level 1 has 3 clips"):
        block(level_clips(3, n_parts=3))


def test_parts_that_do_not_fit_their_wholes_are_refused():
    unit = small(interaction.InteractionUnit)
    with pytest.raises(ValueError, match="were the levels passed in order"):
        unit(torch.zeros(1, 2, 5).double(), torch.zeros(1, 3, 5).double())


@pytest.mark.parametrize("n_parts", [2, 3])
def test_a_clip_followed_down_a_path_is_what_it_is_in_its_tree(n_parts):
    block = small(interaction.PartWholeBlock, n_levels=4, n_parts=n_parts)
    s = level_clips(4, n_parts)
    choices = torch.tensor([[1, 0, 1], [0, 1, 0]])
    with torch.no_grad():
        whole_tree, walked = crops.follow(block(s), choices), block(crops.follow(s, choices), "path")
    for n, (expected, got) in enumerate(zip(whole_tree, walked, strict=True)):
        torch.testing.assert_close(got[:, :1], expected[:, :1], atol=TOLERANCE, rtol=TOLERANCE)
        assert n in (0, 3) or not torch.allclose(got[:, 1], expected[:, 1])  # it has not met its own parts
    torch.testing.assert_close(walked[3], whole_tree[3], atol=TOLERANCE, rtol=TOLERANCE)
