"""Which channel a DICOM series is, from its b-value or its description; no guess where either may mean two things.

Words decide only where they can mean nothing else in a liver protocol. Whoever is missed is chosen by hand, which costs a
click; whoever is taken wrongly is a swapped channel.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from HCCNetLib.readers.channels import (
    CHANNELS,
    PUBLISHED_ALIASES,
    b_value_name,
    is_channel_name,
    plain_name,
)
from HCCNetLib.readers.dates import seconds_of_day
from HCCNetLib.readers.image_types import KIND_OF_COMPONENT, dixon_of_type, kind_of_type

# Where vendors write the b-value: the standard's place first, then Siemens, Philips, United Imaging and, last, GE.
_B_VALUE_TAGS = ("0018,9087", "0019,100C", "2001,1003", "0065,1009")
_GE_B_VALUE_TAG = "0043,1039"
GE_OFFSET = 100_000.0  # GE adds multiples of it (1000000800 is b800)
_LARGEST_B_VALUE = 10_000.0  # s/mm²
_HEX_PAIR = re.compile(r"[0-9a-fA-F]{2}")

# Made from images rather than by the scanner, or of something else: never a channel, whatever else the text says.
DERIVED = re.compile(
    r"\b(\w*adcs?|apparent|coefficient|exp(onential)?|\w*calc\w*|comp(uted|osed)?|synth\w*|[acef]dwi|fa|dti|tensor|inv\w*|"
    r"maps?|mip|mpr|subs?|subtr\w*|wash|pei|ttp|scout|localiz\w*|localis\w*|survey|smartbrain|calib\w*|asset|cal|fat|f|"
    r"bolus|care|track\w*|test|mra|angio\w*|tof|q?flow|swi|molli|mre|elasto\w*|wave|flair|perf\w*|mrcp\w*|cholangio\w*|"
    # Many echoes, from which fat and iron are worked out, are neither in nor out of phase nor short nor long.
    r"multi ?echo|[3-9] ?echoe?s|quant\w*|q ?dixon|iq|t1 ?rho|r2\w*)\b"
)
_DIFFUSION = re.compile(r"\b(dwi?|diff(usion)?|tracew?|ep2d|resolve)\b")
_ONLY_B = re.compile(r"b ?=? ?\d{1,4}")
_B_IN_TEXT = re.compile(r"\bb ?=? ?(\d{1,4}(?: \d{2,4})*)\b")

T2 = re.compile(r"\bt2\w*\b")
# Gradient echoes weighted by T2*: none of the channels.
T2_STAR = re.compile(r"\b(t2 ?(star|ffe|gre|fl|flash|fl[23]d)\w*|gre|ffe|flash|fl[23]d|medic|merge|swan)\b")
T2_ECHO_TIMES = (30.0, 400.0)  # ms; T2*-weighted images have shorter ones, those of bile ducts (MRCP) longer ones
# "short" and "long" alone are said of inversion times, repetition times, breath holds and echo trains too.
_T2_ECHOES = {"T2_short": r"short te|te short", "T2_long": r"long te|te long"}
# Spoiled gradient echoes, which the dynamic and the in- and out-of-phase images are; others have phases too.
_T1 = re.compile(r"\b(t1\w*|vibe|lava|e?thrive|m?dixon|f?spgr|gre|flash|fl[23]d|fame|quick3d|tigre|dual|dyn(amic)?)\b")
_NOT_T1 = re.compile(
    r"\b(t2\w*|haste|ss?fse|b?tfe2|btfe|trufi\w*|fiesta|cor(onal)?|sag(ittal)?|hepat\w*|hbp?|hb phase|"
    # Ten minutes and more after a contrast agent of the liver it is the liver's own phase.
    r"[1-9]\d ?min\w*|\d ?(h|hrs?|hours?|std)|leberspez\w*)\b"
)
_T1_PHASES = {
    "T1_arterial": r"arterial|art|arteri(el|ell|elle|eel|osa)",
    "T1_venous": r"portal|venous|ven|pv|portal(e|a|ven\w*)|porto ?ven\w*|venos\w*|venoes\w*|veneus\w*|veineu\w*",
    # "del" is a Spanish article too.
    "T1_delayed": r"delayed|delay|equilibrium|late|del(?=$| \d)|spat(e|phase)?|spaet(e|phase)?|tardi\w*|equilibri?[oe]|laat",
    "T1_native": r"native|nativ|nat|pre|precontrast|unenhanced|plain|blanco|sin contraste|sans (?:injection|contraste)",
}
_T1_CHEMICAL_SHIFT = {"T1_in": r"in|ip|inphase", "T1_out": r"out|opp|opposed|oop|op|outphase"}
# "in", "out" and "op" are said of breath and operations too: they count against others anywhere, for themselves only so.
_SURE_SHIFT = re.compile(r"\b(in ?phase|ip|out( of)? ?phase|opp|opposed|oop)\b")
_SHIFT_AT_END = re.compile(r"\b(in|out)$")
_BREATH = re.compile(r"\b(breath\w*|inhal\w*|exhal\w*|insp\w*|exp\w*|atem\w*)\b")
# After contrast a native image, or one in or out of phase, is another one.
_AFTER_CONTRAST = re.compile(
    r"\b(post\w*|nach|after|apres|km|gd|gado\w*|primovist|eovist|dotarem|multihance|ce|c|contrast\w*|kontrast\w*|"
    r"\d+ ?min\w*)\b"
)
_WITHOUT_CONTRAST = re.compile(
    r"\b(pre|vor|before|avant|sans|sin|ohne|without|no|non) ?(contrast\w*|kontrast\w*|km|gd|gado\w*|ce|c)\b"
)


@dataclass(frozen=True)
class SeriesFacts:
    """What a series says of itself.

    Args:
        name: of the image as it was loaded, often the series' number and description.
        description: (0008,103E), or empty.
        b_value: s/mm², or None where no slice has one.
        is_mixed: whether its slices have several b-values: then it is no image of one channel.
        unfit: why it is no channel whatever its words say (a phase image, a map), or empty.
        is_diffusion: whether its tags say that it belongs to diffusion-weighted images.
        dixon: ``in``, ``out`` or ``water`` where its type says so.
        series: what volumes of one series share; empty where a series is one volume.
        echo_time: ms, or None.
        field_strength: T, or None.
        acquired: time of day at which the acquisition began, seconds, or None.
        contrast_given: time of day at which the contrast agent was given, seconds, or None.
        protocol: what the phases of one dynamic examination share; empty where it is not known.
        plane: ``coronal`` or ``sagittal``, which channels are only by name; else empty.
        is_broken: whether it can't be read: it is never taken, but others must not pass for it.
    """

    name: str
    description: str = ""
    b_value: float | None = None
    is_mixed: bool = False
    unfit: str = ""
    is_diffusion: bool = False
    dixon: str = ""
    series: str = ""
    echo_time: float | None = None
    field_strength: float | None = None
    acquired: float | None = None
    contrast_given: float | None = None
    protocol: str = ""
    plane: str = ""
    is_broken: bool = False


def b_value_in_tags(value_of: Callable[[str], str]) -> float | None:
    """The b-value (s/mm²) of an image.

    Args:
        value_of: a tag ``gggg,eeee`` → its value as text, empty where the image has none.
    """
    for tag in _B_VALUE_TAGS:
        value = _plausible(_as_text(value_of(tag)))
        if value is not None:
            return value
    return _plausible(_as_text(value_of(_GE_B_VALUE_TAG)).split("\\")[0], GE_OFFSET)


def _as_text(value: str) -> str:
    """The value; one of unknown representation comes as the hexadecimal codes of its characters, ``38\\30\\30``."""
    parts = value.split("\\")
    if len(parts) < 2 or not all(_HEX_PAIR.fullmatch(part) for part in parts):
        return value
    return bytes.fromhex("".join(parts)).decode("ascii", "replace").strip("\0 ")


def _plausible(text: str, offset: float = math.inf) -> float | None:
    try:
        return plausible_b_value(math.fmod(float(text), offset))
    except ValueError:  # empty, or bytes of a private tag that nobody translated
        return None


def plausible_b_value(value: float | None) -> float | None:
    """The value (s/mm²) if it can be a b-value, else None."""
    return value if value is not None and 0 <= value <= _LARGEST_B_VALUE else None


def name_of_series(facts: SeriesFacts) -> tuple[str, str] | None:
    """The name of a channel or b-value that a series surely has, and by what; None where nothing or several fit."""
    if facts.is_mixed:
        return None
    # The image's own name is the user's word; a description's is not above what the tags say.
    for text in filter(None, (facts.name, "" if facts.unfit else facts.description)):
        name = _exact(text)
        if name is not None:
            return name, "name"
    if facts.unfit:
        return None
    texts = [words_of(text) for text in (facts.name, facts.description) if text]
    if any(DERIVED.search(text) for text in texts):
        return None
    text = words_of(facts.description or facts.name)
    if facts.b_value is not None:
        says_otherwise = is_t1_or_t2_text(text)
        # Scanners write b = 0 into series that have nothing to do with diffusion.
        if facts.is_diffusion or is_diffusion_text(text) or (facts.b_value >= 1 and not says_otherwise):
            return b_value_name(0.0 if facts.b_value < 1 else facts.b_value), "b-value"
        if facts.b_value >= 1:
            return None
    if facts.plane:
        return None
    if facts.dixon in ("in", "out") and _T1.search(text) and not T2.search(text):
        # A dynamic examination may be one in and out of phase too: then the phases are of its water images.
        return None if _is_other_than(f"T1_{facts.dixon}", text) else (f"T1_{facts.dixon}", "image type")
    name = _by_words(text)
    if name in _T2_ECHOES and facts.echo_time is not None and not is_t2_echo(facts.echo_time):
        return None
    return None if name is None else (name, "description")


def is_t2_echo(echo_time: float) -> bool:
    """Whether a T2-weighted image of the liver can have this echo time (ms)."""
    return T2_ECHO_TIMES[0] <= echo_time <= T2_ECHO_TIMES[1]


def _is_other_than(channel: str, text: str) -> bool:
    """Whether words speak against an image in or out of phase of before the contrast agent was given."""
    shifts = _all(_T1_CHEMICAL_SHIFT, text) if _SURE_SHIFT.search(text) else [channel]
    phases = [phase for phase in _all(_T1_PHASES, text) if phase != "T1_native"]
    return bool(phases or channel not in shifts or _NOT_T1.search(text) or _says_after_contrast(text))


def _says_after_contrast(text: str) -> bool:
    return bool(_AFTER_CONTRAST.search(_WITHOUT_CONTRAST.sub("", text)))


def with_tags(facts: SeriesFacts, value_of: Callable[[str], str]) -> SeriesFacts:
    """The facts with what the tags of one of its images tell besides.

    Args:
        facts: with name, description and b-value.
        value_of: a tag ``gggg,eeee`` → its value as text, empty where the image has none.
    """
    image_type = [word.strip().upper() for word in value_of("0008,0008").split("\\")]
    echo_time = _number(value_of("0018,0081"))
    return replace(
        facts,
        unfit=KIND_OF_COMPONENT.get(value_of("0008,9208").strip().upper()) or kind_of_type(image_type),
        is_diffusion="DIFFUSION" in image_type,
        dixon=dixon_of_type(image_type),
        series=value_of("0020,000E"),
        echo_time=echo_time,
        field_strength=_number(value_of("0018,0087")),
        acquired=_acquired(value_of),
        contrast_given=seconds_of_day(value_of("0018,1042")),
        protocol=protocol_of(facts.description, echo_time, " ".join(image_type[2:])),
    )


def _acquired(value_of: Callable[[str], str]) -> float | None:
    """Time of day at which a phase began; where all of a series have one time, that of the trigger tells, else nothing."""
    began, trigger = seconds_of_day(value_of("0008,0032")), _number(value_of("0018,1060"))
    if began is None or (_number(value_of("0020,0105")) or 1) <= 1:
        return began
    return began + trigger / 1000 if trigger is not None and value_of("0008,0070").upper().startswith("GE") else None


def plane_of(normal: Sequence[float]) -> str:
    """``coronal`` or ``sagittal`` of slices whose normal (patient axes, either sign) is nearest to that; else empty."""
    largest = max(range(3), key=lambda axis: abs(normal[axis]))
    return ("sagittal", "coronal", "")[largest]


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def protocol_of(description: str, echo_time: float | None, others: str) -> str:
    """What the phases of one dynamic examination have in common: the description but for numbers, the echo, and others."""
    words = re.sub(r"[\d.,]+", "", description.lower())
    return f"{words}|{'' if echo_time is None else f'{echo_time:.1f}'}|{others}"


def is_derived(text: str) -> bool:
    """Whether a text says that an image was made from others, or is of something else: never a channel."""
    return bool(DERIVED.search(words_of(text)))


def _exact(text: str) -> str | None:
    """The channel that a text is the name of, but for case and separators."""
    if is_channel_name(text):
        return text
    names = {plain_name(name): name for name in (*CHANNELS, *PUBLISHED_ALIASES)}
    return names.get(plain_name(text))


def words_of(text: str) -> str:
    """Lower case without accents, every separator a space; T2* is ``t2star``."""
    plain = unicodedata.normalize("NFKD", text.lower().replace("ß", "ss"))
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    plain = re.sub(r"(?<=[tr]2)w? ?\*", "star ", plain)
    return " ".join(re.split(r"[^a-z0-9=]+", plain)).strip()


def is_diffusion_text(text: str) -> bool:
    """Whether words say that an image is diffusion-weighted."""
    return bool(_DIFFUSION.search(text) or _ONLY_B.fullmatch(text))


def is_t1_or_t2_text(text: str) -> bool:
    """Whether words say that an image is T1- or T2-weighted; a diffusion-weighted one's may do so too."""
    return bool(_T1.search(text) or T2.search(text))


def _by_words(text: str) -> str | None:
    if is_diffusion_text(text):
        values = {value for found in _B_IN_TEXT.findall(text) for value in found.split()}
        return b_value_name(float(values.pop())) if len(values) == 1 else None
    if T2.search(text):
        return None if T2_STAR.search(text) else _only(_T2_ECHOES, text)
    if not _T1.search(text) or _NOT_T1.search(text):
        return None
    phases, shifts = _all(_T1_PHASES, text), _all(_T1_CHEMICAL_SHIFT, text)
    if shifts and not _SURE_SHIFT.search(text) and (_BREATH.search(text) or not _SHIFT_AT_END.search(text)):
        if "op" in text.split():
            return None
        shifts = []
    found = phases + shifts
    if len(found) != 1 or (found[0] in ("T1_native", *_T1_CHEMICAL_SHIFT) and _says_after_contrast(text)):
        return None
    return found[0]


def _all(table: Mapping[str, str], text: str) -> list[str]:
    return [channel for channel, words in table.items() if re.search(rf"\b(?:{words})\b", text)]


def _only(table: Mapping[str, str], text: str) -> str | None:
    found = _all(table, text)
    return found[0] if len(found) == 1 else None


def is_t1(facts: SeriesFacts) -> bool:
    """Whether a series surely is a T1-weighted image of the kind that dynamic phases are."""
    text = words_of(facts.description or facts.name)
    derived = DERIVED.search(text) or facts.unfit or facts.plane or facts.is_mixed or is_diffusion_text(text)
    return bool(_T1.search(text)) and not derived and not _NOT_T1.search(text) and (facts.b_value or 0.0) < 1
