"""``bundle.json``: what a bundle says of itself, checked word by word."""

from __future__ import annotations

import datetime
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from HCCNetLib.models import ModelConfig
from HCCNetLib.preprocessing import PreprocessingConfig
from HCCNetLib.records import DAYS_PER_MONTH, Refusal, months_between

FORMAT_VERSION = 2
_ONE_HORIZON = 1  # the format before, which knew one horizon

# "exams" counts exams instead of time: what a network makes of a sequence without its dates.
TimeUnit = Literal["days", "weeks", "months", "years", "exams"]
History = Literal["all", "latest"]
DAYS_PER_UNIT: dict[str, float] = {"days": 1.0, "weeks": 7.0, "months": DAYS_PER_MONTH, "years": 12 * DAYS_PER_MONTH}

_MEMBER_FILE = re.compile(r"members/[A-Za-z0-9_-][A-Za-z0-9_.-]*\.safetensors")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Member:
    """One network of the ensemble: its file within the bundle, the file's SHA-256, and the seed it was trained with."""

    file: str
    sha256: str
    seed: int | None


@dataclass(frozen=True)
class Calibration:
    """Logistic recalibration of the mean risk up to one horizon: sigmoid(slope · logit(p) + intercept)."""

    slope: float = 1.0
    intercept: float = 0.0
    fitted_on: str | None = None

    def __post_init__(self) -> None:
        require(self.slope, float, "calibration.slope")
        require(self.intercept, float, "calibration.intercept")
        if not self.slope > 0:
            raise ValueError("calibration.slope must be above 0: else a higher output would mean a lower risk")


def require(value: object, kind: type, name: str) -> None:
    """Raises ValueError unless a value is of a plain kind; a float may be written as an int, and must be finite."""
    right = type(value) in ((int, float) if kind is float else (kind,))
    if not right or (kind is float and not math.isfinite(value)):  # type: ignore[arg-type]
        words = {float: "a finite number", int: "a whole number", str: "text", bool: "true or false"}
        raise ValueError(f"{name} must be {words[kind]}")


@dataclass(frozen=True)
class BundleDescription:
    """Everything in ``bundle.json``.

    Args:
        name: of the bundle.
        version: of the bundle.
        licence: SPDX identifier of the weights.
        intended_use: one sentence.
        demonstration: whether results have no meaning for a patient.
        channels: in the network's order.
        model: what the networks are built from.
        preprocessing: how exams are prepared.
        time_unit: of an exam's time, which counts back from the landmark.
        horizon_months: the main horizon, one of ``horizons``: within which the predicted diagnosis comes.
        members: the ensemble.
        model_card_sha256: of MODEL_CARD.md.
        missing_channels: whether the networks were trained with channels missing.
        history: which exams the networks read: all up to the landmark, or the landmark alone.
        horizons: ends of the intervals whose hazards the networks give, months, ascending; empty: the main horizon alone.
        calibration: one per horizon; empty: probabilities are used as they are.
        average_risk: observed risk over all exams of the development patients, one per horizon; empty: not known.
        operating_thresholds: at the main horizon, chosen on development data.
        training_data: what the networks were trained on, in plain data.
    """

    name: str
    version: str
    licence: str
    intended_use: str
    demonstration: bool
    channels: tuple[str, ...]
    model: ModelConfig
    preprocessing: PreprocessingConfig
    time_unit: TimeUnit
    horizon_months: float
    members: tuple[Member, ...]
    model_card_sha256: str
    missing_channels: bool = False
    history: History = "all"
    horizons: tuple[float, ...] = ()
    calibration: tuple[Calibration, ...] = ()
    average_risk: tuple[float, ...] = ()
    operating_thresholds: tuple[Mapping[str, Any], ...] = ()
    training_data: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("name", "version", "licence", "intended_use", "model_card_sha256"):
            require(getattr(self, name), str, name)
        for name in ("demonstration", "missing_channels"):
            require(getattr(self, name), bool, name)
        for channel in self.channels:
            require(channel, str, "a channel")
        if not self.channels or len(set(self.channels)) != len(self.channels):
            raise ValueError("channels must be named, each once")
        if self.model.channels != len(self.channels):
            raise ValueError(f"the model has {self.model.channels} channels, but {len(self.channels)} are named")
        normalised = self.preprocessing.channel_mean, self.preprocessing.channel_sd
        if any(values is not None and len(values) != len(self.channels) for values in normalised):
            raise ValueError("channel_mean and channel_sd need one value per channel")
        if self.time_unit not in (*DAYS_PER_UNIT, "exams"):
            raise ValueError(f"time unit {self.time_unit!r} is none of {', '.join(DAYS_PER_UNIT)}, exams")
        if self.model.change and self.time_unit != "months":
            raise ValueError("a model that reads changes needs time in months")
        if self.history not in ("all", "latest"):
            raise ValueError(f"history {self.history!r} is neither all nor latest")
        self._check_horizons()
        if not self.members or len({m.file for m in self.members}) != len(self.members):
            raise ValueError("members must be listed, each once")
        for member in self.members:
            require(member.file, str, "a member's file")
            require(member.sha256, str, "a member's sha256")
            if not _MEMBER_FILE.fullmatch(member.file) or not _SHA256.fullmatch(member.sha256):
                raise ValueError("a member needs a file members/NAME.safetensors and its SHA-256")

    def _check_horizons(self) -> None:
        require(self.horizon_months, float, "horizon_months")
        if not self.horizon_months > 0:
            raise ValueError("horizon_months must be above 0")
        horizons = self.horizons or (self.horizon_months,)
        object.__setattr__(self, "horizons", check_horizons(horizons, self.horizon_months))
        if self.model.outputs != len(self.horizons):
            raise ValueError(f"the model has {self.model.outputs} outputs for {len(self.horizons)} horizons")
        for name in ("calibration", "average_risk"):
            if getattr(self, name) and len(getattr(self, name)) != len(self.horizons):
                raise ValueError(f"{name} must be one per horizon")
        for risk in self.average_risk:
            require(risk, float, "average_risk")
            if not 0 <= risk <= 1:
                raise ValueError("average_risk must be within 0 and 1")

    @property
    def main(self) -> int:
        """Index of the main horizon."""
        return self.horizons.index(self.horizon_months)

    def read_of(self, dates: Sequence[datetime.date]) -> tuple[int, ...]:
        """Which exams up to a landmark, the last of ``dates``, the networks read: their indices."""
        count = len(dates)
        return tuple(range(count)) if self.history == "all" else (count - 1,)

    def times_of(self, dates: Sequence[datetime.date]) -> tuple[float, ...]:
        """Each exam's time as the networks see it: 0 for the last of ``dates``, the landmark, and positive before."""
        if self.time_unit == "exams":
            return tuple(float(len(dates) - 1 - i) for i in range(len(dates)))
        scale = DAYS_PER_MONTH / DAYS_PER_UNIT[self.time_unit]
        return tuple(months_between(date, dates[-1]) * scale for date in dates)

    def to_dict(self) -> dict[str, Any]:
        """The content of ``bundle.json``."""
        return {
            "format_version": FORMAT_VERSION,
            "name": self.name,
            "version": self.version,
            "licence": self.licence,
            "intended_use": self.intended_use,
            "demonstration": self.demonstration,
            "channels": list(self.channels),
            "missing_channels": self.missing_channels,
            "history": self.history,
            "model": {"variant": self.model.name, **self.model.to_dict()},
            "preprocessing": self.preprocessing.to_dict(),
            "time": {"unit": self.time_unit, "origin": "landmark", "direction": "before"},
            "horizon_months": self.horizon_months,
            "horizons_months": list(self.horizons),
            "members": [{"file": m.file, "sha256": m.sha256, "seed": m.seed} for m in self.members],
            "calibration": [dict(vars(one)) for one in self.calibration] or None,
            "average_risk": list(self.average_risk) or None,
            "operating_thresholds": [dict(t) for t in self.operating_thresholds],
            "training_data": dict(self.training_data),
            "model_card": {"file": "MODEL_CARD.md", "sha256": self.model_card_sha256},
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> BundleDescription:
        """Reads ``bundle.json``'s content.

        Raises:
            Refusal: another format version, a setting that is missing, unknown, or of a wrong kind.
        """
        version = content.get("format_version") if isinstance(content, Mapping) else None
        if version not in (_ONE_HORIZON, FORMAT_VERSION):
            message = (
                f"bundle.json has format version {version!r}; this software reads versions {_ONE_HORIZON} and {FORMAT_VERSION}. "
                f"Update hccnet, or use a bundle made for it."
            )
            raise Refusal("bundle_format", message)
        try:
            return cls._from_checked(_of_one_horizon(content) if version == _ONE_HORIZON else dict(content))
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise Refusal("bad_bundle", f"bundle.json can't be used: {reason}. Get the bundle again.") from error

    @classmethod
    def _from_checked(cls, content: dict[str, Any]) -> BundleDescription:
        content.pop("format_version")
        model = dict(content.pop("model"))
        model.pop("variant", None)
        time = content.pop("time")
        if (time["origin"], time["direction"]) != ("landmark", "before"):
            raise ValueError("time must count back from the landmark")
        card = content.pop("model_card")
        if card["file"] != "MODEL_CARD.md":
            raise ValueError("the model card must be MODEL_CARD.md")
        parsed: dict[str, Any] = {
            "model": ModelConfig.from_dict(model),
            "preprocessing": PreprocessingConfig.from_dict(content.pop("preprocessing")),
            "time_unit": time["unit"],
            "horizons": tuple(_list(content, "horizons_months")),
            "calibration": tuple(_calibration(one) for one in _list_or_null(content, "calibration")),
            "average_risk": tuple(_list_or_null(content, "average_risk")),
            "members": tuple(Member(m["file"], m["sha256"], m["seed"]) for m in _list(content, "members")),
            "model_card_sha256": card["sha256"],
            "channels": tuple(_list(content, "channels")),
            "operating_thresholds": tuple(_list(content, "operating_thresholds")),
        }
        if not all(isinstance(t, dict) for t in parsed["operating_thresholds"]):
            raise ValueError("operating_thresholds must be a list of objects")
        if not isinstance(content["training_data"], dict):
            raise TypeError("training_data must be an object")
        unknown = sorted(set(content) - {f.name for f in fields(cls)})
        if unknown:
            raise ValueError(f"unknown settings: {', '.join(unknown)}")
        return cls(**parsed, **content)


def _list(content: dict[str, Any], name: str) -> list[Any]:
    value = content.pop(name)
    if not isinstance(value, list):
        raise TypeError(f"{name} must be a list")
    return value


def _list_or_null(content: dict[str, Any], name: str) -> list[Any]:
    if content[name] is None:
        content[name] = []
    return _list(content, name)


def _calibration(content: Any) -> Calibration:
    if not isinstance(content, dict):
        raise TypeError("calibration must be a list of objects")
    return Calibration(**content)


def _of_one_horizon(content: Mapping[str, Any]) -> dict[str, Any]:
    """What format version 1 says, in the words of version 2."""
    calibration = content["calibration"]
    return {
        **content,
        "horizons_months": [content["horizon_months"]],
        "calibration": None if calibration is None else [calibration],
        "average_risk": None,
    }


def check_horizons(horizons: Sequence[float], main: float) -> tuple[float, ...]:
    """Horizons as they are, in months; raises ValueError unless they are above 0, ascend and hold the main one."""
    for horizon in horizons:
        require(horizon, float, "a horizon")
    edges = (0, *horizons)
    if len(edges) < 2 or any(later <= earlier for earlier, later in itertools.pairwise(edges)):
        raise ValueError("horizons must be above 0 months, ascending, each once")
    if main not in horizons:
        raise ValueError(f"the main horizon ({main:g} months) must be one of {', '.join(f'{h:g}' for h in horizons)}")
    return tuple(float(horizon) for horizon in horizons)
