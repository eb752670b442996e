"""pawlib/losses.py against Eqs. 3-6 and NT-Xent written as slow loops over single numbers."""

import itertools
import math

import pytest
import torch

from pawlib import crops, losses

TOLERANCE = 1e-10
B, D = 3, 4
TREES = ("own", "cousins", "flat")


def songs(n_levels, n_parts=2, n_songs=B, width=D):
    """Random projected clips and augmented views, in float64."""
    z = [torch.randn(n_songs, n_parts**n, width, dtype=torch.float64) for n in range(n_levels)]
    return z, torch.randn(n_songs, width, dtype=torch.float64)


def cosines(z, z_aug):
    """sim((song, level, clip), (song, level, clip)) by loops; level "aug" is the augmented view. Remembers."""
    vectors = {
        (b, n, k): level[b, k].tolist()
        for n, level in enumerate(z)
        for b in range(len(level))
        for k in range(level.shape[1])
    }
    vectors |= {(b, "aug", 0): z_aug[b].tolist() for b in range(len(z_aug))}
    known = {}

    def sim(x, y):
        if (x, y) not in known:
            dot = sum(i * j for i, j in zip(vectors[x], vectors[y], strict=True))
            known[x, y] = dot / math.hypot(*vectors[x]) / math.hypot(*vectors[y])
        return known[x, y]

    return sim


def family(n, k, n_parts, tree):
    """Indices at level n + 1 of the parts that clip k of level n is paired with."""
    if tree == "cousins" and n > 0:
        parent, place = divmod(k, n_parts)
        k = parent * n_parts + (place + 1) % n_parts
    return [k * n_parts + m for m in range(n_parts)]


def pairs(n_levels, n_parts, tree):
    """Every (whole, part) of a song as ((level, clip), (level, clip))."""
    if tree == "flat":
        return [((0, 0), (n, k)) for n in range(1, n_levels) for k in range(n_parts**n)]
    return [
        ((n, k), (n + 1, part))
        for n in range(n_levels - 1)
        for k in range(n_parts**n)
        for part in family(n, k, n_parts, tree)
    ]


def slow_loss(
    sim, n_levels, n_parts, tau, *, pw_exponent, reduce, symmetric, tau_pw, positives, level_negatives, tree, n_songs=B
):
    """Eqs. 3-6 as they are printed, with the readings as plain branches."""
    tau_pw = tau_pw or tau
    n_samples = 1000 * n_parts**n_levels
    weight = (n_samples / n_parts) / n_samples  # Eq. 4: 1/M for adjacent levels

    def e(cosine):
        return math.exp(cosine / tau_pw) if pw_exponent == "inside" else math.exp(cosine) / tau_pw

    result = []
    for b in range(n_songs):
        l_pw, total, alignment = 0.0, 0.0, []
        for whole, part in pairs(n_levels, n_parts, tree):
            cosine = sim((b, *whole), (b, *part))
            l_pw += weight * e(cosine)
            total += weight
            alignment.append(cosine / tau_pw)
        l_level = 0.0
        for n in range(n_levels - 1):
            for k in range(1 if tree == "flat" else n_parts**n):
                for u in range(n_songs):
                    for part in range(n_parts ** (n + 1)):
                        if u != b:
                            l_level += weight * e(sim((b, 0 if tree == "flat" else n, k), (u, n + 1, part)))
        if reduce == "mean" and total:
            l_pw, l_level = l_pw / total, l_level / total
        by_direction = []
        for mine, other in [(0, "aug"), ("aug", 0)][: 2 if symmetric else 1]:
            positive = math.exp(sim((b, mine, 0), (b, other, 0)) / tau)
            l_neg = sum(math.exp(sim((b, mine, 0), (u, other, 0)) / tau) for u in range(n_songs))
            l_neg += sum(math.exp(sim((b, mine, 0), (u, mine, 0)) / tau) for u in range(n_songs) if u != b)
            l_neg += l_level if level_negatives else 0.0
            if positives == "inside_log":
                by_direction.append(-math.log((l_pw + positive) / (l_pw + l_neg)))
            else:
                mean = sum(alignment) / len(alignment) if alignment else 0.0
                by_direction.append(-math.log(positive / l_neg) - mean)
        result.append(sum(by_direction) / len(by_direction))
    return torch.tensor(result, dtype=torch.float64)


SWITCHES = {
    "pw_exponent": ("inside", "printed"),
    "reduce": ("sum", "mean"),
    "symmetric": (False, True),
    "tau_pw": (None, 0.2),
    "positives": ("inside_log", "outside_log"),
    "level_negatives": (False, True),
    "tree": TREES,
}
COMBINATIONS = [dict(zip(SWITCHES, values, strict=True)) for values in itertools.product(*SWITCHES.values())]


@pytest.mark.parametrize("n_parts", [2, 3])
@pytest.mark.parametrize("n_levels", [1, 2, 3, 4])
def test_loss_equals_the_equations_as_loops_for_every_switch(n_levels, n_parts):
    z, z_aug = songs(n_levels, n_parts)
    sim = cosines(z, z_aug)
    for switches in COMBINATIONS:
        got = losses.hierarchical_contrastive(z, z_aug, 0.5, **switches)
        expected = slow_loss(sim, n_levels, n_parts, 0.5, **switches)
        torch.testing.assert_close(got, expected, atol=TOLERANCE, rtol=TOLERANCE, msg=lambda m, s=switches: f"{s}: {m}")


@pytest.mark.parametrize("tau", [0.1, 0.5, 2.0])
def test_loss_equals_the_loops_at_other_temperatures(tau):
    z, z_aug = songs(4)
    sim = cosines(z, z_aug)
    for exponent in losses.EXPONENTS:
        switches = COMBINATIONS[0] | {"pw_exponent": exponent}
        expected = slow_loss(sim, 4, 2, tau, **switches)
        torch.testing.assert_close(
            losses.hierarchical_contrastive(z, z_aug, tau, **switches), expected, atol=1e-9, rtol=1e-9
        )


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("tau", [0.1, 0.5])
def test_nt_xent_equals_its_formula_as_loops(symmetric, tau):
    (top, *_), z_aug = songs(1)
    sim = cosines([top], z_aug)
    expected = []
    for b in range(B):
        each = []
        for mine, other in [(0, "aug"), ("aug", 0)][: 2 if symmetric else 1]:
            total = sum(math.exp(sim((b, mine, 0), (u, other, 0)) / tau) for u in range(B))
            total += sum(math.exp(sim((b, mine, 0), (u, mine, 0)) / tau) for u in range(B) if u != b)
            each.append(-math.log(math.exp(sim((b, mine, 0), (b, other, 0)) / tau) / total))
        expected.append(sum(each) / len(each))
    got = losses.nt_xent(top[:, 0], z_aug, tau, symmetric)
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64), atol=TOLERANCE, rtol=TOLERANCE)


def test_symmetric_nt_xent_is_the_cross_entropy_over_both_views():
    a, b = torch.randn(5, 8, dtype=torch.float64), torch.randn(5, 8, dtype=torch.float64)
    views = torch.nn.functional.normalize(torch.cat([a, b]), dim=-1)
    logits = (views @ views.T / 0.5).fill_diagonal_(-torch.inf)
    expected = torch.nn.functional.cross_entropy(logits, (torch.arange(10) + 5) % 10)
    torch.testing.assert_close(losses.nt_xent(a, b, 0.5, symmetric=True).mean(), expected)


def test_one_level_is_nt_xent():
    z, z_aug = songs(1)
    for symmetric in (False, True):
        got = losses.hierarchical_contrastive(z, z_aug, 0.3, symmetric=symmetric)
        torch.testing.assert_close(got, losses.nt_xent(z[0][:, 0], z_aug, 0.3, symmetric))


def test_multicrop_is_the_mean_of_nt_xent_over_all_clips():
    z, z_aug = songs(3)
    expected = [losses.nt_xent(z[n][:, k], z_aug, 0.5) for n in range(3) for k in range(2**n)]
    torch.testing.assert_close(losses.multicrop_nt_xent(z, z_aug, 0.5), sum(expected) / 7)


def test_two_orthogonal_songs_by_hand():
    z_aug = torch.eye(2, dtype=torch.float64)
    z = [z_aug.unsqueeze(1), z_aug.unsqueeze(1).repeat(1, 2, 1)]
    # L_pw = 1/2 (e + e) = e, the positive is e, L_neg = e + 1 + 1: -log 2e / (2e + 2)
    expected = torch.full((2,), math.log(1 + 1 / math.e), dtype=torch.float64)
    torch.testing.assert_close(losses.hierarchical_contrastive(z, z_aug, 1.0), expected)


def test_one_song_alone_has_nothing_to_be_told_from_and_loss_zero():
    z, z_aug = songs(3, n_songs=1)
    for switches in ({}, {"symmetric": True}, {"level_negatives": True}, {"pw_exponent": "printed"}):
        got = losses.hierarchical_contrastive(z, z_aug, 0.5, **switches)
        torch.testing.assert_close(got, torch.zeros(1, dtype=torch.float64), atol=1e-12, rtol=0)


def test_one_song_with_positives_outside_the_log_by_hand():
    whole, part, other = torch.tensor([[1.0, 0.0]]), [1.0, 0.0], [0.6, 0.8]
    z = [whole.unsqueeze(1), torch.tensor([[part, other]])]
    got = losses.hierarchical_contrastive(z, whole, 0.5, positives="outside_log", tau_pw=0.1)
    torch.testing.assert_close(got, torch.tensor([-(1.0 + 0.6) / 2 / 0.1]))


@pytest.mark.parametrize(
    "switches",
    [
        {},
        {"pw_exponent": "printed", "reduce": "mean"},
        {"symmetric": True, "tau_pw": 0.2},
        {"positives": "outside_log", "tree": "cousins"},
        {"level_negatives": True, "tree": "flat"},
        {"level_negatives": True, "tree": "cousins", "symmetric": True},
    ],
)
def test_gradients_of_the_hierarchical_loss_are_right(switches):
    z, z_aug = songs(3, n_songs=2, width=3)
    inputs = [x.requires_grad_() for x in (*z, z_aug)]
    assert torch.autograd.gradcheck(
        lambda *x: losses.hierarchical_contrastive(list(x[:-1]), x[-1], 0.5, **switches), inputs
    )


@pytest.mark.parametrize("symmetric", [False, True])
def test_gradients_of_nt_xent_are_right(symmetric):
    a, b = (torch.randn(3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda x, y: losses.nt_xent(x, y, 0.5, symmetric), (a, b))


@pytest.mark.parametrize("n_songs", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("tau", [0.01, 0.1, 1.0, 10.0])
def test_values_and_gradients_are_finite_at_any_temperature(tau, dtype, n_songs):
    for aligned in (False, True):
        z, z_aug = songs(4, n_songs=n_songs, width=8)
        if aligned:
            z, z_aug = [torch.ones_like(level) for level in z], torch.ones_like(z_aug)
        for switches in (
            {},
            {"pw_exponent": "printed"},
            {"level_negatives": True, "symmetric": True},
            {"positives": "outside_log"},
        ):
            leaves = [x.to(dtype).requires_grad_() for x in (*z, z_aug)]
            loss = losses.hierarchical_contrastive(leaves[:-1], leaves[-1], tau, **switches)
            loss.sum().backward()
            assert loss.dtype == torch.float32
            assert torch.isfinite(loss).all()
            assert all(torch.isfinite(x.grad).all() for x in leaves)
        view, other = (torch.randn(n_songs, 8).to(dtype).requires_grad_() for _ in range(2))
        losses.nt_xent(view, other, tau).sum().backward()
        assert torch.isfinite(view.grad).all() and torch.isfinite(other.grad).all()


def test_half_precision_input_gives_the_numbers_of_its_rounded_values():
    z, z_aug = songs(4)
    half = [x.bfloat16() for x in (*z, z_aug)]
    wide = [x.double() for x in half]
    got = losses.hierarchical_contrastive(half[:-1], half[-1], 0.5)
    expected = losses.hierarchical_contrastive(wide[:-1], wide[-1], 0.5)
    torch.testing.assert_close(got.double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("tree", TREES)
def test_order_of_songs_only_reorders_the_losses(tree):
    z, z_aug = songs(4)
    order = torch.tensor([2, 0, 1])
    kw = {"tree": tree, "level_negatives": True, "symmetric": True}
    moved = losses.hierarchical_contrastive([level[order] for level in z], z_aug[order], 0.5, **kw)
    torch.testing.assert_close(moved, losses.hierarchical_contrastive(z, z_aug, 0.5, **kw)[order])


def test_length_of_vectors_does_not_matter():
    z, z_aug = songs(3)
    scaled = [level * (0.1 + 10 * torch.rand(*level.shape[:2], 1, dtype=torch.float64)) for level in z]
    expected = losses.hierarchical_contrastive(z, z_aug, 0.5)
    torch.testing.assert_close(losses.hierarchical_contrastive(scaled, 7 * z_aug, 0.5), expected)


def test_trees_differ_once_there_are_cousins():
    z, z_aug = songs(3)
    own, cousins, flat = (losses.hierarchical_contrastive(z, z_aug, 0.5, tree=tree) for tree in TREES)
    assert ((own - cousins).abs() > 1e-6).all() and ((own - flat).abs() > 1e-6).all()
    two = [losses.hierarchical_contrastive(z[:2], z_aug, 0.5, tree=tree) for tree in TREES]
    torch.testing.assert_close(two[0], two[1])  # one whole: no cousins, and flat is the tree itself
    torch.testing.assert_close(two[0], two[2])


@pytest.mark.parametrize("tree", TREES)
@pytest.mark.parametrize("tau", [0.05, 0.1, 0.5, 3.0])
def test_share_of_the_part_whole_term_at_perfect_alignment_is_seven_eighths(tau, tree):
    z, z_aug = [torch.ones(2, 2**n, 8) for n in range(4)], torch.ones(2, 8)
    share = losses.part_whole_share(z, z_aug, tau, tree=tree)
    torch.testing.assert_close(share, torch.full((2,), 0.875), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("tau", "percent"), [(0.5, 84), (0.1, 0.9)])
def test_share_as_printed_depends_on_the_temperature(tau, percent):
    z, z_aug = [torch.ones(2, 2**n, 8) for n in range(4)], torch.ones(2, 8)
    share = losses.part_whole_share(z, z_aug, tau, pw_exponent="printed")
    assert (100 * share - percent).abs().max() < (0.5 if percent > 1 else 0.05)
    by_hand = 7 * math.e / tau / (7 * math.e / tau + math.exp(1 / tau))
    torch.testing.assert_close(share, torch.full((2,), by_hand))


def test_share_is_the_part_of_the_numerator_that_the_loops_give():
    z, z_aug = songs(4)
    sim = cosines(z, z_aug)
    got = losses.part_whole_share(z, z_aug, 0.5, reduce="mean", tau_pw=0.2)
    for b in range(B):
        pw = sum(math.exp(sim((b, *w), (b, *p)) / 0.2) for w, p in pairs(4, 2, "own")) / 2 / 7
        assert got[b].item() == pytest.approx(pw / (pw + math.exp(sim((b, 0, 0), (b, "aug", 0)) / 0.5)))


def test_share_is_zero_without_parts():
    z, z_aug = songs(1)
    assert losses.part_whole_share(z, z_aug, 0.5).tolist() == [0.0] * B


@pytest.mark.parametrize("tree", TREES)
def test_similarity_per_pair_of_levels_is_the_mean_cosine(tree):
    z, z_aug = songs(4)
    sim = cosines(z, z_aug)
    got = losses.part_whole_similarity(z, tree)
    for n in range(3):
        mean = [sim((b, *w), (b, *p)) for b in range(B) for w, p in pairs(4, 2, tree) if p[0] == n + 1]
        assert got[n] == pytest.approx(sum(mean) / len(mean))


def test_length_ratio_is_the_share_of_the_part():
    assert losses.length_ratio(358_400, 179_200) == 0.5
    assert losses.length_ratio(9, 3) == pytest.approx(1 / 3)
    for whole, part in ((1, 2), (2, 2), (2, 0)):
        with pytest.raises(ValueError, match=f"a part of {part} samples in a whole of {whole}.*swapped"):
            losses.length_ratio(whole, part)


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"pw_exponent": "outside"}, "pw_exponent='outside' is unknown"),
        ({"reduce": "max"}, "reduce='max' is unknown"),
        ({"positives": "both"}, "positives='both' is unknown"),
        ({"tree": "uncles"}, "tree='uncles' is unknown"),
        ({"tau_pw": 0.0}, "tau_pw=0.0 must be positive"),
        ({"tau_pw": -1.0}, "tau_pw=-1.0 must be positive"),
    ],
)
def test_unknown_switches_are_refused(switches, message):
    z, z_aug = songs(3)
    with pytest.raises(ValueError, match=message):
        losses.hierarchical_contrastive(z, z_aug, 0.5, **switches)


@pytest.mark.parametrize("tau", [0, -0.5])
def test_temperature_that_is_not_positive_is_refused(tau):
    z, z_aug = songs(2)
    with pytest.raises(ValueError, match=f"temperature={tau} must be positive"):
        losses.hierarchical_contrastive(z, z_aug, tau)
    with pytest.raises(ValueError, match=f"temperature={tau} must be positive"):
        losses.nt_xent(z_aug, z_aug, tau)


def test_levels_and_views_that_do_not_fit_are_refused():
    z, z_aug = songs(3)
    with pytest.raises(ValueError, match=r"level 2 has 3 clips of 3 songs, expected M\*\*2 = 4"):
        losses.hierarchical_contrastive([z[0], z[1], z[2][:, :3]], z_aug, 0.5)
    with pytest.raises(ValueError, match="does each song have one augmented view"):
        losses.hierarchical_contrastive(z, z_aug[:2], 0.5)
    with pytest.raises(ValueError, match=r"expected \(B, D\) twice"):
        losses.nt_xent(z[0], z_aug, 0.5)
    with pytest.raises(ValueError, match="level 2 has 3 clips"):
        losses.multicrop_nt_xent([z[0], z[1], z[2][:, :3]], z_aug, 0.5)


def test_similarity_of_songs_is_the_mean_over_pairs_of_songs():
    level = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    unit = level / level.norm(dim=-1, keepdim=True)
    pairs = [unit[a, k] @ unit[b, k] for k in range(2) for a in range(3) for b in range(3) if a != b]
    assert losses.similarity_of_songs(level) == pytest.approx(float(sum(pairs) / len(pairs)), abs=1e-12)
    assert losses.similarity_of_songs(torch.ones(4, 2, 3)) == pytest.approx(1)


def paths(z):
    """The path of every draw of choices, the same for all songs."""
    n_parts = z[1].shape[1]
    for choices in itertools.product(range(n_parts), repeat=len(z) - 1):
        yield crops.follow(z, torch.tensor(choices).repeat(len(z[0]), 1))


@pytest.mark.parametrize("switches", [{}, {"pw_exponent": "printed"}, {"tau_pw": 0.2}])
@pytest.mark.parametrize(("n_levels", "n_parts"), [(2, 2), (4, 2), (3, 3)])
def test_part_whole_term_of_a_path_has_that_of_the_tree_as_its_mean(n_levels, n_parts, switches):
    z, z_aug = songs(n_levels, n_parts)
    positive = torch.exp(torch.cosine_similarity(z[0][:, 0], z_aug) / 0.5)

    def part_whole(z, tree):
        share = losses.part_whole_share(z, z_aug, 0.5, tree=tree, **switches)
        return share / (1 - share) * positive

    found = torch.stack([part_whole(path, "path") for path in paths(z)])
    torch.testing.assert_close(found.mean(0), part_whole(z, "own"), atol=TOLERANCE, rtol=1e-9)
    if n_levels > 2:
        assert found.std(0).min() > 1e-3


@pytest.mark.parametrize("positives", ["inside_log", "outside_log"])
@pytest.mark.parametrize("level_negatives", [False, True])
@pytest.mark.parametrize("reduce", ["sum", "mean"])
def test_loss_of_a_path_equals_the_sums_as_loops(reduce, level_negatives, positives):
    z, z_aug = songs(3)
    path = crops.follow(z, torch.tensor([[1, 0], [0, 0], [1, 1]])[: len(z_aug)])
    sim, tau = cosines(path, z_aug), 0.5
    expected = []
    for b in range(len(z_aug)):
        walked = [(2**n / 2, sim((b, n, 0), (b, n + 1, m))) for n in range(2) for m in range(2)]  # 2**n wholes each
        others = [u for u in range(len(z_aug)) if u != b]
        across = [(4**n / 2, sim((b, n, 0), (u, n + 1, m))) for n in range(2) for m in range(2) for u in others]
        total = sum(weight for weight, _ in walked) if reduce == "mean" else 1
        l_pw, l_level = (sum(w * math.exp(cosine / tau) for w, cosine in some) / total for some in (walked, across))
        positive = math.exp(sim((b, 0, 0), (b, "aug", 0)) / tau)
        l_neg = sum(math.exp(sim((b, 0, 0), (u, "aug", 0)) / tau) for u in range(len(z_aug)))
        l_neg += sum(math.exp(sim((b, 0, 0), (u, 0, 0)) / tau) for u in others) + level_negatives * l_level
        if positives == "inside_log":
            expected.append(-math.log((l_pw + positive) / (l_pw + l_neg)))
        else:
            mean = sum(w * cosine for w, cosine in walked) / sum(w for w, _ in walked)
            expected.append(-math.log(positive / l_neg) - mean / tau)
    got = losses.hierarchical_contrastive(
        path, z_aug, tau, reduce=reduce, level_negatives=level_negatives, positives=positives, tree="path"
    )
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64), atol=TOLERANCE, rtol=TOLERANCE)
