"""Settings as files: dataclasses read strictly from YAML or JSON (unknown keys refused, dotted overrides), written as
JSON; and the JSON files of checkpoints.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from pathlib import Path
from typing import Any, TypeVar

from trackgpt.errors import ModelError, UsageError

T = TypeVar("T")


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
        merged = OmegaConf.load(path) if path is not None else OmegaConf.create({})
        if overrides:
            merged = OmegaConf.merge(merged, OmegaConf.from_dotlist(list(overrides)))
        values = OmegaConf.to_container(merged, resolve=False)
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such configuration file") from error
    except (OmegaConfBaseException, YAMLError, ValueError, OSError) as error:
        raise UsageError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UsageError(f"{path}: wanted a mapping of settings, found a {type(values).__name__}")
    return {str(key): value for key, value in values.items()}


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
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ModelError(f"{path}: not a mapping in JSON ({error}); fetch it again", "MD02") from error
