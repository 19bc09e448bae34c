"""Open-vocabulary detectors as grounders: transformers' numbers, everybody's conventions, and honest refusals."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from open_vocabulary_checkpoints import FAMILIES, as_the_hub_has_owl
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from trackgpt.errors import ModelError, UsageError
from trackgpt.reasoners.open_vocabulary import (
    OpenVocabularyGrounder,
    OpenVocabularySettings,
    hub_name,
    is_open_vocabulary,
    licence_of,
)
from trackgpt.settings import from_dict

DINO = ("grounding-dino", "mm-grounding-dino")
WORDS = "all red dogs on the left"
SHAPES = ((64, 64), (24, 160), (160, 24), (60, 90))  # square, very wide, very tall, like a photo
EVERYTHING = OpenVocabularySettings(overlap=1.0)
CLASSES = {
    "grounding-dino": ("GroundingDinoProcessor", "GroundingDinoImageProcessorPil"),
    "mm-grounding-dino": ("GroundingDinoProcessor", "GroundingDinoImageProcessorPil"),
    "owlv2": ("Owlv2Processor", "Owlv2ImageProcessorPil"),
    "owlvit": ("OwlViTProcessor", "OwlViTImageProcessorPil"),
}
every_family = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Folder and stock model of each family."""
    where = tmp_path_factory.mktemp("hub")
    return {family: (where / family, write(where / family)) for family, write in FAMILIES.items()}


@pytest.fixture(scope="module")
def loaded(checkpoints):
    return {family: OpenVocabularyGrounder.from_pretrained(folder) for family, (folder, _) in checkpoints.items()}


def again(grounder, **changes):
    """The same network under other settings."""
    values = {"settings": grounder.settings, "name": grounder.name, "licence": grounder.licence, **changes}
    return OpenVocabularyGrounder(grounder.model, grounder.processor, grounder.kind, **values)


def picture(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def copied(folder, to, without=(), weights=None):
    """A checkpoint in another folder, without some files, with other weights."""
    to.mkdir()
    for file in folder.iterdir():
        if file.name not in without:
            (to / file.name).write_bytes(file.read_bytes())
    if weights is not None:
        save_file(weights, to / "model.safetensors", metadata={"format": "pt"})
    return to


def code_of(folder):
    with pytest.raises(ModelError) as caught:
        OpenVocabularyGrounder.from_pretrained(folder)
    assert "\n" not in str(caught.value)
    return caught.value.code, caught.value.message


# transformers' own numbers


def stock_inputs(folder, family, image, prompt):
    """What transformers' processor makes of an image and words."""
    processor, images = (getattr(transformers, name) for name in CLASSES[family])
    whole = processor(image_processor=images.from_pretrained(folder), tokenizer=AutoTokenizer.from_pretrained(folder))
    text = prompt if family in DINO else [[prompt]]
    return whole, whole(images=Image.fromarray(image), text=text, return_tensors="pt")


def stock_boxes(whole, model, inputs, family, image):
    """Boxes and scores as transformers' documentation tells people to make them, surest first."""
    with torch.inference_mode():
        output = model(**inputs)
    options = {"threshold": 0.3, "text_threshold": 0.25} if family in DINO else {"threshold": 0.1}
    size = torch.tensor([image.shape[:2]])
    found = whole.post_process_grounded_object_detection(output, target_sizes=size, **options)[0]
    order = found["scores"].argsort(descending=True, stable=True)
    height, width = image.shape[:2]
    inside = torch.minimum(found["boxes"].clamp(min=0), torch.tensor([width, height] * 2))[order]
    seen = (inside[:, 2:] > inside[:, :2]).all(1)
    return inside[seen].numpy(), found["scores"][order][seen].numpy()


@every_family
@pytest.mark.parametrize("shape", SHAPES)
def test_boxes_scores_and_their_order_are_transformers_own(checkpoints, loaded, family, shape):
    folder, stock = checkpoints[family]
    image = picture(shape)
    prompt = f"{WORDS}." if family in DINO else WORDS
    whole, inputs = stock_inputs(folder, family, image, prompt)
    boxes, scores = stock_boxes(whole, stock, inputs, family, image)
    found = again(loaded[family], settings=EVERYTHING).ground(image, WORDS).found
    assert len(found) == len(boxes) >= 2
    assert np.abs(np.array([one.box for one in found]) - boxes).max() <= 1e-4 * max(shape)
    assert np.abs(np.array([one.score for one in found]) - scores).max() <= 1e-5


@every_family
@pytest.mark.parametrize("shape", [*SHAPES, (3, 40), (40, 3)])
def test_the_network_is_given_what_transformers_processor_gives_it(checkpoints, loaded, family, shape):
    image = picture(shape, seed=1)
    prompt = "a dog in white." if family in DINO else "a dog in white"
    _, wanted = stock_inputs(checkpoints[family][0], family, image, prompt)
    given = loaded[family].pixels(image) | loaded[family].tokens(prompt)
    assert given.keys() == wanted.keys()
    for name, value in wanted.items():
        assert torch.equal(given[name], torch.as_tensor(value)), name


@every_family
def test_16_bits_move_boxes_by_less_than_a_hundredth_of_the_frame(checkpoints, loaded, family):
    image, dtype = picture((60, 90)), torch.float16 if family == "owlvit" else torch.bfloat16
    half = OpenVocabularyGrounder.from_pretrained(checkpoints[family][0], dtype=dtype, settings=EVERYTHING)
    found, wanted = (each.ground(image, WORDS).found for each in (half, again(loaded[family], settings=EVERYTHING)))
    boxes, exact = (np.array([one.box for one in each]) for each in (found, wanted))
    nearest = np.abs(boxes[:, None] - exact[None]).max(2).min(1)
    assert len(boxes) >= 4
    assert np.median(nearest) <= 0.01 * 90
    rounded = torch.tensor(boxes / 90, dtype=torch.float32)
    assert not torch.equal(rounded.bfloat16().float(), rounded)  # coordinates themselves have all their bits


# Coordinates


def answers(grounder, boxes, scores):
    """The same grounder with a network that answers boxes, cxcywh in 0..1, with these scores of the first word."""
    return with_network(grounder, lambda **given: output_of(grounder, torch.tensor(boxes), torch.tensor(scores)))


def output_of(grounder, boxes, scores):
    """An output of the family's network: boxes (n, 4) and the scores (n,) of the first word or of the query."""
    logits = torch.full((1, len(boxes), 256 if grounder.kind in DINO else 1), -torch.inf)
    logits[0, :, int(grounder.kind in DINO)] = scores.logit()
    return SimpleNamespace(logits=logits, pred_boxes=boxes.float()[None])


def with_network(grounder, network):
    """The same grounder, the network of which is a function of what it is given."""

    class Network(torch.nn.Module):
        config, device = grounder.model.config, torch.device("cpu")

        def forward(self, **given):
            return network(**given)

    return OpenVocabularyGrounder(
        Network(), grounder.processor, grounder.kind, settings=grounder.settings, shorter=grounder.shorter
    )


def corners(height, width):
    """A box in each corner and one in the middle of a frame."""
    w, h = width // 5, height // 5
    places = [(0, 0), (width - w, 0), (0, height - h), (width - w, height - h), (2 * w, 2 * h)]
    return [(x, y, x + w, y + h) for x, y in places]


@every_family
@pytest.mark.parametrize("shape", SHAPES)
def test_what_the_network_means_by_a_box_is_where_it_is_on_the_frame(loaded, family, shape):
    height, width = shape
    square = family == "owlv2"  # the longer side counts for both: OWLv2 pads below and on the right
    across, down = (max(shape),) * 2 if square else (width, height)
    for box in corners(height, width):
        x1, y1, x2, y2 = box
        told = [(x1 + x2) / 2 / across, (y1 + y2) / 2 / down, (x2 - x1) / across, (y2 - y1) / down]
        found = answers(loaded[family], [told], [0.9]).ground(picture(shape), "dog").found
        assert np.abs(np.array(found[0].box) - box).max() <= 1e-4 * max(shape)


@every_family
@pytest.mark.parametrize("shape", [*SHAPES, (2, 100), (100, 2)])
def test_a_network_that_points_at_what_is_bright_in_its_input_finds_it_on_the_frame(loaded, family, shape):
    def sees(pixel_values, **others):
        rows, columns = (pixel_values[0].mean(0) > 0.5 * float(pixel_values.max())).nonzero().T
        low = torch.stack([columns.min(), rows.min()])
        high = torch.stack([columns.max() + 1, rows.max() + 1])
        side = torch.tensor([pixel_values.shape[3], pixel_values.shape[2]])
        box = torch.cat([(low + high) / 2 / side, (high - low) / side])
        return output_of(grounder, box[None], torch.tensor([0.9]))

    grounder = with_network(loaded[family], sees)
    height, width = shape
    for x1, y1, x2, y2 in corners(max(height, 5), max(width, 5)):
        image = np.zeros((height, width, 3), np.uint8)
        image[y1:y2, x1:x2] = 255
        if image.any():
            found = np.array(grounder.ground(image, "dog").found[0].box)
            bound = 2 + 2 * max(shape) / 64  # a pixel of the network's input on each side
            assert np.abs(found - (x1, y1, min(x2, width), min(y2, height))).max() <= bound


def test_a_box_in_owlv2s_padding_is_none_and_one_across_the_edge_ends_there(loaded):
    told = [(0.5, 0.9, 0.2, 0.1), (0.5, 0.5, 0.2, 0.2), (1.0, 0.1, 0.2, 0.2)]
    found = answers(loaded["owlv2"], told, [0.9, 0.8, 0.7]).ground(picture((50, 100)), "all dogs").found
    assert np.allclose([one.box for one in found], [(40, 40, 60, 50), (90, 0, 100, 20)], atol=1e-3)


# What is meant


THREE = [(0.2, 0.2, 0.2, 0.2), (0.5, 0.5, 0.2, 0.2), (0.8, 0.8, 0.2, 0.2)]


@every_family
def test_one_thing_is_found_unless_the_words_are_plural_and_the_others_are_rivals(loaded, family):
    grounder = answers(loaded[family], [*THREE, (0.2, 0.8, 0.1, 0.1)], [0.5, 0.9, 0.7, 0.02])
    counts = {"the dog": 1, "one dog": 1, "All dogs": 3, "every dog": 3, "each of the dogs": 3, "both dogs": 2}
    counts |= {"two dogs": 2, "the two dogs": 2, "2 dogs": 2, "these three, please": 3, "nine dogs": 3}
    counts |= {"two-wheeled cart": 1, "the second dog": 1, "ones": 1, "0 dogs": 1}
    for words, count in counts.items():
        grounding = grounder.ground(picture((50, 50)), words)
        scores = [round(one.score, 3) for one in (*grounding.found, *grounding.rivals)]
        assert (len(grounding.found), scores) == (count, [0.9, 0.7, 0.5]), words


@every_family
def test_two_boxes_of_one_object_are_one_unless_that_is_switched_off(loaded, family):
    boxes, scores = [*THREE, (0.21, 0.2, 0.2, 0.2)], [0.5, 0.9, 0.7, 0.6]
    image = picture((50, 50))
    assert len(answers(loaded[family], boxes, scores).ground(image, "all dogs").found) == 3
    every = again(loaded[family], settings=EVERYTHING)
    assert len(answers(every, boxes, scores).ground(image, "all dogs").found) == 4


@every_family
def test_nothing_is_found_below_the_threshold(loaded, family):
    threshold = 0.3 if family in DINO else 0.1
    for score, count in ((threshold - 0.01, 0), (threshold + 0.01, 1)):
        found = answers(loaded[family], THREE[:1], [score]).ground(picture((50, 50)), "the dog")
        assert len(found.found) == count
        assert not found.rivals
    assert answers(loaded[family], THREE, [0.01] * 3).ground(picture((9, 9)), "a dog").text.startswith("Nothing")


def asked_of(grounder, words, found_by=lambda prompt: True):
    """The prompts that the network is given for words, and the grounding, where it finds something for some."""
    prompts = []

    def network(input_ids, **others):
        prompts.append(grounder.processor.tokenizer.decode(input_ids[0], skip_special_tokens=True).strip())
        return output_of(grounder, torch.full((1, 4), 0.5), torch.tensor([0.9 if found_by(prompts[-1]) else 0.01]))

    return prompts, with_network(grounder, network).ground(picture((20, 20)), words)


@pytest.mark.parametrize("family", DINO)
def test_dino_reads_one_phrase_in_lower_case_that_ends_with_a_dot(loaded, family):
    wanted = {
        "The Red Dog": "the red dog.",
        " the red dog. ": "the red dog.",
        "the red dog?": "the red dog.",
        "the red dog. on the left...": "the red dog, on the left.",
    }
    for words, prompt in wanted.items():
        assert asked_of(loaded[family], words)[0] == [prompt]


@every_family
def test_words_that_say_nothing_find_nothing_and_the_network_is_not_asked(loaded, family):
    for words in ("", "  ", "...", "?!"):
        prompts, grounding = asked_of(loaded[family], words)
        assert prompts == []
        assert grounding.found == ()


@every_family
def test_words_beyond_what_the_network_reads_are_said_and_the_others_are_read(loaded, family):
    most = 256 - 3 if family in DINO else 16 - 2  # tokens but for both ends, and DINO's dot
    words = [f"{'dog' if n % 2 else 'red'}" for n in range(most + 5)]
    words[most:] = ["In", "the", "Man", "the", "white"]
    prompts, grounding = asked_of(loaded[family], " ".join(words))
    assert prompts == [" ".join(words[:most]) + ("." if family in DINO else "")]
    assert grounding.unjudged == ("In the Man the white",)
    assert asked_of(loaded[family], " ".join(words[:most]))[1].unjudged == ()
    assert loaded[family].ground(picture((20, 20)), " ".join(words)).unjudged == ("In the Man the white",)


def test_a_word_longer_than_owl_reads_is_not_cut(loaded):
    prompts, grounding = asked_of(loaded["owlv2"], "x" * 50)
    assert (prompts, grounding.unjudged, grounding.found) == ([], ("x" * 50,), ())


@every_family
def test_shorter_words_are_tried_where_the_persons_own_find_nothing(loaded, family):
    tried = again(loaded[family], shorter=lambda words: ["man in red", "man", "dog"])
    end = "." if family in DINO else ""
    words = "the Man in red, on the car"
    prompts, grounding = asked_of(tried, words, lambda prompt: prompt == f"man{end}")
    assert prompts[1:] == [f"man in red{end}", f"man{end}"]
    assert len(grounding.found) == 1
    assert grounding.unjudged == ("the", "in red, on the car")
    assert len(asked_of(tried, words)[0]) == 1
    prompts, grounding = asked_of(tried, words, lambda prompt: False)
    assert (len(prompts), grounding.found, grounding.unjudged) == (4, (), ())


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (3, 120)])
@every_family
def test_a_frame_of_any_shape_is_looked_at(loaded, family, shape):
    grounding = loaded[family].ground(picture(shape), WORDS)
    for one in grounding.found:
        x1, y1, x2, y2 = one.box
        assert 0 <= x1 < x2 <= shape[1]
        assert 0 <= y1 < y2 <= shape[0]


@every_family
def test_numbers_that_are_none_are_refused_and_not_taken_for_nothing_found(loaded, family):
    broken = answers(loaded[family], [(float("nan"),) * 4], [0.9])
    with pytest.raises(ModelError, match="gives no numbers in float32") as caught:
        broken.ground(picture((20, 20)), "dog")
    assert caught.value.code == "MD06"


def test_settings_are_read_strictly():
    assert from_dict(OpenVocabularySettings, {"owlv2": 0.2}) == OpenVocabularySettings(owlv2=0.2)
    for values in ({"owl": 0.2}, {"text": 1.5}, {"overlap": "much"}):
        with pytest.raises(UsageError):
            from_dict(OpenVocabularySettings, values)
    names = {name.replace("-", "_") for name in FAMILIES}
    assert names < {field.name for field in dataclasses.fields(OpenVocabularySettings)}


# Folders


@every_family
def test_a_folder_is_known_by_its_configuration(checkpoints, loaded, family):
    assert is_open_vocabulary(checkpoints[family][0])
    assert not loaded[family].reads_motion


@pytest.mark.parametrize(
    ("kind", "ours", "said"),
    [
        ("detr", False, "takes words"),
        ("sam3_video", False, "takes words"),
        ("omdet-turbo", True, "torchvision and timm"),
    ],
)
def test_other_models_are_refused_with_what_to_use_instead(tmp_path, kind, ours, said):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    assert is_open_vocabulary(tmp_path) == ours
    code, message = code_of(tmp_path)
    assert code == "MD06"
    assert said in message
    assert "grounding-dino-tiny" in message


def test_a_folder_without_configuration_is_none(tmp_path):
    assert not is_open_vocabulary(tmp_path)
    assert code_of(tmp_path)[0] == "MD01"


@pytest.mark.parametrize("family", ["grounding-dino", "owlv2"])
def test_a_weight_that_is_missing_unknown_or_no_number_is_refused_by_name(checkpoints, tmp_path, family):
    folder = checkpoints[family][0]
    weights = load_file(folder / "model.safetensors")
    text = next(name for name in sorted(weights) if "text" in name and name.endswith("weight"))
    for number, (change, code) in enumerate(
        [
            ({name: value for name, value in weights.items() if name != text}, "MD02"),
            (weights | {"text_model.made_up.weight": torch.ones(2)}, "MD02"),
            (weights | {text: weights[text] * torch.nan}, "MD02"),
        ]
    ):
        found, message = code_of(copied(folder, tmp_path / str(number), weights=change))
        assert found == code
        assert text in message or "made_up" in message


@pytest.mark.parametrize("family", ["grounding-dino", "owlvit"])
def test_what_older_transformers_wrote_loads_with_the_same_numbers(checkpoints, loaded, tmp_path, family):
    folder = checkpoints[family][0]
    weights = load_file(folder / "model.safetensors")
    if family == "grounding-dino":
        swin = "model.backbone.conv_encoder.model.encoder.layers.0.blocks.0.attention.self.relative_position_index"
        weights |= {swin: torch.zeros(4, 4, dtype=torch.int64)}
    else:
        weights |= {"owlvit.text_model.embeddings.position_ids": torch.arange(16)[None]}
    old = copied(folder, tmp_path / "old", weights=weights)
    described = json.loads((old / "config.json").read_text())
    described |= {"torch_dtype": "float32", "backbone": None, "backbone_kwargs": None, "use_timm_backbone": False}
    described |= {"use_pretrained_backbone": False} if family in DINO else {"text_config_dict": None}
    (old / "config.json").write_text(json.dumps({key: value for key, value in described.items() if key != "dtype"}))
    if family == "owlvit":
        as_the_hub_has_owl(old)
    image = picture((60, 90))
    found, wanted = (
        each.ground(image, WORDS) for each in (OpenVocabularyGrounder.from_pretrained(old), loaded[family])
    )
    assert found == wanted


@pytest.mark.parametrize(
    ("family", "lost", "said"),
    [
        ("grounding-dino", "tokenizer.json", "tokenizer.json, or vocab.txt"),
        ("owlv2", "tokenizer.json", "tokenizer.json, or vocab.json and merges.txt"),
        ("owlv2", "preprocessor_config.json", "preprocessor_config.json"),
        ("owlv2", "model.safetensors", "model.safetensors"),
    ],
)
def test_a_file_that_is_not_there_is_named(checkpoints, tmp_path, family, lost, said):
    code, message = code_of(copied(checkpoints[family][0], tmp_path / "part", without=(lost,)))
    assert code == "MD01"
    assert said in message


@pytest.mark.parametrize(
    ("file", "text", "code"),
    [
        ("tokenizer.json", "{}", "MD02"),
        ("tokenizer.json", "version https://git-lfs.github.com/spec/v1\n", "MD01"),
        ("preprocessor_config.json", "[", "MD02"),
        ("config.json", '{"model_type": "owlv2", "text_config": 3}', "MD02"),
        ("config.json", "{", "MD02"),
    ],
)
def test_a_damaged_file_is_one_line(checkpoints, tmp_path, file, text, code):
    folder = copied(checkpoints["owlv2"][0], tmp_path / "damaged")
    (folder / file).write_text(text)
    assert code_of(folder)[0] == code


def test_a_tokenizer_with_more_words_than_the_network_is_refused(checkpoints, tmp_path):
    folder = copied(checkpoints["owlv2"][0], tmp_path / "other")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["zebra"])
    tokenizer.save_pretrained(folder)
    code, message = code_of(folder)
    assert code == "MD02"
    assert "tokenizer" in message


def test_the_licence_is_that_of_the_card_or_of_the_hubs_known_names(tmp_path):
    for card, licence in (
        ("", ""),
        ("---\nlicense: apache-2.0\n---\nlicense: mit\n", "apache-2.0"),
        ("---\ntags:\n- x\nlicense: other\nlicense_name: 'my-licence'\n---\n", "my-licence"),
        ("# license: mit\n", ""),
    ):
        (tmp_path / "README.md").write_text(card)
        assert licence_of(tmp_path) == licence
    for place in ("models--google--owlv2-base-patch16-ensemble/snapshots/a1", "google/owlv2-base-patch16-ensemble"):
        assert hub_name(tmp_path / place) == "google/owlv2-base-patch16-ensemble"
        assert licence_of(tmp_path / place) == "apache-2.0"
    assert hub_name(tmp_path / "mine") == "mine"
    assert licence_of(tmp_path / "models--me--mine" / "snapshots" / "a1") == ""


def test_a_grounder_says_which_model_it_is_and_under_which_licence(loaded, checkpoints):
    assert (loaded["owlvit"].name, loaded["owlvit"].licence) == (checkpoints["owlvit"][0].name, "")
