"""The schedule of a mixture: shares, passes, ranks and resuming."""

from collections import Counter

import pytest

from trackgpt.errors import UsageError
from train.mixture import BLOCK, Mixture, shares


def test_every_block_of_a_thousand_has_each_set_in_its_exact_share():
    mixture = Mixture((50, 70, 90, 110), (9, 3, 3, 1), seed=4)
    for block in (0, 7):
        drawn = Counter(mixture(i).source for i in range(block * BLOCK, (block + 1) * BLOCK))
        assert drawn == {0: 563, 1: 188, 2: 187, 3: 62}


def test_a_set_is_gone_through_whole_before_an_item_comes_again():
    mixture = Mixture((7, 300), (1, 3), seed=1)
    drawn = [mixture(i) for i in range(3000)]
    items = [draw.item for draw in drawn if draw.source == 0]
    # 750 draws of 7 items: 107 whole passes, then one begun.
    assert all(sorted(items[start : start + 7]) == [0, 1, 2, 3, 4, 5, 6] for start in range(0, 749, 7))
    per_round = Counter((draw.source, draw.round, draw.item) for draw in drawn)
    assert set(per_round.values()) == {1}


def test_two_ranks_share_what_one_process_sees():
    mixture = Mixture((40, 60), (1, 1), seed=2)
    alone = [mixture(i) for i in range(400)]
    ranks = [[mixture(i) for i in range(rank, 400, 2)] for rank in (0, 1)]
    assert sorted(alone) == sorted(ranks[0] + ranks[1])
    assert alone[250:] == [mixture(i) for i in range(250, 400)]  # resumed at 250


def test_other_seeds_give_other_orders():
    assert [Mixture((100,), (1.0,), 1)(i).item for i in range(5)] != [
        Mixture((100,), (1.0,), 2)(i).item for i in range(5)
    ]


def test_a_tiny_weight_still_gets_its_place():
    assert Mixture((5, 5), (10_000, 1)).counts.tolist() == [999, 1]


def test_kinds_divide_their_weight_among_their_sets():
    found = shares({"semantic": (9, ["ade20k", "coco-stuff", "paco-lvis"]), "reason": (1, ["reason-seg"])})
    assert found == {"ade20k": 3, "coco-stuff": 3, "paco-lvis": 3, "reason-seg": 1}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Mixture((3,), (0.0,)), "above 0"),
        (lambda: Mixture((0,), (1.0,)), "above 0"),
        (lambda: Mixture((3, 4), (1.0,)), "one weight per set"),
        (lambda: shares({"a": (1, [])}), "no sets"),
        (lambda: shares({"a": (1, ["x"]), "b": (1, ["x"])}), "stands twice"),
    ],
)
def test_a_mixture_that_cannot_be_is_refused(make, message):
    with pytest.raises(UsageError, match=message):
        make()
