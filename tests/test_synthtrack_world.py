"""SynthTrack's scenes and pixels: the same number gives the same video, and the id map tells the truth about it."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFont

from data_tools.atlas import build_atlas, fit_cell, without_specks
from trackgpt.errors import InputError, UsageError
from trackgpt.synthtrack import sprites
from trackgpt.synthtrack.catalog import CATEGORIES, COLOURS, HELD_OUT_PAIRS
from trackgpt.synthtrack.render import boxes_of, render, render_clip, visible_fractions
from trackgpt.synthtrack.scene import Actor, Scene
from trackgpt.synthtrack.sprites import sprite
from trackgpt.synthtrack.world import RACE_MARGIN, TEXTURES, leader, make_scene, see

ASSETS = Path(sprites.__file__).parents[1] / "assets" / "synthtrack"


def an_actor(label: int, category: str, depth: float = 1.0, place: tuple[float, float] = (0.5, 0.5), **other) -> Actor:
    one = Actor(
        id=label,
        category=category,
        colour="red",
        size="large",
        depth=depth,
        centre=np.array([place], np.float32),
        extent=np.array([0.4], np.float32),
        angle=np.zeros(1, np.float32),
        flip=False,
        visible=np.ones(1, bool),
        motion="still",
    )
    return replace(one, **other)


def a_scene(*actors: Actor, **other) -> Scene:
    frames = len(actors[0].visible)
    camera = np.tile(np.array([0.0, 0.0, 1.0, 0.0], np.float32), (frames, 1))
    calm = {"noise": 0.0, "blur": 0.0, "jpeg": 0.0, "contrast": 1.0, "shadow": 0.0, "jitter": 0.0}
    ground = {"texture": "wall", "seed": 1, "light": 1.0, "blobs": 0, "strips": 0, "finish": ""}
    scene = Scene(0, "train", frames, 12.0, (1, 1), "free", "easy", actors, ground, camera, calm)
    return replace(scene, **other)


def to_lab(rgb: np.ndarray) -> np.ndarray:
    return cv2.cvtColor((rgb / 255.0).astype(np.float32)[None], cv2.COLOR_RGB2LAB)[0]


def test_the_same_seed_gives_the_same_bytes_twice() -> None:
    first, second = (render_clip(make_scene(7, frames=5, difficulty="hard"), 96, 128) for _ in range(2))
    assert first.frames.tobytes() == second.frames.tobytes()
    assert first.ids.tobytes() == second.ids.tobytes()
    assert first.frames.shape == (5, 96, 128, 3)


def test_another_seed_or_the_other_split_gives_another_scene() -> None:
    frames = [
        render(make_scene(seed, split), 0, 48, 64)[0].tobytes()
        for seed, split in ((7, "train"), (8, "train"), (7, "test"))
    ]
    assert len(set(frames)) == 3


def test_the_id_map_names_only_actors_of_the_scene_and_two_renders_agree() -> None:
    for seed in range(40):
        scene = make_scene(seed)
        ids = render(scene, 11, 64, 80)[1]
        assert ids.max() <= len(scene.actors)
        assert [actor.id for actor in scene.actors] == list(range(1, len(scene.actors) + 1))
        np.testing.assert_array_equal(ids, render(scene, 11, 64, 80)[1])


@pytest.mark.parametrize("category", ["dog", "bicycle", "star", "ring"])
@pytest.mark.parametrize(("angle", "flip"), [(0.0, False), (31.0, True)])
def test_an_actor_alone_covers_the_area_of_its_own_silhouette(category: str, angle: float, flip: bool) -> None:
    actor = an_actor(1, category, angle=np.array([angle], np.float32), flip=flip)
    _, ids = render(a_scene(actor), 0, 400, 400)
    side = 0.4 * 400
    wanted = np.count_nonzero(sprite(category, "red")[..., 3] > 127) * (side / 96) ** 2
    assert np.count_nonzero(ids == 1) == pytest.approx(wanted, rel=0.02)
    assert visible_fractions(a_scene(actor), 0, 400, 400, ids) == {1: 1.0}


def test_a_square_without_rotation_lands_on_the_pixels_it_should() -> None:
    _, ids = render(a_scene(an_actor(1, "square", place=(0.5, 0.25))), 0, 192, 192)
    x1, y1, x2, y2 = boxes_of(ids)[1]
    inset = 0.4 * 192 * np.count_nonzero(sprite("square", "red")[48, :, 3] < 128) / 96 / 2
    wanted = np.array([96 - 38.4 + inset, 48 - 38.4 + inset, 96 + 38.4 - inset, 48 + 38.4 - inset])
    np.testing.assert_allclose((x1, y1, x2, y2), wanted, atol=1.0)


def test_a_positive_angle_turns_counter_clockwise_and_a_flip_mirrors() -> None:
    def columns_and_rows(angle: float, flip: bool) -> tuple[np.ndarray, np.ndarray]:
        arrow = an_actor(1, "arrow", angle=np.array([angle], np.float32), flip=flip)
        mask = render(a_scene(arrow), 0, 200, 200)[1] > 0
        return mask.sum(axis=0), mask.sum(axis=1)

    near, far = 65, 135  # five pixels inside the ends of an arrow 80 long in the middle of 200
    across, _ = columns_and_rows(0.0, False)
    assert across[near] < 0.8 * across[far]  # the thin tip is left, the thick end of the shaft right
    across, _ = columns_and_rows(0.0, True)
    assert across[far] < 0.8 * across[near]
    _, down = columns_and_rows(90.0, False)
    assert down[far] < 0.8 * down[near]  # counter-clockwise, left turns to below


def test_the_nearer_of_two_overlapping_actors_hides_the_other() -> None:
    for near, far in ((1, 2), (2, 1)):
        pair = [an_actor(near, "circle", depth=5.0), an_actor(far, "square", depth=2.0)]
        scene = a_scene(*sorted(pair, key=lambda one: one.id))
        _, ids = render(scene, 0, 120, 120)
        assert ids[60, 60] == near
        seen = visible_fractions(scene, 0, 120, 120, ids)
        assert seen[near] == 1.0
        assert 0.0 < seen[far] < 0.5
        assert ids[40, 40] == far  # a corner of the square looks out from behind the circle


def test_half_an_actor_beyond_the_edge_is_half_visible() -> None:
    scene = a_scene(an_actor(1, "circle", place=(0.0, 0.5)))
    _, ids = render(scene, 0, 200, 200)
    assert visible_fractions(scene, 0, 200, 200, ids)[1] == pytest.approx(0.5, abs=0.02)


def test_an_actor_that_is_not_visible_has_no_pixel_and_no_share() -> None:
    left = [
        (scene, actor, t)
        for scene in (make_scene(seed, difficulty="hard") for seed in range(40))
        for actor in scene.actors
        for t in np.flatnonzero(~actor.visible)[:1]
    ]
    assert len(left) >= 5
    for scene, actor, t in left:
        _, ids = render(scene, t, 64, 64)
        assert not (ids == actor.id).any()
        assert visible_fractions(scene, t, 64, 64, ids)[actor.id] == 0.0
        assert (t, "leaves", actor.id) in scene.events


def test_an_actor_that_comes_back_is_seen_again() -> None:
    scenes = [make_scene(seed, difficulty="hard", frames=48) for seed in range(30)]
    returns = [(scene, label) for scene in scenes for _, what, label in scene.events if what == "returns"]
    assert len(returns) >= 3
    for scene, label in returns:
        actor = scene.actors[label - 1]
        assert actor.visible[-1]
        assert (actor.centre[-1] > 0).all()
        assert (actor.centre[-1] < 1).all()


def test_training_never_shows_a_held_out_pair_and_testing_often_does() -> None:
    train = [(a.category, a.colour) for seed in range(300) for a in make_scene(seed, "train").actors]
    test = [(a.category, a.colour) for seed in range(100) for a in make_scene(seed, "test").actors]
    assert not HELD_OUT_PAIRS & set(train)
    assert 0.15 < np.mean([pair in HELD_OUT_PAIRS for pair in test]) < 0.35


def test_the_runner_ahead_at_the_start_is_ahead_at_the_end() -> None:
    for seed in range(60):
        scene = make_scene(seed, kind="race")
        finish = scene.background["finish"]
        axis = 0 if finish in ("right", "left") else 1
        sign = 1.0 if finish in ("right", "down") else -1.0
        along = np.sort(sign * np.stack([actor.centre[:, axis] for actor in scene.actors]), axis=0)
        assert (along[-1] - along[-2]).min() >= RACE_MARGIN - 1e-3
        first = max(scene.actors, key=lambda one: sign * one.centre[0, axis]).id
        assert {leader(scene, t) for t in range(scene.frames)} == {first}


def test_a_race_has_a_checkered_line_where_it_says() -> None:
    scene = make_scene(3, kind="race", difficulty="easy")
    runner = replace(scene.actors[0], visible=np.zeros(24, bool))
    empty = replace(scene, actors=(runner,), effects=a_scene(runner).effects)
    for finish, line in (("right", 0.94), ("up", 0.06)):
        picture = render(replace(empty, background={**scene.background, "finish": finish, "line": line}), 0, 200, 200)[
            0
        ]
        strip = picture[:, 189:193] if finish == "right" else picture[13:17].transpose(1, 0, 2)
        grey = strip.mean(axis=(1, 2))
        assert 0.3 < np.mean(grey > 150) < 0.7
        assert 0.3 < np.mean(grey < 60) < 0.7
    assert leader(make_scene(3, kind="free"), 0) is None


def test_two_resolutions_agree_on_the_boxes() -> None:
    for seed in range(25):
        scene = make_scene(seed)
        small, large = (boxes_of(render(scene, 9, side, side)[1]) for side in (128, 256))
        for label in set(small) & set(large):
            x1, y1, x2, y2 = large[label]
            if (x2 - x1) * (y2 - y1) > 200:  # slivers behind others may end anywhere
                np.testing.assert_allclose(small[label], np.array(large[label]) / 2, atol=2.0)


def test_a_box_has_edges_so_that_one_pixel_is_one_wide() -> None:
    ids = np.zeros((6, 8), np.uint8)
    ids[0, 0] = 3
    ids[2:5, 4:8] = 1
    assert boxes_of(ids) == {1: (4.0, 2.0, 8.0, 5.0), 3: (0.0, 0.0, 1.0, 1.0)}
    assert boxes_of(np.zeros((4, 4), np.uint8)) == {}


def test_the_camera_moves_background_and_actors_alike() -> None:
    camera = np.array([[0.0, 0.0, 1.0, 0.0], [0.1, -0.05, 1.0, 0.0]], np.float32)
    place = see(np.full((2, 2), 0.5), camera, (1, 1))
    np.testing.assert_allclose(place, [[0.5, 0.5], [0.4, 0.55]], atol=1e-6)
    two = an_actor(1, "circle", visible=np.zeros(2, bool), centre=place, extent=np.ones(2), angle=np.zeros(2))
    scene = a_scene(two, camera=camera)
    still, moved = (render(scene, t, 100, 100)[0].astype(int) for t in (0, 1))
    assert np.abs(moved[5:, :90] - still[:95, 10:]).mean() < 2.0


def test_a_zoom_and_a_roll_carry_a_point_where_the_picture_goes() -> None:
    camera = np.array([[0.0, 0.0, 2.0, 90.0]])
    np.testing.assert_allclose(see(np.array([[0.6, 0.5]]), camera, (1, 1)), [[0.5, 0.3]], atol=1e-9)
    np.testing.assert_allclose(see(np.array([[0.6, 0.5]]), camera, (2, 1)), [[0.5, 0.1]], atol=1e-9)


@pytest.mark.parametrize("texture", TEXTURES)
def test_every_background_is_textured_and_none_is_blank(texture: str) -> None:
    hidden = an_actor(1, "circle", visible=np.zeros(1, bool))
    scene = a_scene(hidden)
    ground = {**scene.background, "texture": texture, "blobs": 4, "strips": 2}
    frame, ids = render(replace(scene, background=ground), 0, 96, 128)
    assert frame.std() > 3.0
    assert not ids.any()


@pytest.mark.parametrize("frames", [1, 2, 7, 150])
def test_scenes_of_any_length_are_made_and_stay_finite(frames: int) -> None:
    for kind in ("free", "race"):
        scene = make_scene(11, frames=frames, difficulty="hard", kind=kind, aspect=(16, 9))
        for actor in scene.actors:
            assert actor.centre.shape == (frames, 2)
            assert actor.centre.dtype == actor.extent.dtype == actor.angle.dtype == np.float32
            assert np.isfinite(actor.centre).all()
            assert (actor.extent > 0.1).all()
        assert render(scene, frames - 1, 90, 160)[0].shape == (90, 160, 3)


def test_actors_stand_apart_at_first_and_move_no_faster_than_a_person_can_follow() -> None:
    fastest = {"easy": 0.06, "medium": 0.075, "hard": 0.13}
    for seed in range(60):
        scene = make_scene(seed)
        ids = render(scene, 0, 96, 96)[1]
        assert set(boxes_of(ids)) == {actor.id for actor in scene.actors}
        assert 2 <= len(scene.actors) <= 8
        for actor in scene.actors:
            steps = np.linalg.norm(np.diff(actor.centre, axis=0), axis=1)
            assert steps.max(initial=0.0) < fastest[scene.difficulty]


@pytest.mark.parametrize("colour", list(COLOURS))
def test_a_tinted_sprite_is_nearest_to_its_own_colour(colour: str) -> None:
    wanted = to_lab(np.array(list(COLOURS.values())))
    for category in CATEGORIES:
        picture = sprite(category.name, colour)
        body = to_lab(np.median(picture[picture[..., 3] > 200][:, :3], axis=0, keepdims=True))
        nearest = list(COLOURS)[int(np.argmin(np.linalg.norm(wanted - body, axis=1)))]
        assert nearest == colour, f"{category.name} in {colour} looks {nearest}"


def test_every_category_has_a_picture_in_its_natural_colours() -> None:
    silhouettes = {sprite(category.name, "natural")[..., 3].tobytes() for category in CATEGORIES}
    assert len(silhouettes) == len(CATEGORIES) == 64
    assert all(sprite(category.name, "natural").shape == (96, 96, 4) for category in CATEGORIES)


def test_unknown_words_are_refused_with_what_is_known() -> None:
    with pytest.raises(UsageError, match="catalog"):
        sprite("unicorn", "red")
    with pytest.raises(UsageError, match="purple"):
        sprite("dog", "mauve")
    with pytest.raises(UsageError, match="train, test"):
        make_scene(1, split="val")
    with pytest.raises(UsageError, match="0 or more"):
        make_scene(-1)
    with pytest.raises(UsageError, match="at least 1"):
        make_scene(1, frames=0)


def test_the_atlas_holds_every_glyph_and_its_licence_lies_beside_it() -> None:
    index = json.loads((ASSETS / "atlas.json").read_text(encoding="utf-8"))
    assert index["names"] == [category.name for category in CATEGORIES if category.glyph]
    assert (ASSETS / "atlas.png").stat().st_size < 1_500_000
    licence = (ASSETS / "LICENSE-NotoColorEmoji.txt").read_text(encoding="utf-8")
    assert "SIL OPEN FONT LICENSE Version 1.1" in licence
    assert "Google Inc." in licence


def test_a_picture_fills_its_cell_with_proportions_kept() -> None:
    cell = np.asarray(fit_cell(Image.new("RGBA", (100, 50), (200, 10, 10, 255))))
    rows, columns = np.nonzero(cell[..., 3])
    assert cell.shape == (96, 96, 4)
    assert np.ptp(columns) + 1 == 94
    assert np.ptp(rows) + 1 == 47


def test_loose_specks_are_cleared_and_the_picture_trimmed_to_the_rest() -> None:
    pixels = np.zeros((60, 60, 4), np.uint8)
    pixels[20:40, 10:50] = (90, 90, 200, 255)
    pixels[2:4, 2:4] = (255, 255, 255, 255)  # 4 of 804 pixels
    assert without_specks(Image.fromarray(pixels)).size == (40, 20)
    pixels[2:8, 2:8] = (255, 255, 255, 255)  # 36 of 836: a part of the thing
    assert without_specks(Image.fromarray(pixels)).size == (48, 38)


def test_the_atlas_is_not_built_from_what_is_no_font(tmp_path: Path) -> None:
    bad = tmp_path / "font.ttf"
    bad.write_bytes(b"not a font")
    with pytest.raises(InputError, match="fonts-noto-color-emoji"):
        build_atlas(bad, tmp_path / "out")


def test_the_atlas_is_rebuilt_as_it_is_where_the_font_is_installed(tmp_path: Path) -> None:
    try:
        font = ImageFont.truetype("NotoColorEmoji.ttf", 109)
    except OSError:
        pytest.skip("the font NotoColorEmoji is not installed")
    path = build_atlas(font.path, tmp_path)
    assert (tmp_path / "atlas.json").read_bytes() == (ASSETS / "atlas.json").read_bytes()
    with Image.open(path) as built, Image.open(ASSETS / "atlas.png") as shipped:
        assert built.size == shipped.size
