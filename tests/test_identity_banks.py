"""Banks of views: what enters, what gives way, what is negative, on vectors made up here."""

from dataclasses import replace

import numpy as np
import pytest

from trackgpt.perception.identity_banks import (
    BankSettings,
    Identity,
    View,
    changes,
    contained,
    likeness,
    margin,
    part_and_whole,
    slot_for,
    spread,
    trusted,
    unit,
)

HOW = BankSettings()


def view(degrees, frame=0, **how):
    """A view in the plane: two views are as like as the cosine of the angle between them."""
    angle = np.radians(degrees)
    return View(np.float32([np.cos(angle), np.sin(angle)]), frame, **how)


def offered(identity, one, how=HOW):
    return replace(identity, candidate=one).admitting(how)


def test_a_view_enters_when_it_is_new_and_not_when_it_is_known():
    identity = Identity((view(0, kind="shown", verified=True),))
    same, place = offered(identity, view(10))  # cos 10 degrees = 0.985 > 0.92
    assert place is None
    assert same.positive == identity.positive
    assert same.candidate is None
    grown, place = offered(identity, view(40, frame=7))  # 0.766
    assert place == 0  # among those that were seen
    assert len(grown.positive) == 2
    assert grown.admitted == 7


def test_a_full_bank_trades_a_seen_view_for_one_that_makes_the_views_differ_more():
    bank = [view(0, kind="shown", verified=True), view(25), view(30), view(90)]
    assert slot_for(view(160), bank, 4) in (1, 2)
    assert slot_for(view(27), bank, 4) is None
    assert slot_for(view(160), bank[:3], 4) == 3


def test_of_anchors_the_oldest_that_was_only_seen_gives_way_however_alike_they_are():
    settings, look = BankSettings(anchors=True, size=3), np.float32([1, 0])
    known = Identity(positive=(View(look, 0, "shown", True),))
    for frame in (10, 20, 30, 40):
        known, place = replace(known, candidate=View(look, frame)).admitting(settings)
        assert place == {10: 0, 20: 1, 30: 0, 40: 1}[frame]
    assert sorted(view.frame for view in known.positive) == [0, 30, 40]
    assert replace(known, positive=known.positive[:1] * 3, candidate=View(look, 50)).admitting(settings)[1] is None


def test_what_was_shown_never_gives_way_and_what_was_verified_only_to_what_is_verified():
    shown = [view(a, kind="shown", verified=True) for a in (0, 1)]
    assert slot_for(view(90), shown, 2) is None
    verified = [view(0, kind="shown", verified=True), view(1, verified=True)]
    assert slot_for(view(90), verified, 2) is None
    assert slot_for(view(90, verified=True), verified, 2) == 1


def test_the_spread_of_a_full_bank_never_shrinks_over_200_offers():
    rng = np.random.default_rng(0)
    identity = Identity((View(unit(rng.normal(size=16)), 0, "shown", True),))
    spreads = []
    for frame in range(200):
        identity, _ = offered(identity, View(unit(rng.normal(size=16)), frame))
        assert len(identity.positive) <= HOW.size
        assert identity.positive[0].kind == "shown"
        if len(identity.positive) == HOW.size:
            spreads.append(spread(identity.positive))
    assert all(b >= a - 1e-6 for a, b in zip(spreads, spreads[1:], strict=False))
    assert spreads[-1] > spreads[0]


def test_after_a_correction_the_first_and_the_newest_shown_view_remain():
    identity = Identity((view(0, kind="shown"), view(50)), negative=(view(90),), areas=(9.0,))
    once = identity.shown(view(30, 4, kind="shown"), 50.0)
    again = once.shown(view(60, 8, kind="shown"), 60.0)
    assert [each.frame for each in again.positive] == [0, 8]
    assert again.kept == ()
    assert again.areas == (60.0,)
    assert again.negative == identity.negative


def mistaken(identity, degrees, kind="drift"):
    return replace(identity, candidate=None, mistaken=view(degrees, 7, kind=kind)).rejecting(HOW)


def test_what_was_mistaken_is_negative_and_what_looks_like_what_was_shown_makes_that_void():
    identity = Identity((view(0, kind="shown"),))
    drifted = mistaken(identity, 60)
    assert [(each.kind, each.frame) for each in drifted.negative] == [("drift", 7)]
    assert drifted.positive == identity.positive
    alike = mistaken(identity, 5)
    assert (alike.positive, alike.negative, alike.mistaken) == ((), (), None)


def test_what_a_person_says_it_is_not_voids_all_that_was_known_and_never_ages():
    said = mistaken(Identity((view(0, kind="shown"),)), 5, "user")
    assert (said.positive, [each.kind for each in said.negative]) == ((), ["user"])
    assert said.aged(10**6, HOW).negative == said.negative


def test_a_negative_view_that_is_seen_again_is_as_young_as_it_was_then_seen():
    identity = Identity().with_negative(view(0, 1, kind="drift"), HOW).with_negative(view(1, 9, kind="drift"), HOW)
    assert [each.frame for each in identity.negative] == [9]


def test_to_nothing_shown_nothing_is_added():
    assert offered(Identity(), view(0))[1] is None


def test_negative_views_are_bounded_and_expire_after_300_frames():
    identity = Identity((view(0),))
    for frame in range(40):
        identity = identity.with_negative(view(40 + frame * 8, frame), replace(HOW, novel=1.1))
    assert len(identity.negative) == 16
    assert identity.aged(324, HOW).negative == identity.negative
    assert [each.frame for each in identity.aged(330, HOW).negative] == list(range(30, 40))
    assert identity.aged(400, HOW).negative == ()


def test_hypotheses_count_less_by_half_of_what_their_margin_lacks_and_nothing_is_said_without_negatives():
    positive, negative = [view(0)], [view(90)]
    looks = [view(0).embedding, view(90).embedding, None]
    # margins 1, -1 and none: 0.5 x (0.05 + 1) is lost
    np.testing.assert_allclose(changes(looks, positive, negative, HOW), [0, -0.525, 0], atol=1e-6)
    np.testing.assert_array_equal(changes(looks, positive, [], HOW), [0, 0, 0])
    assert margin(looks[0], positive, negative) == pytest.approx(1)
    assert np.isnan(margin(looks[0], positive, []))
    assert likeness(looks[0], []) == -1


@pytest.mark.parametrize(
    ("iou", "presence", "area", "frame", "wanted"),
    [
        (0.85, 0.9, 100, 20, True),
        (0.79, 0.9, 100, 20, False),
        (0.85, 0.5, 100, 20, False),
        (0.85, 0.9, 126, 20, False),
        (0.85, 0.9, 79, 20, False),
        (0.85, 0.9, 100, 15, False),
    ],
)
def test_a_mask_is_trusted_by_expected_iou_presence_usual_size_and_five_frames_of_rest(
    iou, presence, area, frame, wanted
):
    known = Identity(areas=(90.0, 100.0, 110.0), admitted=10)
    assert trusted(iou, presence, area, known, frame, HOW) is wanted


def test_a_head_in_a_body_is_its_part_and_a_neighbour_is_not():
    body, head, neighbour = (0, 0, 40, 100), (10, -2, 30, 20), (30, 0, 70, 100)
    assert contained(head, body) == pytest.approx(20 / 22)
    assert part_and_whole(head, body, HOW)
    assert part_and_whole(body, head, HOW)
    assert not part_and_whole(body, neighbour, HOW)
    assert not part_and_whole(None, body, HOW)


def test_a_vector_without_direction_has_no_unit():
    assert unit(np.zeros(3)) is None
    assert unit(np.array([np.nan, 1.0])) is None
    assert np.linalg.norm(unit(np.array([3.0, 4.0]))) == pytest.approx(1)
