"""nano-memory in the shared loop, with random weights: beginnings, corrections, memory, absence."""

from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest
import torch
from tiny_propagation import BOX, HEIGHT, SETTINGS, WIDTH, moving, pointed, square, tiny_propagation
from tracks import Track

from trackgpt.errors import UsageError
from trackgpt.perception.memory_segmenter import Asked
from trackgpt.perception.nano_memory import ABLATIONS, NanoMemory
from trackgpt.perception.search_window import SearchWindow
from trackgpt.systems.pointed import Pointed
from trackgpt.track import TrackState
from trackgpt.types import Prompt, VisualPrompt

SHOWN = VisualPrompt(BOX)
MASKED = VisualPrompt(mask=square())
CLICKED = VisualPrompt(points=((42.5, 36.5, 1),))
SEES = ("presence=0.0",)
"""A target counts as present wherever there is a mask."""
BLIND = ("presence=1.0",)
"""A target is never present."""


@pytest.fixture(scope="module")
def system():
    return pointed()


def begun(system, *visual, settings=SEES, ablation="full", **fields):
    """A track whose first frame has been seen."""
    track = Track(system.tracker(ablation, settings))
    track.look(moving(1)[0], Prompt(visual=visual or (SHOWN,), **fields))
    return track


def after(track, frames, prompts=()):
    """The predictions of further frames; `prompts` are told with the frame of their number."""
    told = {prompt.frame: prompt for prompt in prompts}
    return [track.look(frame, told.get(t)) for t, frame in enumerate(frames)]


def known(track, number=1):
    """What is remembered of a target."""
    return dict(track.state.memory.targets)[number]


def window_of(track, number=1):
    """Where a target is looked for next."""
    return track.tracker.perception.network.window(known(track, number).gaze, HEIGHT, WIDTH)


def bits(value):
    """All numbers of a memory, a prediction or a part of one, to the last bit."""
    if is_dataclass(value):
        return tuple(bits(getattr(value, each.name)) for each in fields(value))
    if isinstance(value, dict):
        return tuple((key, bits(each)) for key, each in value.items())
    if isinstance(value, tuple | list):
        return tuple(bits(each) for each in value)
    if isinstance(value, torch.Tensor):
        value = value.numpy()
    if isinstance(value, np.ndarray):
        return value.shape, str(value.dtype), value.tobytes()
    return repr(value)


# Beginnings


def test_a_mask_that_is_shown_is_the_mask(system):
    track = Track(system.tracker())
    seen = track.look(moving(1)[0], Prompt(visual=(MASKED,)))
    assert np.array_equal(seen.masks[0], square())
    assert seen.boxes.tolist() == [list(BOX)]
    assert (seen.scores.tolist(), seen.present.tolist()) == ([1.0], [True])
    assert known(track).gaze.size == 24
    assert window_of(track) == SearchWindow(18, 12, 48, 48)


@pytest.mark.parametrize(
    "shown",
    [
        SHOWN,
        CLICKED,
        MASKED,
        VisualPrompt(points=((42.5, 36.5, 1), (80.0, 36.5, 0), (32.0, 26.0, 1))),
        VisualPrompt(BOX, ((42.5, 36.5, 1), (80.0, 10.0, 0))),
        VisualPrompt((-20.0, -20.0, 30.0, 30.0)),
        VisualPrompt((0.0, 0.0, float(WIDTH), float(HEIGHT))),
        VisualPrompt(points=((119.9, 89.9, 1),)),
    ],
    ids=["box", "point", "mask", "points", "box and points", "over the edge", "all", "corner"],
)
def test_it_begins_with_whatever_shows_the_target_and_goes_on(system, shown):
    track = begun(system, shown)
    for frame in moving(5)[1:]:
        window = window_of(track)
        seen = track.look(frame)
        assert seen.masks.shape == (1, HEIGHT, WIDTH)
        assert seen.masks.dtype == bool
        assert seen.present.tolist() == [bool(seen.masks.any())]
        assert 0 <= seen.scores[0] <= 1
        assert seen.scores[0] == pytest.approx(seen.own_scores["iou"][0] * seen.own_scores["presence"][0])
        outside = seen.masks[0].copy()
        outside[window.y : window.y + window.height, window.x : window.x + window.width] = False
        assert not outside.any()
    assert track.state.frame == 5


def test_a_point_beside_the_target_and_every_further_one_change_the_mask(system):
    on, off, further = (42.5, 36.5, 1), (80.0, 36.5, 0), (32.0, 26.0, 1)
    masks = []
    for points in ((on,), (on, off), (on, further), (on, off, further)):
        track = Track(system.tracker("no-window", SEES))
        masks.append(track.look(moving(1)[0], Prompt(visual=(VisualPrompt(points=points),))).masks.tobytes())
    assert len(set(masks)) == 4


def test_a_prompt_on_which_nothing_is_seen_is_looked_at_again_in_the_same_place():
    model = tiny_propagation()
    torch.nn.init.constant_(model.coarse.bias, -1e4)
    track = begun(Pointed(NanoMemory(model, SETTINGS), "tiny"), VisualPrompt((60.0, 30.0, 90.0, 60.0)))
    gaze = known(track).gaze
    assert (gaze.x, gaze.y, gaze.size) == (75, 45, 30)
    assert window_of(track) == SearchWindow(45, 15, 60, 60)
    seen = track.look(moving(2)[1])
    assert seen.present.tolist() == [False]


@pytest.mark.parametrize("shape", [(5, 7), (1, 1), (200, 20), (64, 64)])
def test_frames_may_have_any_shape(system, shape):
    frames = np.random.default_rng(0).integers(0, 256, (3, *shape, 3), np.uint8)
    height, width = shape
    for shown in (VisualPrompt((0.0, 0.0, width / 2, height / 2)), VisualPrompt(mask=np.ones(shape, bool))):
        track = Track(system.tracker(settings=SEES))
        seen = [track.look(frame, None if t else Prompt(visual=(shown,))) for t, frame in enumerate(frames)]
        assert {p.masks.shape for p in seen} == {(1, *shape)}


def test_a_frame_of_another_size_on_the_way_is_tracked(system):
    track = begun(system)
    for shape in ((40, 30), (300, 400)):
        seen = track.look(np.zeros((*shape, 3), np.uint8))
        assert seen.masks.shape == (1, *shape)


# Corrections


@pytest.mark.parametrize("side", [0, 1])
def test_a_click_on_a_later_frame_changes_the_track_and_is_remembered_beside_the_first_view(system, side):
    frames = moving(6)
    click = VisualPrompt(points=((46.5, 36.5, side),))
    plain, corrected = begun(system), begun(system)
    first = bits(known(plain).shown[0])
    unsaid = after(plain, frames[1:])
    said = after(corrected, frames[1:], [Prompt("", 2, "correct", visual=(click,))])
    assert [bits(a) == bits(b) for a, b in zip(unsaid, said, strict=True)] == [True, True, False, False, False]
    assert said[2].ids.tolist() == [1]
    assert [len(known(track).shown) for track in (plain, corrected)] == [1, 2]
    assert bits(known(corrected).shown[0]) == first


def test_a_mask_on_a_later_frame_is_the_mask_and_the_newest_correction_takes_the_place_of_the_one_before(system):
    frames = moving(8)
    track = begun(system)
    first = bits(known(track).shown[0])
    newest = []
    for t in (2, 5):
        shown = Prompt("", t, "correct", visual=(VisualPrompt(mask=square(30 + 2 * t)),))
        seen = track.look(frames[t], shown)
        assert np.array_equal(seen.masks[0], square(30 + 2 * t))
        memory = known(track)
        assert [bits(memory.shown[0]), bits(memory.shown[1])] == [first, bits(memory.last)]
        assert memory.steady == ()
        newest.append(bits(memory.last))
        track.look(frames[t + 1])
    assert newest[0] != newest[1]


def test_a_click_far_from_the_track_is_looked_for_on_the_whole_frame(system):
    track = begun(system, VisualPrompt((0.0, 0.0, 20.0, 20.0)))
    far = Prompt("", 1, "correct", visual=(VisualPrompt(points=((110.0, 80.0, 1),)),))
    seen = track.look(moving(2)[1], far)
    assert seen.masks[0, 60:, 100:].any()  # the window of the track ends at 48, 48


# Several targets


def test_what_is_shown_of_one_target_leaves_the_others_as_they_are_to_the_last_bit(system):
    frames = moving(6)
    other = VisualPrompt((70.0, 50.0, 100.0, 80.0))
    alone, together = begun(system, other), begun(system, other, SHOWN)
    said = Prompt("", 2, "correct", (2,), (CLICKED,))
    for one, both in zip(after(alone, frames[1:]), after(together, frames[1:], [said]), strict=True):
        assert both.ids.tolist() == [1, 2]
        assert bits(one.masks[0]) == bits(both.masks[0])
        assert one.scores[0] == both.scores[0]
    assert bits(known(alone, 1)) == bits(known(together, 1))


def test_targets_are_added_and_dropped_on_any_frame(system):
    frames = moving(8)
    said = [
        Prompt("", 1, "add", visual=(VisualPrompt(mask=square(70, 50)),)),
        Prompt("", 3, "drop", (1,)),
        Prompt("", 4, "add", (1, 9), (CLICKED, SHOWN)),
        Prompt("", 5, "drop"),
    ]
    track = begun(system)
    seen = after(track, frames[1:], said)
    assert [p.ids.tolist() for p in seen] == [[1], [1, 2], [1, 2], [2], [2, 1, 9], [], []]
    assert np.array_equal(seen[1].masks[1], square(70, 50))
    assert seen[6].masks is None or len(seen[6].masks) == 0
    assert sorted(number for number, _ in track.state.memory.targets) == [1, 2, 9]


def test_a_target_that_was_given_up_is_taken_up_with_what_was_known_of_it(system):
    track = begun(system)
    after(track, moving(4)[1:])
    before = bits(known(track))
    track.look(moving(5)[4], Prompt("", 4, "drop"))
    track.look(moving(6)[5])
    assert bits(known(track)) == before
    seen = track.look(moving(7)[6], Prompt("", 6, "resume"))
    assert seen.ids.tolist() == [1]
    assert bits(known(track)) != before


# The same input, the same bits


def test_the_same_frames_twice_give_the_same_bits(system):
    runs = []
    for _ in range(2):
        track = begun(system, SHOWN, CLICKED)
        seen = after(track, moving(8)[1:], [Prompt("", 3, "correct", (2,), (SHOWN,))])
        runs.append((bits(seen), bits(track.state.memory)))
    assert runs[0] == runs[1]


@pytest.mark.parametrize("settings", [SEES, BLIND])
def test_a_saved_state_goes_on_with_the_same_bits(system, tmp_path, settings):
    track = begun(system, SHOWN, MASKED, settings=(*settings, "steady_iou=0.0", "steady_every=2"))
    after(track, moving(6)[1:], [Prompt("", 2, "correct", (1,), (CLICKED,))])
    track.state.save(tmp_path / "state")
    again = Track(track.tracker)
    again.state = TrackState.load(tmp_path / "state", track.tracker.kinds)
    assert bits(again.state.memory) == bits(track.state.memory)
    assert again.state.nbytes == track.state.nbytes
    later = moving(10)[6:]
    assert bits(after(again, later)) == bits(after(track, later))
    assert bits(again.state.memory) == bits(track.state.memory)


def test_an_old_state_is_untouched_by_what_came_after_it(system):
    track = begun(system)
    after(track, moving(4)[1:])
    old, before = track.state, bits(track.state.memory)
    first = after(track, moving(8)[4:])
    assert bits(old.memory) == before
    track.look(moving(9)[8], Prompt("", 8, "correct", visual=(CLICKED,)))
    track.state = old
    assert bits(after(track, moving(8)[4:])) == bits(first)


def test_the_bytes_of_a_state_are_constant_once_the_memory_is_full():
    track = begun(pointed(side=32), settings=(*SEES, "steady=3", "steady_iou=0.0"))
    background, sizes = moving(1)[0], []
    for t in range(200):
        frame = np.roll(background, t, 1)
        sizes.append(track.look(frame).present.any() and track.state.nbytes)
    # Views of 4 x 4 cells: 16 of key, 16 of value, on and off; the first, three steady ones, the last; logits of 8 x 8.
    assert set(sizes[15:]) == {4 * (5 * 34 * 16 + 64)}
    assert max(sizes) == sizes[-1]


def test_beside_what_is_kept_the_network_keeps_its_own_view_and_offers_what_it_left_out(monkeypatch):
    def left_half(logits, last):
        return np.where(np.arange(logits.shape[1]) < logits.shape[1] // 2, logits, np.float32(-10))

    monkeypatch.setattr("trackgpt.perception.nano_memory.without_strays", left_half)
    settings = replace(SETTINGS, presence=0.0, steady_iou=0.0, steady_every=1)
    network, frames = NanoMemory(tiny_propagation(), settings), moving(3)
    (first,) = network.segment(frames[0], [Asked(None, SHOWN)])
    judged = Asked(first.memory, None, lambda hypotheses: np.zeros(len(hypotheses)))
    (alone,), (beside,) = (network.segment(frames[1], [judged._replace(beside=flag)]) for flag in (False, True))
    assert bits(alone.mask) == bits(beside.mask)
    assert (len(alone.hypotheses), len(beside.hypotheses)) == (1, 2)
    own, rival = (one.mask for one in beside.hypotheses)
    assert own.any()
    assert rival.any()
    assert np.nonzero(own)[1].max() < np.nonzero(rival)[1].min() + 2  # a pixel may belong to both halves
    assert (len(alone.memory.steady), len(beside.memory.steady)) == (0, 1)
    kept = network.kept(beside.memory, 0)
    (later,) = network.segment(frames[2], [judged._replace(memory=kept, beside=True)])
    assert len(later.memory.kept) == 1
    assert later.memory.nbytes > beside.memory.nbytes


# Absence


def test_an_absent_target_keeps_its_last_view_and_is_looked_for_further_and_further_away(system):
    track = begun(system, MASKED, settings=BLIND)
    last, windows = bits(known(track).last), []
    for frame in moving(20)[1:]:
        seen = track.look(frame)
        assert seen.present.tolist() == [False]
        assert not seen.masks.any()
        assert np.isnan(seen.boxes).all()
        assert bits(known(track).last) == last
        windows.append(window_of(track))
    sizes = [window.width * window.height for window in windows]
    assert sizes == sorted(sizes)
    assert [window.width for window in windows[:4]] == [53, 58, 64, 70]  # twice 24, and a tenth more on every frame
    assert windows[-1] == SearchWindow(0, 0, WIDTH, HEIGHT)


def test_an_absent_target_is_found_again_and_only_then_remembered_anew(system):
    track = begun(system, settings=BLIND)
    after(track, moving(4)[1:])
    last = bits(known(track).last)
    track.tracker = system.tracker(settings=SEES)
    seen = track.look(moving(5)[4])
    assert seen.present.tolist() == [True]
    assert seen.masks.any()
    assert bits(known(track).last) != last


def test_views_are_added_to_the_steady_ones_only_where_they_are_expected_to_be_good(system):
    for settings, count in (("steady_iou=1.0", 0), ("steady_iou=0.0", 2), ("steady=0", 0)):
        track = begun(system, settings=(*SEES, "steady=2", "steady_iou=0.0", "steady_every=3", settings))
        after(track, moving(12)[1:])
        assert len(known(track).steady) == count


def test_steady_views_lie_as_many_frames_apart_as_the_setting_says_and_the_newest_stay(system):
    track = begun(system, settings=(*SEES, "steady=3", "steady_iou=0.0", "steady_every=4"))
    counts, added = [], []
    for frame in moving(21)[1:]:
        track.look(frame)
        memory = known(track)
        counts.append(len(memory.steady))
        if memory.waited == 0:
            added.append(bits(memory.last))
    assert counts == [0] * 3 + [1] * 4 + [2] * 4 + [3] * 9
    assert [bits(view) for view in memory.steady] == added[2:]


# Settings and ablations


def test_every_part_that_an_ablation_leaves_out_has_no_influence(system):
    """What is remembered is replaced by something else: only an ablation that does not look at it gives the same."""
    frames = moving(5)

    def changed(track, names, value):
        memory = known(track)

        def other(view):
            return replace(view, **{name: getattr(view, name) * value for name in names if name != "logits"})

        logits = memory.logits * value if "logits" in names else memory.logits
        memory = replace(memory, shown=tuple(map(other, memory.shown)), last=other(memory.last), logits=logits)
        return replace(track.state, memory=replace(track.state.memory, targets=((1, memory),)))

    parts = {"no-hint": ("logits",), "no-carried": ("on", "off"), "no-memory": ("value",)}
    for left_out, names in parts.items():
        for ablation in ("full", *parts):
            track = begun(system, MASKED, ablation=ablation)
            state = changed(track, names, 0.25)
            masks = [track.tracker.step(each, frames[1])[1] for each in (track.state, state)]
            assert (bits(masks[0]) == bits(masks[1])) == (ablation == left_out), (ablation, left_out)


def test_without_a_window_the_whole_frame_is_looked_at(system):
    track = begun(system, MASKED, ablation="no-window")
    after(track, moving(3)[1:])
    assert window_of(track) == SearchWindow(0, 0, WIDTH, HEIGHT)


def test_ablations_and_settings_have_names_and_others_are_refused(system):
    for name, (_, values) in ABLATIONS.items():
        made = system.tracker(name, ["zoom=3.0"]).perception.network.settings
        assert made == replace(SETTINGS, **{**values, "zoom": 3.0})
    assert system.network.settings == SETTINGS
    with pytest.raises(UsageError, match="not one of full, no-window, no-hint, no-carried, no-memory"):
        system.tracker("no-arbiter")
    for wrong, said in (
        ("zom=3", "did you mean `zoom`"),
        ("presence=2", "wanted 0.0 to 1.0"),
        ("steady=0.5", "wanted int"),
        ("steady_every=0", "wanted 1 to"),
    ):
        with pytest.raises(UsageError, match=said):
            system.tracker(settings=[wrong])


def test_what_was_never_shown_or_is_shown_by_an_empty_mask_is_refused(system):
    frame = moving(1)[0]
    with pytest.raises(UsageError, match="never shown cannot be looked for"):
        system.network.segment(frame, [Asked(None, None)])
    track = Track(system.tracker())
    with pytest.raises(UsageError, match="empty"):
        track.look(frame, Prompt(visual=(VisualPrompt(mask=np.zeros((HEIGHT, WIDTH), bool)),)))
    assert track.state.targets == ()


def test_a_folder_that_is_loaded_is_folded_and_tracks_as_the_model_it_was_saved_from(system, tmp_path):
    system.network.model.save_pretrained(tmp_path)
    loaded = NanoMemory(NanoMemory.from_pretrained(tmp_path).model, SETTINGS)
    assert all(unit.norm is None for stage in loaded.model.encoder.stages for unit in stage)
    tracks = [begun(each, MASKED) for each in (system, Pointed(loaded, "tiny"))]
    one, other = (track.look(moving(2)[1]) for track in tracks)
    assert np.count_nonzero(one.masks ^ other.masks) <= 2  # pixels
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)
