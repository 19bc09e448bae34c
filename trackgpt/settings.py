"""Settings as files: dataclasses read strictly from YAML or JSON (unknown keys refused, dotted overrides), written as
JSON; and the one way in which the package reads JSON, whose files may come from anybody.
"""

from __future__ import annotations

import dataclasses
import difflib
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from trackgpt.errors import InputError, ModelError, UsageError

T = TypeVar("T")

DEEPEST = 64
"""Levels of lists and mappings in a file; code that walks through them may recurse."""
LARGEST = 2**63
"""Integers in a file lie between -LARGEST and LARGEST - 1, as those of 64 bits do."""
_DIGITS = 20  # of an integer of 64 bits, with its sign
_NESTED = frozenset((dict, list))
_MOST_SETTINGS = 1 << 20  # characters of a file of settings


def to_dict(config: Any) -> dict[str, Any]:
    """The configuration as plain dictionaries, lists and numbers, ready for JSON."""
    return dataclasses.asdict(config)


def from_dict(schema: type[T], values: dict[str, Any], where: str = "config") -> T:
    """Build `schema` from nested dictionaries.

    Metadata of its fields bound their values: "choices"; "range", the least and the greatest number; both hold for
    every entry of a list or mapping. "of" is the schema of a mapping's values.

    Raises:
        UsageError: a key the schema does not have (the nearest name is offered), a value of the wrong type, or one that
            is out of bounds.
    """
    fields = {f.name: f for f in dataclasses.fields(schema)}  # type: ignore[arg-type]
    default = schema()
    made: dict[str, Any] = {}
    for key, value in values.items():
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1)
            hint = f"; did you mean `{near[0]}`?" if near else f"; it has {', '.join(fields)}"
            raise UsageError(f"{where}: no setting `{key}`{hint}")
        made[key] = _checked(value, getattr(default, key), f"{where}.{key}")
        if "of" in fields[key].metadata:  # a mapping from any names to settings of one kind
            kind = fields[key].metadata["of"]
            made[key] = {name: _checked(each, kind(), f"{where}.{key}.{name}") for name, each in value.items()}
        choices = fields[key].metadata.get("choices", ())
        for each in value if isinstance(value, list) else [value]:
            if choices and each not in choices:
                raise UsageError(f"{where}.{key}: `{each}` is none of {', '.join(map(str, choices))}")
        if "range" in fields[key].metadata:
            _must_lie_within(made[key], fields[key].metadata["range"], f"{where}.{key}")
    return dataclasses.replace(default, **made)  # type: ignore[type-var]


def _must_lie_within(value: Any, bounds: tuple[float, float], where: str) -> None:
    least, most = bounds
    if isinstance(value, list | dict):
        for place, each in value.items() if isinstance(value, dict) else enumerate(value):
            _must_lie_within(each, bounds, f"{where}.{place}" if isinstance(value, dict) else f"{where}[{place}]")
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:  # NaN is refused
        raise UsageError(f"{where}: wanted {least:,} to {most:,}, found {value}")


def _checked(value: Any, default: Any, where: str) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{where}: wanted a finite number, found {value}")
    if default is None or type(value) is type(default) is not list:
        return value
    if dataclasses.is_dataclass(default) and isinstance(value, dict):
        return from_dict(type(default), value, where)  # type: ignore[arg-type]
    if isinstance(value, list) and isinstance(default, list):
        return [_checked(v, default[0], f"{where}[{i}]") for i, v in enumerate(value)] if default else value
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    wanted = "a mapping of settings" if dataclasses.is_dataclass(default) else type(default).__name__
    raise UsageError(f"{where}: wanted {wanted}, found {type(value).__name__} ({value!r})")


def read(schema: type[T], path: str | Path | None, overrides: list[str] | None = None) -> T:
    """Read a YAML or JSON file and apply overrides of the form ``brain.read_at=token``.

    Args:
        schema: the dataclass to fill.
        path: the file, or None for the defaults alone.
        overrides: dotted assignments; the value is read as YAML.

    Raises:
        UsageError: the file is missing or is no mapping, a key is unknown, a value has the wrong type.
    """
    return from_dict(schema, read_values(path, overrides), str(path or "config"))


def read_values(path: str | Path | None, overrides: list[str] | None = None) -> dict[str, Any]:
    """What a YAML or JSON file and overrides say, unchecked.

    Raises:
        UsageError: the file is missing or is no mapping.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError  # type: ignore[import-untyped]

    try:
        text = "" if path is None else Path(path).read_text(encoding="utf-8-sig")
        _check_yaml(text)
        merged = OmegaConf.load(io.StringIO(text))
        for override in overrides or ():
            if "=" not in override:
                raise UsageError(f"{override}: wanted SETTING=VALUE")
            _check_yaml(override.partition("=")[2])
            merged = OmegaConf.merge(merged, OmegaConf.from_dotlist([override]))
        values = OmegaConf.to_container(merged, resolve=False)
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such configuration file") from error
    except (OmegaConfBaseException, YAMLError, ValueError, OSError, RecursionError) as error:
        raise UsageError(f"{path or 'config'}: cannot be read as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UsageError(f"{path}: wanted a mapping of settings, found a {type(values).__name__}")
    return {str(key): value for key, value in values.items()}


def _check_yaml(text: str) -> None:
    """Refuse YAML that would grow or recurse when it is read.

    Raises:
        ValueError: it is too long, too deep, repeats a part by its name, or has an integer of more than 64 bits.
    """
    import yaml  # type: ignore[import-untyped]

    if len(text) > _MOST_SETTINGS:
        raise ValueError(f"{len(text)} characters; wanted at most {_MOST_SETTINGS}")
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"line {event.start_mark.line + 1} repeats *{event.anchor}; wanted the value itself")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise ValueError(f"line {event.start_mark.line + 1} is nested deeper than {DEEPEST} levels")
        if isinstance(event, yaml.ScalarEvent) and len(event.value) > _DIGITS and event.value.lstrip("+-").isdecimal():
            raise ValueError(f"line {event.start_mark.line + 1} has an integer of {len(event.value)} digits")


def write_json(config: Any, path: Path) -> None:
    """Write the configuration as indented JSON."""
    path.write_text(json.dumps(to_dict(config), indent=2, sort_keys=True) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file of a checkpoint, e.g. its config.json, that holds a mapping.

    Raises:
        ModelError: MD01 it is not there; MD02 it is something else.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such file; wanted a whole checkpoint", "MD01")
    try:
        found = parse_json(path.read_bytes(), path)
    except (InputError, OSError) as error:
        raise ModelError(f"{path}: not a mapping in JSON ({error}); fetch it again", "MD02") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path}: not a mapping in JSON (a {type(found).__name__}); fetch it again", "MD02")
    return found


def parse_json(text: str | bytes, where: object, encodings: Sequence[str] = ("utf-8-sig",)) -> Any:
    """The value of a JSON text; NaN and Infinity are taken, as Python writes them.

    Args:
        text: the text, or the bytes of a file.
        where: what is read, in front of messages.
        encodings: of bytes, tried in this order; the default takes a byte order mark for what it is.

    Raises:
        InputError: bytes are no text in any of the encodings; it does not parse (with line and column), is nested
            deeper than `DEEPEST`, or has an integer of more than 64 bits.
    """
    try:
        value = json.loads(text if isinstance(text, str) else _decoded(text, encodings), parse_int=_integer)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise InputError(f"{where}: no JSON from {place} on ({error.msg}); copy or unpack it again") from error
    except ValueError as error:
        raise InputError(f"{where}: {error}; copy or unpack it again") from error
    except RecursionError as error:
        raise InputError(f"{where}: no JSON (nested too deeply); copy or unpack it again") from error
    if _is_deeper(value, DEEPEST):
        raise InputError(f"{where}: nested too deeply; wanted at most {DEEPEST} levels")
    return value


def _decoded(data: bytes, encodings: Sequence[str]) -> str:
    for encoding in encodings:
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    wanted = " or ".join(encodings).replace("utf-8-sig", "UTF-8")
    raise ValueError(f"cannot be read as text; wanted JSON in {wanted}")


def _integer(text: str) -> int:
    if len(text) > _DIGITS or not -LARGEST <= (value := int(text)) < LARGEST:
        raise ValueError(f"an integer of {len(text)} digits, {text[:20]}...; wanted one of 64 bits")
    return value


def _is_deeper(value: Any, most: int) -> bool:
    level = [value] if type(value) in _NESTED else []
    for _ in range(most):
        values = (held.values() if type(held) is dict else held for held in level)
        level = [each for held in values for each in held if type(each) in _NESTED]
        if not level:
            return False
    return True
