"""What a check of the maps has found (``hccnet explain-check``), as its JSON says it and as a report quotes it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from HCCNetLib.bundles import Bundle
from HCCNetLib.records import Refusal

FORMAT_VERSION = 1
CHECK_FILE = "explain_check.json"
_BESIDE_SUFFIX = ".explain-check.json"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LONGEST_NAME = 200
_ADVICE = "Make it again with `hccnet explain-check`."


def beside(bundle: Bundle) -> Path:
    """Where a bundle's check stands: beside its folder, never in it."""
    folder = bundle.path.resolve()
    return folder.with_name(folder.name + _BESIDE_SUFFIX)


def find_check(bundle: Bundle, method_key: str, path: Path | None = None) -> dict[str, Any] | None:
    """How often a method's peak was at the lesion when the bundle was checked.

    Args:
        bundle: the bundle that explains.
        method_key: of ``METHODS``.
        path: the check's JSON; None: the one beside the bundle, if there is one that can be used.

    Returns:
        ``patients`` with a lesion to be found, ``hits`` (peak within ``within_mm`` of it), ``inside`` (peak in it),
        ``within_mm``, ``random`` (share of hits of random points of the liver, 0–1), ``cohort`` (its name), ``phantom``
        (whether all of its patients were generated). Without ``path``, None where there is nothing to quote: no check, the
        method was not checked, or nobody knew where the lesions are.

    Raises:
        Refusal: the file at ``path`` can't be read, is damaged, is the check of another bundle, or has nothing to quote.
    """
    file = beside(bundle) if path is None else path
    try:
        found = _quote(_read(file), bundle, method_key, file.name)
    except Refusal:
        if path is None:
            return None  # nobody said that it belongs to the bundle
        raise
    if found is None and path is not None:
        message = (
            f"{file.name} does not say how often the peak of {method_key} lay at a lesion: this method was not checked, or "
            f"not where lesions are known. Choose another --method, or leave --check out."
        )
        raise Refusal("nothing_to_quote", message)
    return found


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise Refusal("missing_check", f"{file.name} can't be opened: {error.strerror}. Check the path.") from error
    except (ValueError, RecursionError) as error:
        raise _damaged(file.name, "it is not JSON") from error


def _quote(content: Any, bundle: Bundle, method_key: str, name: str) -> dict[str, Any] | None:
    try:
        if _field(content, "format_version", int) != FORMAT_VERSION:
            raise ValueError("format_version is another one than this software's")
        sha256 = _field(_field(content, "bundle", dict), "sha256", str)
        if not _SHA256.fullmatch(sha256):
            raise ValueError("bundle.sha256 is no SHA-256")
        cohort = _field(content, "cohort", dict)
        cohort_name, phantom = _field(cohort, "name", str)[:_LONGEST_NAME], _field(cohort, "phantom", bool)
        methods = _field(content, "methods", dict)
        figures = _figures(_field(methods, method_key, dict)) if method_key in methods else None
    except (ValueError, OverflowError) as error:
        raise _damaged(name, str(error)) from error
    if sha256 != bundle.sha256:
        message = (
            f"{name} is the check of another bundle than {bundle.description.name} {bundle.description.version} (their "
            f"SHA-256 differ). Take this bundle's check, or make one with `hccnet explain-check`."
        )
        raise Refusal("other_bundle", message)
    return None if figures is None else {**figures, "cohort": cohort_name, "phantom": phantom}


def _figures(method: Mapping[str, Any]) -> dict[str, Any] | None:
    """The numbers of a method, None where there was no truth to compare with; raises ValueError for impossible ones."""
    if method.get("localisation", ...) is None:
        return None
    found = _field(method, "localisation", dict)
    patients, hits, inside = (_field(found, key, int) for key in ("patients", "hits", "inside"))
    if not 0 <= inside <= hits <= patients or patients < 1:
        raise ValueError("the numbers of patients, hits and peaks inside contradict each other")
    within_mm, random = (float(_field(found, key, (int, float))) for key in ("within_mm", "random"))
    if not (math.isfinite(within_mm) and within_mm > 0 and 0 <= random <= 1):
        raise ValueError("within_mm or random is out of range")
    return {"patients": patients, "hits": hits, "inside": inside, "within_mm": within_mm, "random": random}


def _field(content: Any, key: str, kind: type | tuple[type, ...]) -> Any:
    """A value of exactly a kind (true is no number); raises ValueError where it is not there."""
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if not isinstance(content, dict) or type(content.get(key)) not in kinds:
        raise ValueError(f"{key} is missing or of a wrong kind")
    return content[key]


def _damaged(name: str, reason: str) -> Refusal:
    return Refusal("damaged_check", f"{name} can't be used as a check of maps: {reason}. {_ADVICE}")
