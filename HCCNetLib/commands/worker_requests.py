"""A line from the worker's client → a request, or a sentence about what is wrong with it."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from HCCNetLib.bundles import DEMONSTRATION_BUNDLE
from HCCNetLib.commands.predict import EXPLANATIONS
from HCCNetLib.commands.worker_scratch import PROTOCOL_VERSION, SCRATCH_PREFIX, is_scratch
from HCCNetLib.explanation import DEFAULT_METHOD, METHODS

DEVICES = ("auto", "cpu", "cuda")

Id = str | int


class BadRequest(Exception):
    """A line that is no request.

    Args:
        code: ``bad_request`` or ``wrong_version``.
        message: what is wrong with it.
        request_id: None where the line does not tell it.
    """

    def __init__(self, code: str, message: str, request_id: Id | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.request_id = request_id

    def event(self) -> dict[str, Any]:
        """What the client is told."""
        return {"event": "error", "id": self.request_id, "code": self.code, "message": self.message}


@dataclass(frozen=True)
class PredictRequest:
    """What a client asks for; the module's docstring of ``worker`` tells the fields."""

    id: Id
    table: Path
    bundle: Path
    out: Path
    explain: str
    method: str
    device: str
    resample_channels: bool
    scratch: Path | None


def read_request(line: bytes) -> PredictRequest | None:
    """Reads one line; None is the request to shut down.

    Raises:
        BadRequest: it is no request of this protocol.
    """
    try:
        content = json.loads(line.decode("ascii"))
    except (ValueError, RecursionError) as error:
        raise BadRequest("bad_request", "The line is not JSON in ASCII.") from error
    if not isinstance(content, dict):
        raise BadRequest("bad_request", "The line is JSON but not an object.")
    request_id = content.get("id")
    if not isinstance(request_id, (str, int)) or isinstance(request_id, bool):
        raise BadRequest("bad_request", "The request has no id: a string or a whole number.")
    try:
        return _read(request_id, content)
    except BadRequest as bad:
        raise BadRequest(bad.code, bad.message, request_id) from bad


def _read(request_id: Id, content: Mapping[str, Any]) -> PredictRequest | None:
    version, operation = content.get("v"), content.get("op")
    if type(version) is not int or version != PROTOCOL_VERSION:
        message = (
            f"The request is of version {_shown(version)} of the protocol, this worker speaks version {PROTOCOL_VERSION}: "
            f"use client and library of one release."
        )
        raise BadRequest("wrong_version", message)
    if operation == "shutdown":
        return None
    if operation == "scratch":  # one that is right is taken before the requests are read
        message = f"folder must be the absolute path of a folder whose name begins with {SCRATCH_PREFIX}."
        raise BadRequest("bad_request", message)
    if operation != "predict":
        raise BadRequest("bad_request", f"The op {_shown(operation)} is none of predict, scratch, shutdown.")
    table, bundle, out = (_path(content, name) for name in ("table", "bundle", "out"))
    if table is None or out is None:
        raise BadRequest("bad_request", "The request lacks table or out: paths.")
    return PredictRequest(
        id=request_id,
        table=table,
        bundle=DEMONSTRATION_BUNDLE if bundle is None else bundle,
        out=out,
        explain=_choice(content, "explain", EXPLANATIONS, "saliency"),
        method=_choice(content, "method", METHODS, DEFAULT_METHOD),
        device=_choice(content, "device", DEVICES, "auto"),
        resample_channels=_flag(content, "resample_channels"),
        scratch=_scratch(_path(content, "scratch"), table),
    )


def _path(content: Mapping[str, Any], name: str) -> Path | None:
    value = content.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not value or "\0" in value:
        raise BadRequest("bad_request", f"{name} is no path: a string that is not empty.")
    try:
        os.fsencode(value)
    except UnicodeEncodeError as error:
        raise BadRequest("bad_request", f"{name} is no path: it holds characters that no file's name has.") from error
    return Path(value)


def _choice(content: Mapping[str, Any], name: str, choices: Collection[str], default: str) -> str:
    value = content.get(name)
    if value is None:
        return default
    if not isinstance(value, str) or value not in choices:
        raise BadRequest("bad_request", f"{name} is {_shown(value)}, which is none of {', '.join(choices)}.")
    return value


def _flag(content: Mapping[str, Any], name: str) -> bool:
    value = content.get(name, False)
    if not isinstance(value, bool):
        raise BadRequest("bad_request", f"{name} is {_shown(value)}, neither true nor false.")
    return value


def _scratch(folder: Path | None, table: Path) -> Path | None:
    if folder is not None and not (is_scratch(folder) and folder in table.parents):
        message = f"scratch must be the folder in which the table lies, with a name that begins with {SCRATCH_PREFIX}."
        raise BadRequest("bad_request", message)
    return folder


def _shown(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 40 else f"{text[:40]}…"
