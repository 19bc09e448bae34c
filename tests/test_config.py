"""One schema: strict keys and types, overrides, and a round trip through JSON."""

import dataclasses
import json
from pathlib import Path

import pytest

from trackgpt.config import BrainConfig, RethinkConfig, TrackGPTConfig
from trackgpt.errors import UsageError
from trackgpt.settings import from_dict, read, to_dict, write_json
from train.config import TrainConfig

CONFIGS = Path(__file__).parents[1] / "configs"


def written(folder, text):
    path = folder / "settings.yaml"
    path.write_text(text)
    return path


def test_the_defaults_are_those_of_the_paper_where_it_states_any():
    config = read(TrackGPTConfig, None)
    assert config == TrackGPTConfig()
    assert (config.rethink.enabled, config.rethink.ratio) == (True, 0.5)
    assert (config.rethink.floor, config.rethink.cooldown, config.rethink.budget) == (0.0, 0, 1.0)
    assert (config.brain.read_at, config.brain.fit) == ("predict", "pad")
    assert (config.brain.lora.rank, config.brain.lora.alpha, config.brain.lora.dropout) == (8, 16, 0.05)
    assert (config.perception.image_side, config.perception.decoder.adapter_depth) == (1024, 3)


def test_a_file_changes_what_it_names_and_nothing_else(tmp_path):
    config = read(TrackGPTConfig, written(tmp_path, "rethink: {floor: 0.2}\nbrain: {lora: {rank: 4}}\n"))
    assert config.rethink == RethinkConfig(floor=0.2)
    assert dataclasses.replace(config.brain, lora=BrainConfig().lora) == BrainConfig()
    assert config.brain.lora.rank == 4


def test_dotted_overrides_win_over_the_file(tmp_path):
    path = written(tmp_path, "brain: {read_at: predict}\nrethink: {cooldown: 2}\n")
    overrides = ["brain.read_at=token", "perception.encoder.channels=[1,2,3,4]", "min_area=1e-3", "rethink.rebase=true"]
    config = read(TrackGPTConfig, path, overrides)
    assert (config.brain.read_at, config.rethink.cooldown) == ("token", 2)
    assert config.perception.encoder.channels == [1, 2, 3, 4]
    assert (config.min_area, config.rethink.rebase) == (0.001, True)


def test_a_whole_number_is_good_enough_for_a_fraction(tmp_path):
    ratio = read(TrackGPTConfig, None, ["rethink.ratio=1"]).rethink.ratio
    assert (ratio, type(ratio)) == (1.0, float)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rethink: {flooor: 0.2}", r"settings.yaml.rethink: no setting `flooor`; did you mean `floor`\?"),
        ("brain: {lora: {rnk: 2}}", r"settings.yaml.brain.lora: no setting `rnk`; did you mean `rank`\?"),
        ("xyzzy: 1", "no setting `xyzzy`; it has name, brain, perception, score, rethink, mask_threshold, min_area"),
        ("3: 4", "no setting `3`"),
        ("rethink: {cooldown: often}", r"settings.yaml.rethink.cooldown: wanted int, found str \('often'\)"),
        ("rethink: {cooldown: 1.5}", r"rethink.cooldown: wanted int, found float \(1.5\)"),
        ("rethink: {enabled: 1}", r"rethink.enabled: wanted bool, found int \(1\)"),
        ("rethink: {ratio: true}", r"rethink.ratio: wanted float, found bool \(True\)"),
        ("name: null", r"settings.yaml.name: wanted str, found NoneType \(None\)"),
        ("brain: 3", r"settings.yaml.brain: wanted a mapping of settings, found int \(3\)"),
        ("brain:", r"settings.yaml.brain: wanted a mapping of settings, found NoneType \(None\)"),
        ("perception: {encoder: {channels: 8}}", r"encoder.channels: wanted list, found int \(8\)"),
        ("perception: {encoder: {channels: [8, a]}}", r"encoder.channels\[1\]: wanted int, found str \('a'\)"),
        ("brain: {read_at: tokn}", "settings.yaml.brain.read_at: `tokn` is none of predict, token"),
        ("brain: {answer: free}", "brain.answer: `free` is none of generated, forced"),
        ("perception: {encoder: {kind: vit}}", "encoder.kind: `vit` is none of sam_vit, sam2, conv"),
        ("- 1\n- 2\n", "settings.yaml: wanted a mapping of settings, found a list"),
        ("brain: [1", "settings.yaml: cannot be read as YAML: while parsing a flow sequence"),
        ("a: 1\na: 2\n", "settings.yaml: cannot be read as YAML: .*duplicate key a"),
    ],
)
def test_what_does_not_fit_is_named_with_its_place(tmp_path, text, said):
    with pytest.raises(UsageError, match=said) as caught:
        read(TrackGPTConfig, written(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_overrides_are_as_strict_as_files():
    with pytest.raises(UsageError, match=r"config.brain: no setting `readat`; did you mean `read_at`\?"):
        read(TrackGPTConfig, None, ["brain.readat=token"])
    with pytest.raises(UsageError, match="^min_area: wanted SETTING=VALUE"):
        read(TrackGPTConfig, None, ["min_area"])


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UsageError, match="nowhere.yaml: no such configuration file"):
        read(TrackGPTConfig, tmp_path / "nowhere.yaml")
    with pytest.raises(UsageError, match="cannot be read"):
        read(TrackGPTConfig, tmp_path)


def test_an_empty_file_is_the_defaults(tmp_path):
    assert read(TrackGPTConfig, written(tmp_path, "")) == TrackGPTConfig()


def test_json_and_back_is_the_same_configuration(tmp_path):
    overrides = ["name=odd", "brain.llava.text_config.hidden_size=48", "brain.lora.dropout=0.1", "rethink.floor=0.25"]
    config = read(TrackGPTConfig, None, overrides)
    path = tmp_path / "config.json"
    write_json(config, path)
    assert from_dict(TrackGPTConfig, json.loads(path.read_text())) == config
    assert read(TrackGPTConfig, path) == config
    assert to_dict(config)["brain"]["llava"] == {"text_config": {"hidden_size": 48}}
    assert path.read_text().endswith("}\n")


def test_defaults_are_not_shared_between_configurations():
    one, other = TrackGPTConfig(), TrackGPTConfig()
    one.perception.encoder.channels.append(7)
    one.rethink.floor = 0.5
    assert other == TrackGPTConfig()
    assert TrackGPTConfig().rethink.floor == 0.0


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_configuration_of_the_repository_fits_its_schema(path):
    config = read(TrainConfig, path)
    assert config.plan.steps > 0
    assert f"-m train {path.relative_to(CONFIGS.parent)}" in path.read_text()


def test_a_mapping_of_named_settings_is_read_with_the_same_care(tmp_path):
    @dataclasses.dataclass
    class Share:
        weight: float = 1.0

    @dataclasses.dataclass
    class Mixture:
        kinds: dict[str, Share] = dataclasses.field(default_factory=dict, metadata={"of": Share})

    file = tmp_path / "mixture.yaml"
    file.write_text("kinds: {images: {weight: 9}, talk: {}}")
    assert read(Mixture, file).kinds == {"images": Share(9.0), "talk": Share(1.0)}
    assert read(Mixture, file, ["kinds.talk.weight=3"]).kinds["talk"] == Share(3.0)
    file.write_text("kinds: {images: {weights: 9}}")
    with pytest.raises(UsageError, match="kinds.images: no setting `weights`; did you mean `weight`"):
        read(Mixture, file)
    file.write_text("kinds: {images: 9}")
    with pytest.raises(UsageError, match="kinds.images: wanted a mapping"):
        read(Mixture, file)
