"""A stage's settings as one dataclass: YAML in, overrides from the command line, the resolved ones stored with the run."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, asdict, field, fields
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, TypeVar

from HCCNetLib.records import Refusal

# Of the weights: all, those of the second phase only, or none: where things lie, how often something is written.
Decides = Literal["all", "second phase", "nothing"]


def setting(default: Any, text: str, decides: Decides = "all") -> Any:
    """A field with the sentence that ``--help`` shows, and which of a network's weights hang on it."""
    metadata = {"help": text, "decides": decides}
    if isinstance(default, (dict, list)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


Config = TypeVar("Config")


def read_config(kind: type[Config], path: Path, overrides: Mapping[str, str]) -> Config:
    """Reads settings from YAML; what the command line says wins.

    Args:
        kind: the dataclass.
        path: YAML, a mapping of names and values.
        overrides: name → text, read as YAML.

    Raises:
        Refusal: the file can't be read, a name is unknown, a value is of a wrong kind or out of range.
    """
    values = {**read_yaml(path), **parse_overrides(kind, overrides)}
    try:
        return build_config(kind, values)
    except (ValueError, TypeError) as error:
        raise Refusal("bad_config", f"{path}: {error}.") from error


def parse_overrides(kind: type[Any], overrides: Mapping[str, str]) -> dict[str, Any]:
    """What the command line says of a stage's settings; text is taken as it is: a folder may be called 2021, or no."""
    hints = {f.name: hint for f, hint in settings_of(kind)}
    return {n: text if hints.get(n) is str else parse_yaml(text, f"--{n}") for n, text in overrides.items()}


def config_text(config: Any) -> str:
    """The resolved settings as YAML."""
    text: str = _yaml().safe_dump(_plain(asdict(config)), sort_keys=False)
    return text


def settings_of(kind: type[Any]) -> list[tuple[Field[Any], Any]]:
    """Each field of a configuration with its resolved type."""
    hints = typing.get_type_hints(kind)
    return [(f, hints[f.name]) for f in fields(kind)]


def deciding(config: Any, of: Sequence[Decides] = ("all", "second phase")) -> dict[str, Any]:
    """The settings on which the weights hang, as plain data, for a run's identity."""
    names = {f.name for f, _ in settings_of(type(config)) if f.metadata["decides"] in of}
    return {name: value for name, value in asdict(config).items() if name in names}


def _yaml() -> types.ModuleType:
    try:
        return import_module("yaml")
    except ImportError as error:
        message = "Training needs PyYAML. Install it with: pip install 'hccnet[training]'"
        raise Refusal("missing_package", message) from error


def read_yaml(path: Path) -> dict[str, Any]:
    """A mapping from a YAML file; raises Refusal where it can't be read or is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal("missing_config", f"The configuration {path} can't be read. Check the path.") from error
    content = parse_yaml(text, str(path))
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise Refusal("bad_config", f"{path} is no list of settings (name: value).")
    return content


def parse_yaml(text: str, where: str) -> Any:
    """Plain data from YAML; raises Refusal, naming the line, where it is not YAML."""
    yaml = _yaml()
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2021-13-45
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        place = "" if line is None else f", line {line + 1}"
        raise Refusal("bad_config", f"{where}{place}: this is not YAML.") from error


def build_config(kind: type[Config], values: Mapping[str, Any]) -> Config:
    """A configuration from plain data; raises ValueError for an unknown name or a value of a wrong kind."""
    known = dict(settings_of(kind))
    hints = {f.name: hint for f, hint in known.items()}
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ValueError(f"unknown settings: {', '.join(unknown)}")
    required = [f.name for f in known if f.default is MISSING and f.default_factory is MISSING]
    missing = sorted(set(required) - set(values))
    if missing:
        raise ValueError(f"missing settings: {', '.join(missing)}")
    return kind(**{name: _as(hints[name], value, name) for name, value in values.items()})


def _as(hint: Any, value: Any, name: str) -> Any:
    """The value as the field's type; raises ValueError where it is of another kind."""
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value not in options:
            raise ValueError(f"{name} must be one of {', '.join(map(str, options))}; it is {value!r}")
        return value
    if origin is tuple:
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise ValueError(f"{name} must be a list")
        return tuple(_as(options[0], item, name) for item in value)
    if origin is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{name} must be a mapping")
        return value
    if hint is float and isinstance(value, str):
        value = _number(value)  # YAML 1.1 reads 4e-4, which has no dot, as text
    if hint is float and type(value) is int:
        return float(value)
    if hint is float and type(value) is float and not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number; it is {value!r}")
    if hint is str and value is None:
        return ""
    if type(value) is not hint:
        words = {float: "a number", int: "a whole number", str: "text", bool: "true or false"}
        raise ValueError(f"{name} must be {words[hint]}; it is {value!r}")
    return value


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (tuple, list)) else value
