from __future__ import annotations

import base64
import copy
import hashlib
import itertools
import re
import struct
import zlib
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from HCCNetLib.reporting import colours, png, slices, timeline
from HCCNetLib.reporting.numbers import percent
from HCCNetLib.reporting.report import render_report, write_report
from HCCNetLib.reporting.slices import ExamPicture

RESEARCH_ONLY = "Research software, not a medical device: not for clinical use."
CUBE = list(itertools.product((0, 1), repeat=3))
PLANES = ("axial", "coronal", "sagittal")


def decode(data):
    """Pixels of a PNG whose rows are unfiltered, read by the format's definition."""
    assert data[:8] == bytes([137, 80, 78, 71, 13, 10, 26, 10])
    at, chunks = 8, []
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        content = data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0] == zlib.crc32(kind + content)
        chunks.append((kind, content))
        at += 12 + length
    assert [kind for kind, _ in chunks] == [b"IHDR", b"IDAT", b"IEND"]
    width, height, depth, colour, *rest = struct.unpack(">IIBBBBB", chunks[0][1])
    assert (depth, rest) == (8, [0, 0, 0])
    samples = {0: 1, 6: 4}[colour]
    rows = np.frombuffer(zlib.decompress(chunks[1][1]), np.uint8).reshape(height, 1 + width * samples)
    assert not rows[:, 0].any()
    return rows[:, 1:].reshape((height, width) if samples == 1 else (height, width, samples))


class Page(HTMLParser):
    """The elements of a page that tests ask for: every start tag, and the text by the class of the nearest tag."""

    VOID = ("meta", "input", "br")

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self._open = [], [], []
        self.feed(text)
        assert not self._open, "unclosed tags"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append((tag, dict(attrs)))

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop()[0] == tag, f"tags cross at {tag}"

    def handle_data(self, data):
        if data.strip():
            self.texts.append((self._open[-1][0], self._open[-1][1].get("class"), data.strip()))

    def of(self, tag, css=None):
        return [attrs for name, attrs in self.tags if name == tag and (css is None or attrs.get("class") == css)]

    def text(self):
        return " ".join(text for tag, _, text in self.texts if tag not in ("style", "script"))

    def pictures(self, css="base"):
        found = [image["href"].removeprefix("data:image/png;base64,") for image in self.of("image", css)]
        return [decode(base64.b64decode(data, validate=True)) for data in found]

    def letters(self):
        found = [text for _, css, text in self.texts if css == "letter"]
        return ["".join(found[n : n + 4]) for n in range(0, len(found), 4)]


def box(low, high):
    return np.array([[(low, high)[c][axis] for axis, c in enumerate(corner)] for corner in CUBE], dtype=np.float64)


def rotation(seed):
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return turn if np.linalg.det(turn) > 0 else -turn


def stored(volume, affine, order, flips):
    """The same volume as another scanner would store it: RAS axes permuted, then some reversed."""
    out = np.flip(volume.transpose(order), flips)
    to_ras = np.zeros((4, 4))
    to_ras[3, 3] = 1
    for axis in range(3):
        to_ras[order[axis], axis] = -1 if axis in flips else 1
        to_ras[order[axis], 3] = out.shape[axis] - 1 if axis in flips else 0
    return out, affine @ to_ras


def ras_affine(spacing=(1.0, 1.0, 1.0), turn=None):
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if turn is None else turn) @ np.diag(spacing)
    affine[:3, 3] = (-40.0, -30.0, 12.0)
    return affine


def picture(image=None, saliency=None, affine=None, corners=None, exam_id="2023-01-11", **others):
    image = np.random.default_rng(0).random((8, 9, 7)).astype(np.float32) if image is None else image
    affine = ras_affine() if affine is None else affine
    corners = box((-38, -28, 13), (-35, -25, 16)) if corners is None else corners
    return ExamPicture(exam_id, "DWI_b800", image, saliency, affine, corners, **others)


def signed_picture(kind="evidence", shape=(8, 9, 7), higher=0.9, lower=0.4):
    """A picture with its greatest evidence for a higher risk at (4, 2, 5) and for a lower one at (1, 3, 2)."""
    more, less = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    more[4, 2, 5], less[1, 3, 2] = higher, lower
    return picture(saliency=more, against=less, kind=kind)


def exam(date, **changed):
    values = {
        "exam_id": date,
        "date": date,
        "months_before_landmark": 3.0,
        "attention": 0.5,
        "risk_without": 0.081,
        "saliency": None,
        "field": {"box": {}, "liver_fraction": None, "filled_fraction": 0.884},
    }
    return values | changed


RESULT = {
    "patient_id": "RA01",
    "bundle": {"name": "tiny", "version": "1.2", "sha256": "ab" * 32, "demonstration": False, "calibrated": True},
    "landmark": "2023-01-11",
    "horizon_months": 12,
    "risk": 0.1234,
    "risk_uncalibrated": 0.2345,
    "members": [0.1, 0.11, 0.19],
    "spread": {"sd": 0.04, "low": 0.1, "high": 0.19},
    "exams": [exam("2022-04-20"), exam("2023-01-11", risk_without=None, months_before_landmark=0.0)],
    "trajectory": [{"as_of": "2022-04-20", "risk": 0.05}, {"as_of": "2023-01-11", "risk": 0.1234}],
    "warnings": [],
    "software": {"hccnet": "0.1.0", "torch": "2.5"},
    "seconds": {"read": 1.25},
    "explanation": {"method": "saliency", "description": "Gradients of the risk."},
}


def result(**changed):
    return copy.deepcopy(RESULT) | changed


def demonstration(**changed):
    return result(bundle={**RESULT["bundle"], "demonstration": True, "calibrated": True}, **changed)


CHANGE = {
    "from": "2022-04-20",
    "to": "2023-01-11",
    "risk_from": 0.05,
    "risk_to": 0.1234,
    "logit": 0.95,
    "by_dates": -0.2,
    "by_picture": 1.15,
}
CHECK = {
    "patients": 40,
    "hits": 38,
    "inside": 19,
    "within_mm": 10,
    "random": 0.05,
    "cohort": "forty phantoms, seed 7",
    "phantom": True,
}


def explained(**changed):
    return {**RESULT["explanation"], **changed}


# Pictures


@pytest.mark.parametrize("shape", [(5, 7), (1, 3), (6, 4, 4)])
def test_a_png_reads_back_to_its_pixels(shape):
    pixels = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    assert np.array_equal(decode(png.encode(pixels)), pixels)


@pytest.mark.parametrize("pixels", [np.zeros((2, 2)), np.zeros((2, 2, 3), np.uint8), np.zeros((0, 2), np.uint8)])
def test_a_png_of_what_is_no_picture_is_an_error(pixels):
    with pytest.raises(ValueError, match=r"pixels|expected"):
        png.encode(pixels)


def test_weak_evidence_is_transparent_and_strong_evidence_is_ever_lighter_and_more_opaque():
    drawn = colours.overlay(np.array([0, 0.14, 0.15, 0.6, 1, 7, np.nan], dtype=np.float32)).astype(int)
    assert drawn[[0, 1, 6], 3].tolist() == [0, 0, 0]
    ramp = colours.overlay(np.linspace(0.15, 1, 50, dtype=np.float32)).astype(float)
    assert (np.diff(ramp[:, :3] @ (0.2126, 0.7152, 0.0722)) > 0).all()
    assert (np.diff(ramp[:, 3]) > 0).all()
    assert ramp[0, 3] > 50
    assert ramp[-1, 3] < 255
    assert np.array_equal(drawn[4], drawn[5])


def test_the_gray_window_leaves_out_outliers_and_takes_images_without_contrast_or_numbers():
    image = np.linspace(0, 100, 1001, dtype=np.float32).reshape(7, 11, 13)
    image[0, 0, 0], image[0, 0, 1] = 1e9, np.nan
    low, high = colours.window(image)
    assert (low, high) == (pytest.approx(1.1, abs=0.3), pytest.approx(99.5, abs=0.3))
    assert colours.gray(image, low, high)[0, 0, :2].tolist() == [255, 0]
    for odd in (np.full((2, 2, 2), 7, np.float32), np.full((2, 2, 2), np.nan, np.float32)):
        assert not colours.gray(odd, *colours.window(odd)).any()


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("flips", [f for n in range(4) for f in itertools.combinations(range(3), n)])
@pytest.mark.parametrize("turned", [False, True])
def test_however_a_volume_is_stored_its_right_anterior_superior_is_shown_where_the_letters_say(order, flips, turned):
    angle = np.radians(14)
    tilt = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    tilt = tilt @ tilt[[2, 0, 1]][:, [2, 0, 1]]
    volume = np.zeros((10, 12, 14), np.float32)
    volume[9:, 11:, 13:] = 1.0  # the end of the right, anterior and superior axes
    affine = ras_affine((2.0, 1.5, 3.0), tilt if turned else None)
    image, its_affine = stored(volume, affine, order, flips)
    page = Page(render_report(result(), [picture(image, image, its_affine)]))

    assert [svg["class"] for svg in page.of("svg") if "viewbox" in svg and "slice" in svg.get("class", "")] == [
        f"slice {plane}" for plane in PLANES
    ]
    assert page.letters() == ["RLAP", "RLSI", "APSI"]  # left, right, top, bottom
    for shown, size in zip(page.pictures(), [(12, 10), (14, 10), (14, 12)], strict=True):
        assert shown.shape == size
        assert np.argwhere(shown).tolist() == [[0, 0]]  # top left in all three
    for shown in page.pictures("overlay"):
        assert np.argwhere(shown[..., 3]).tolist() == [[0, 0]]

    ras = affine[:3, :3] @ (9, 11, 13) + affine[:3, 3]
    where = ", ".join(f"{'RAS'[n] if ras[n] >= 0 else 'LPI'[n]} {abs(ras[n]):.1f} mm" for n in range(3))
    voxel = ", ".join(map(str, np.argwhere(image)[0]))
    assert f"at {where} (voxel {voxel} of the stored image" in page.text()


@pytest.mark.parametrize("seed", range(12))
def test_every_volume_is_put_in_the_order_that_keeps_each_voxel_where_it_was(seed):
    rng = np.random.default_rng(seed)
    affine = ras_affine(rng.uniform(0.5, 5, 3), rotation(seed))
    before = picture(rng.random((4, 5, 6)).astype(np.float32), affine=affine)
    after = slices.in_patient_order(before)
    for voxel in np.ndindex(*after.image.shape):
        at = slices.to_voxels(affine, slices.to_patient(after.affine, voxel)[None])[0]
        assert np.allclose(at, at.round(), atol=1e-6)
        assert before.image[tuple(at.round().astype(int))] == after.image[voxel]
    directions = after.affine[:3, :3] / np.linalg.norm(after.affine[:3, :3], axis=0)
    best = max(sum(abs(directions[n, p[n]]) for n in range(3)) for p in itertools.permutations(range(3)))
    assert np.trace(directions) == pytest.approx(best)


def test_a_slice_has_the_size_of_the_body_not_of_the_array():
    image = np.random.default_rng(0).random((10, 12, 14)).astype(np.float32)
    page = Page(render_report(result(), [picture(image, affine=ras_affine((2.0, 1.5, 4.0)))]))
    sizes = [(float(image["width"]), float(image["height"])) for image in page.of("image", "base")]
    assert sizes == [(20.0, 18.0), (20.0, 56.0), (18.0, 56.0)]
    assert {image["preserveaspectratio"] for image in page.of("image", "base")} == {"none"}


@pytest.mark.parametrize("depth", [4, 40])
def test_the_pictures_of_an_exam_share_one_scale(depth):
    drawn = slices.draw_slices(picture(np.ones((20, 16, depth), np.float32)), "2023-01-11")
    views = [float(v.split()[2]) for v in re.findall(r'aria-label="[^"]*" viewBox="([^"]*)"', drawn)]
    shares = [float(s) / 100 for s in re.findall(r'<figure style="width:([\d.]+)%', drawn)]
    tracks = [float(t) for t in re.findall(r"([\d.]+)fr", drawn)]
    tracks = tracks if len(tracks) == 3 else [tracks[0], tracks[1], tracks[1]]
    scales = [track * share / view for track, share, view in zip(tracks, shares, views, strict=True)]
    assert len(views) == 3
    assert scales == pytest.approx([scales[0]] * 3, rel=1e-3)


def test_the_tilt_of_a_plane_is_told_in_degrees():
    angle = np.radians(20)
    about_superior = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = ras_affine((1.0, 2.0, 3.0), about_superior)
    assert [slices.tilt(affine, plane) for plane in slices.PLANES] == pytest.approx([0, 20, 20], abs=1e-6)
    text = Page(render_report(result(), [picture(affine=affine)])).text()
    assert text.count("tilted by 20°") == 2


# Evidence for a lower risk, and change

# Severe colour blindness in linear RGB: Machado, Oliveira and Fernandes, IEEE TVCG 2009, severity 1.
SEEN = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def lab(rgb, seen="normal"):
    """CIELAB (D65) of sRGB 0-255, as a reader with this vision sees it."""
    share = np.asarray(rgb, float) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ np.array(SEEN[seen]).T, 0, 1)
    to_xyz = np.array([[0.41246, 0.35758, 0.18044], [0.21267, 0.71515, 0.07218], [0.01933, 0.11919, 0.95030]])
    xyz = linear @ to_xyz.T / to_xyz.sum(axis=1)
    root = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = np.moveaxis(root, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


@pytest.mark.parametrize("seen", SEEN)
@pytest.mark.parametrize("tissue", [0, 64, 128, 192, 255])
def test_no_colour_of_the_one_sign_passes_for_one_of_the_other_or_for_tissue(tissue, seen):
    drawn = []
    for scale in (colours.HIGHER, colours.LOWER):
        rgba = colours.overlay(np.linspace(0.15, 1, 60, dtype=np.float32), scale).astype(float)
        opaque = rgba[:, 3:] / 255
        drawn.append(lab(opaque * rgba[:, :3] + (1 - opaque) * tissue, seen))
    assert np.linalg.norm(drawn[0][:, None] - drawn[1][None], axis=-1).min() > 13
    assert np.linalg.norm(drawn[1] - lab([tissue] * 3, seen), axis=-1).min() > 13


def test_both_scales_share_threshold_and_opacity_and_the_blue_one_grows_lighter_in_even_steps():
    share = np.linspace(0, 1, 101, dtype=np.float32)
    higher, lower = colours.overlay(share), colours.overlay(share, colours.LOWER)
    assert np.array_equal(higher[:, 3], lower[:, 3])
    assert np.allclose(np.diff(lab(colours.LOWER)[:, 0]), 4.5, atol=0.3)
    assert (lower[:, 2] > lower[:, 0]).all()  # blue above red throughout


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("flips", [f for n in range(4) for f in itertools.combinations(range(3), n)])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("kind", ["evidence", "change"])
def test_however_maps_are_stored_both_signs_are_drawn_where_they_are(order, flips, turned, kind):
    rng = np.random.default_rng(4)
    more, less = (rng.choice([0.0, 0.5], (7, 6, 5)).astype(np.float32) for _ in range(2))
    peak = (5, 1, 3)
    (more if kind == "evidence" else less)[peak] = 0.9
    turn = rotation(0)
    turn = np.linalg.qr(np.eye(3) + 0.25 * turn)[0]
    turn = turn * np.sign(np.diag(turn))  # oblique, each axis still nearest to its own
    affine = ras_affine((2.0, 1.5, 4.0), turn if turned else None)
    image, its_affine = stored(np.ones((7, 6, 5), np.float32), affine, order, flips)
    more_stored, less_stored = (stored(values, affine, order, flips)[0] for values in (more, less))
    shown = picture(image, more_stored, its_affine, against=less_stored, kind=kind)
    page = Page(render_report(result(), [shown]))
    assert page.letters() == ["RLAP", "RLSI", "APSI"]
    i, j, k = peak
    for css, values in (("overlay", more), ("against", less)):
        expected = [values[::-1, ::-1, k].T, values[::-1, j, ::-1].T, values[i, ::-1, ::-1].T]
        for drawn, cut in zip(page.pictures(css), expected, strict=True):
            assert np.array_equal(drawn[..., 3] > 0, cut >= 0.15)


def test_the_two_signs_have_their_own_colours():
    page = Page(render_report(result(), [signed_picture("change", higher=0.9, lower=0.9)]))
    red, blue = (
        np.concatenate([drawn[drawn[..., 3] > 0] for drawn in page.pictures(css)]).astype(int)
        for css in ("overlay", "against")
    )
    # One voxel of each sign: the slices go through one of them.
    assert len(red) + len(blue) == 3
    assert all(r > b for r, _, b, _ in red)
    assert all(b > r for r, _, b, _ in blue)
    expected = colours.overlay(np.array([0.9], np.float32), colours.LOWER if len(blue) else colours.HIGHER)
    assert np.array_equal((blue if len(blue) else red)[0], expected[0])


def test_a_change_is_cut_where_it_is_strongest_whichever_sign_it_has():
    rose, fell = signed_picture("change", higher=0.9, lower=0.4), signed_picture("change", higher=0.5, lower=0.8)
    assert slices.cut_voxel(rose) == (4, 2, 5)
    assert slices.cut_voxel(fell) == (1, 3, 2)
    assert slices.cut_voxel(signed_picture(higher=0.5, lower=0.8)) == (4, 2, 5)  # evidence: the one for a higher risk
    assert "strongest change in this exam, 0.90, which raised the output" in render_report(result(), [rose])
    assert "strongest change in this exam, 0.80, which lowered the output" in render_report(result(), [fell])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"against": np.zeros((2, 2, 2), np.float32)}, "against .* not on the image's grid"),
        ({"saliency": None}, "needs the one of what raises"),
        ({"against": None, "kind": "change"}, "needs both maps"),
    ],
)
def test_maps_that_do_not_belong_together_are_an_error(wrong, message):
    zeros = np.zeros((8, 9, 7), np.float32)
    with pytest.raises(ValueError, match=message):
        picture(**{"saliency": zeros, "against": zeros, **wrong})


def test_a_change_of_the_first_exam_is_an_error():
    shown = picture(saliency=np.zeros((8, 9, 7), np.float32), against=np.zeros((8, 9, 7), np.float32), kind="change")
    first = result(exams=[exam("2023-01-11", risk_without=None)], trajectory=RESULT["trajectory"][1:])
    with pytest.raises(ValueError, match="2023-01-11, which is the first exam"):
        render_report(first, [shown])


def test_evidence_for_a_lower_risk_can_be_switched_on_and_is_hidden_without_script_and_in_print():
    text = render_report(result(), [signed_picture()])
    page = Page(text)
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    screen, printed = style.split("@media print {")
    hiding = re.search(r"([^}]*)\{ display: none \}", screen[screen.index(".no-outline") :])[1].split(",")
    assert ".no-lower .evidence .against" in [rule.strip() for rule in hiding]
    assert ".evidence .against { display: none !important }" in printed
    assert page.of("body")[0]["class"] == "no-lower"
    assert page.of("section", "exam evidence")
    assert len(page.pictures("against")) == 3
    boxes = {box["name"]: "checked" in box for box in page.of("input") if box["type"] == "checkbox"}
    assert boxes == {"outline": True, "higher": True, "lower": False}
    assert "Evidence for a higher risk Evidence for a lower risk" in re.sub(r"\s+", " ", page.text())
    assert "At first, without script and in print only the evidence for a higher risk is drawn." in page.text()
    assert all("hidden" in bar for bar in page.of("div", "controls"))


def test_every_control_has_something_to_switch():
    text = render_report(result(), [signed_picture(), signed_picture("change")])
    names = {box["name"] for box in Page(text).of("input")}
    assert names == {"opacity", "outline", "higher", "lower", "raised", "lowered"}
    for name in names - {"opacity"}:
        assert f".no-{name} " in text
    assert ".overlay, .against { opacity: var(--overlay) }" in text
    alone = Page(render_report(result(), [picture()]))
    assert {box["name"] for box in alone.of("input")} == {"opacity", "outline"}
    assert "lower risk" not in alone.text()


def slice_labels(page):
    return [svg["aria-label"] for svg in page.of("svg") if "slice" in svg.get("class", "")]


def test_pictures_with_both_signs_say_so_in_alt_text_caption_and_legend():
    page = Page(render_report(result(), [signed_picture()]))
    for label in slice_labels(page):
        assert "with the map of evidence for a higher risk on top; that for a lower risk can be switched on" in label
    text = page.text()
    assert "strongest evidence for a higher risk in this exam, 0.90, at L 36.0 mm, P 28.0 mm, S 17.0 mm" in text
    assert "The strongest evidence for a lower risk, 0.40, lies at L 39.0 mm, P 27.0 mm, S 14.0 mm." in text
    scales = [svg["aria-label"] for svg in page.of("svg", "scale")]
    assert scales == [
        "Colour scale from 0 to 1: evidence for a higher risk",
        "Colour scale from 0 to 1: evidence for a lower risk, where switched on",
    ]
    assert "share of the patient's strongest evidence of either kind, 0-1; below 0.15 not drawn" in text


def test_a_missing_or_faint_sign_is_said_to_be_so():
    none = render_report(result(), [signed_picture(higher=0.0)])
    assert "There is no evidence for a higher risk in this exam: the slices go through the centre of the field" in none
    assert "There is no evidence for a lower risk in this exam." in render_report(result(), [signed_picture(lower=0)])
    assert "0.10 (below 0.15: not drawn)" in render_report(result(), [signed_picture(higher=0.1)])
    still = render_report(result(), [signed_picture("change", higher=0.0, lower=0.0)])
    assert "Nothing raised or lowered the output in this exam: the slices go through the centre of the field" in still


def test_a_picture_of_change_stands_with_what_changed_and_names_the_exam_before():
    page = Page(render_report(result(changes=[CHANGE]), [signed_picture(), signed_picture("change")]))
    kinds = [attrs["class"] for tag, attrs in page.tags if tag == "section" and "exam " in attrs.get("class", "")]
    assert kinds == ["exam change", "exam evidence"]
    text = page.text()
    assert text.index("What changed since the last exam") < text.index("compared with the exam of 2022-04-20")
    assert text.index("compared with the exam of 2022-04-20") < text.index("Pictures")
    labels = slice_labels(page)
    raised = "with what raised and what lowered the output compared with the exam of 2022-04-20 on top"
    assert [raised in label for label in labels] == [True] * 3 + [False] * 3
    assert [svg["aria-label"] for svg in page.of("svg", "scale")][:2] == [
        "Colour scale from 0 to 1: raised the output compared with the exam of 2022-04-20",
        "Colour scale from 0 to 1: lowered the output compared with the exam of 2022-04-20",
    ]
    assert "share of the patient's largest change, 0-1; below 0.15 not drawn" in text
    assert "The exams are not deformed onto each other" in text
    assert all("checked" in box for box in page.of("input") if box["name"] in ("raised", "lowered"))


# Where the slices are cut


def test_the_slices_go_through_the_peak_of_the_map():
    image = np.random.default_rng(3).random((6, 7, 8)).astype(np.float32)
    saliency = np.zeros_like(image)
    saliency[4, 2, 5], saliency[1, 1, 1] = 0.9, 0.5
    shown = picture(image, saliency)
    assert slices.cut_voxel(shown) == (4, 2, 5)
    low, high = colours.window(image)
    expected = [
        colours.gray(image[::-1, ::-1, 5].T, low, high),
        colours.gray(image[::-1, 2, ::-1].T, low, high),
        colours.gray(image[4, ::-1, ::-1].T, low, high),
    ]
    page = Page(render_report(result(), [shown]))
    assert all(np.array_equal(a, b) for a, b in zip(page.pictures(), expected, strict=True))
    assert "strongest evidence in this exam, 0.90" in page.text()


def test_of_a_plateau_the_middle_is_cut():
    saliency = np.zeros((9, 9, 9), np.float32)
    saliency[2:7, 3:6, 4:7] = 1.0
    assert slices.cut_voxel(picture(saliency, saliency)) == (4, 4, 5)


@pytest.mark.parametrize("saliency", [None, np.zeros((8, 9, 7), np.float32), np.full((8, 9, 7), np.nan, np.float32)])
def test_without_evidence_the_slices_go_through_the_centre_of_the_field(saliency):
    corners = box((-40 + 2, -30 + 5, 12 + 1), (-40 + 4, -30 + 7, 12 + 5))  # voxels 2-4, 5-7, 1-5
    shown = picture(saliency=saliency, corners=corners)
    assert slices.cut_voxel(shown) == (3, 6, 3)
    page = Page(render_report(result(), [shown]))
    assert "through the centre of the field read" in page.text()
    assert len(page.pictures("overlay")) == (0 if saliency is None else 3)
    assert not any(drawn[..., 3].any() for drawn in page.pictures("overlay"))


def test_a_field_outside_the_image_is_said_to_be_outside():
    shown = picture(corners=box((100, 100, 100), (110, 110, 110)))
    assert slices.cut_voxel(shown) == (7, 8, 6)
    page = Page(render_report(result(), [shown]))
    assert page.text().count("outside the field read") == 3
    assert not page.of("polygon")


def test_a_field_around_the_whole_slice_is_said_to_be_so():
    around = Page(render_report(result(), [picture(corners=box((-50, -50, 0), (50, 50, 50)))])).text()
    within = Page(render_report(result(), [picture()])).text()
    assert around.count("all of it in the field read") == 3
    assert "all of it in the field read" not in within


def test_evidence_below_the_threshold_is_said_not_to_be_drawn():
    saliency = np.zeros((8, 9, 7), np.float32)
    saliency[2, 2, 2] = 0.1
    assert "0.10 (below 0.15: nothing is drawn)" in render_report(result(), [picture(saliency=saliency)])


# The outline of the field


def inside_polygon(points, polygon):
    """Which points lie in a polygon, by crossings of a ray: independent of its order and convexity."""
    inside = np.zeros(len(points), dtype=bool)
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if y0 != y1:
            crosses = (y0 > points[:, 1]) != (y1 > points[:, 1])
            inside ^= crosses & (points[:, 0] < x0 + (points[:, 1] - y0) * (x1 - x0) / (y1 - y0))
    return inside


@pytest.mark.parametrize("normal", range(3))
@pytest.mark.parametrize("seed", range(8))
def test_the_outline_holds_exactly_the_points_of_the_plane_that_are_in_the_box(seed, normal):
    rng = np.random.default_rng(seed)
    turn, size = rotation(seed + 100), rng.uniform(6, 16, 3)
    corners = (np.array(CUBE) - 0.5) * size @ turn.T + (10, 11, 12)
    index = round(rng.uniform(6, 16))
    polygon = slices.section(corners, normal, index)
    in_plane = [axis for axis in range(3) if axis != normal]
    points = np.full((4000, 3), float(index))
    points[:, in_plane] = rng.uniform(-5, 30, (4000, 2))
    expected = (np.abs((points - (10, 11, 12)) @ turn) <= size / 2).all(axis=1)
    if not expected.any():
        assert not inside_polygon(points[:, in_plane], polygon[:, in_plane]).any()
        return
    assert np.allclose(polygon[:, normal], index)
    assert np.array_equal(inside_polygon(points[:, in_plane], polygon[:, in_plane]), expected)


def test_a_plane_along_a_face_of_the_box_cuts_out_that_face_and_one_beside_it_nothing():
    corners = box((1, 2, 3), (4, 6, 8))
    assert sorted(map(tuple, slices.section(corners, 2, 3.0))) == [(1, 2, 3), (1, 6, 3), (4, 2, 3), (4, 6, 3)]
    assert slices.section(corners, 2, 2.9).shape == (0, 3)


def test_the_outline_is_drawn_at_its_place_in_millimetres():
    # Voxels of 2 x 1.5 x 4 mm; the field's faces lie half way between voxel centres and at the image's right end.
    image = np.ones((10, 12, 14), np.float32)
    affine = ras_affine((2.0, 1.5, 4.0))
    low, high = (affine[:3, :3] @ corner + affine[:3, 3] for corner in ((3.5, 2.5, 4.5), (9.5, 7.5, 9.5)))
    text = render_report(result(), [picture(image, affine=affine, corners=box(low, high))])
    points = re.findall(r'<polygon points="([^"]*)"', text)
    found = [sorted(tuple(map(float, point.split(","))) for point in polygon.split()) for polygon in points]
    assert found[0] == [(0.0, 6.0), (0.0, 13.5), (12.0, 6.0), (12.0, 13.5)]
    assert found[1] == [(0.0, 16.0), (0.0, 36.0), (12.0, 16.0), (12.0, 36.0)]
    assert found[2] == [(6.0, 16.0), (6.0, 36.0), (13.5, 16.0), (13.5, 36.0)]


# The page


def test_what_comes_from_outside_is_never_taken_for_html():
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
    shown = result(
        patient_id=evil,
        bundle={"name": evil, "version": evil, "sha256": evil, "demonstration": False, "calibrated": True},
        exams=[exam("2022-04-20", exam_id="a"), exam("2023-01-11", exam_id=evil)],
        warnings=[{"code": evil, "message": evil, "exam_id": evil}, {"code": "demonstration", "message": evil}],
        software={evil: evil},
        seconds={evil: 1.0},
        explanation={"method": evil, "description": evil, "key": evil, "check": {**CHECK, "cohort": evil}},
        changes=[{**CHANGE, "from": evil, "to": evil}],
    )
    ones, corners = np.ones((3, 3, 3), np.float32), box((-40, -30, 12), (-39, -29, 13))
    shown_pictures = [
        ExamPicture(evil, evil, ones, None, ras_affine(), corners),
        ExamPicture(evil, evil, ones, ones, ras_affine(), corners, against=ones),
        ExamPicture(evil, evil, ones, ones, ras_affine(), corners, against=ones, kind="change"),
    ]
    text = render_report(shown, shown_pictures)
    page = Page(text)
    assert text.count("<script>") == 1
    assert "<img" not in text
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert page.text().count("alert(1)") >= 24  # it is shown, as text


def test_the_page_says_at_its_top_and_end_that_it_is_for_research_only():
    page = Page(render_report(result(), []))
    shown = [text for tag, _, text in page.texts if tag not in ("style", "script", "title")]
    assert shown[0] == RESEARCH_ONLY
    assert shown[-1] == RESEARCH_ONLY


def test_the_risk_is_large_with_its_range_and_horizon():
    page = Page(render_report(result(), []))
    assert [text for _, css, text in page.texts if css == "figure"] == ["12.3%"]
    assert "of a diagnosis of hepatocellular carcinoma within 12 months after 2023-01-11" in page.text()
    assert "10.0% to 19.0%" in page.text()
    assert not page.of("div", "demonstration")


def test_a_demonstration_has_no_large_figure_and_says_that_it_has_no_meaning():
    page = Page(render_report(demonstration(), []))
    assert not page.of("span", "figure")
    assert not page.of("div", "risk")
    assert len(page.of("div", "demonstration")) == 1
    assert "This result has no meaning for this patient" in page.text()
    assert ("td", None, "12.3%") in page.texts
    assert "ensemble 12.3%" not in page.text()


def test_warnings_come_before_the_result_and_again_at_their_exam():
    warnings = [{"code": "b_value", "message": "b 50 taken for 0", "exam_id": "2023-01-11"}]
    text = Page(render_report(result(warnings=warnings), [picture()])).text()
    assert text.count("b 50 taken for 0") == 2
    assert text.index("b 50 taken for 0") < text.index("12.3%")
    assert "No warnings about the data." in Page(render_report(result(), [])).text()


def test_the_page_loads_nothing_and_lets_no_other_script_run():
    text = render_report(result(changes=[CHANGE]), [signed_picture(), signed_picture("change")])
    page = Page(text)
    assert not re.search(r"https?:|url\(|@import", text)
    for tag, attrs in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        assert "src" not in attrs
        assert attrs.get("href", "data:image/png;base64,").startswith("data:image/png;base64,")
    policy = next(meta["content"] for meta in page.of("meta") if "content-security" in str(meta).lower())
    assert policy.startswith("default-src 'none'; img-src data:;")
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.endswith(f"script-src 'sha256-{digest}'")


def test_the_pictures_say_in_words_what_they_show():
    page = Page(render_report(result(), [picture()]))
    labels = [svg["aria-label"] for svg in page.of("svg") if "slice" in svg.get("class", "")]
    assert len(labels) == 3
    for label, plane in zip(labels, PLANES, strict=True):
        assert f"Exam 2023-01-11 of 2023-01-11, DWI_b800, {plane} slice at" in label
    assert all(svg.get("role") == "img" for svg in page.of("svg") if "aria-label" in svg)


def test_the_table_says_what_is_not_known():
    shown = result()
    shown["exams"][0]["field"] = {"box": {}, "liver_fraction": 0.9999, "filled_fraction": 0.001}
    cells = [text for tag, _, text in Page(render_report(shown, [])).texts if tag == "td"]
    assert "not known" in cells
    assert {"99%", "1%", "88%", "8.1%"} <= set(cells)


def test_a_single_exam_without_history_makes_a_page():
    shown = result(exams=[exam("2023-01-11", attention=1.0, risk_without=None)], trajectory=RESULT["trajectory"][1:])
    page = Page(render_report(shown, [picture()]))
    assert len(page.of("circle", "point")) == 2  # the key's and the exam's
    assert "1 exam," in page.text()


def test_provenance_names_bundle_software_method_and_times():
    text = Page(render_report(result(), [])).text()
    for part in ("tiny 1.2", "ab" * 32, "torch 2.5", "Gradients of the risk.", "read 1.2"):
        assert part in text
    assert "Explanation" not in Page(render_report(result(explanation=None), [])).text()


def test_a_picture_of_an_unknown_exam_is_an_error():
    with pytest.raises(ValueError, match="2001-01-01"):
        render_report(result(), [picture(exam_id="2001-01-01")])


def test_a_map_on_another_grid_is_an_error():
    with pytest.raises(ValueError, match="not on the image's grid"):
        picture(saliency=np.zeros((2, 2, 2), np.float32))


def test_a_report_is_written_whole_also_with_names_that_utf8_cannot_hold(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    write_report(path, result(patient_id="Müller \udcff"), [])
    assert "Müller &#56575;" in path.read_text("utf-8")
    with pytest.raises(KeyError):
        write_report(path, {"exams": []}, [])
    assert "Müller" in path.read_text("utf-8")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


# What changed, and how far the map can be believed


def test_what_changed_is_a_sentence_about_the_latest_pair_and_a_table_of_all():
    earlier = {
        **CHANGE,
        "from": "2021-01-01",
        "to": "2022-04-20",
        "logit": -0.004,
        "by_dates": 0.5,
        "by_picture": -0.504,
    }
    text = Page(render_report(result(changes=[CHANGE, earlier]), [])).text()
    assert (
        "The estimated risk within 12 months rose from 5.0% as of 2022-04-20 to 12.3% as of 2023-01-11; the change is "
        "+0.95 units of the networks' output (logit), made up of −0.20 from the time that passed with an unchanged picture and "
        "+1.15 from what the new exam shows differently."
    ) in text
    assert (
        "2021-01-01 2022-04-20 5.0% 12.3% 0.00 +0.50 −0.50 2022-04-20 2023-01-11 5.0% 12.3% +0.95 −0.20 +1.15" in text
    )


@pytest.mark.parametrize(
    ("risks", "words"),
    [((0.2, 0.1), "fell from 20.0% as of"), ((0.1, 0.10001), "stayed at 10.0% from 2022-04-20 to 2023-01-11")],
)
def test_a_risk_that_fell_or_stayed_is_said_to_have_done_so(risks, words):
    change = {**CHANGE, "risk_from": risks[0], "risk_to": risks[1]}
    assert f"The estimated risk within 12 months {words}" in Page(render_report(result(changes=[change]), [])).text()


def test_a_change_of_what_is_not_calibrated_is_not_called_one_of_the_risk():
    text = Page(render_report(result(bundle={**RESULT["bundle"], "calibrated": False}, changes=[CHANGE]), [])).text()
    assert "The networks' mean output, not calibrated, rose from 5.0%" in text


def test_a_demonstration_presents_no_change_as_a_finding():
    text = Page(render_report(demonstration(changes=[CHANGE]), [signed_picture("change")])).text()
    assert "what they say about a change has no meaning for this patient" in text
    assert "rose from" not in text
    assert "+1.15" in text
    assert "rose from" in Page(render_report(demonstration(changes=[CHANGE], phantom=True), [])).text()


def test_with_one_exam_there_is_nothing_to_compare():
    lone = result(exams=[exam("2023-01-11", risk_without=None)], trajectory=RESULT["trajectory"][1:])
    for changes in ({}, {"changes": None}, {"changes": []}):
        text = Page(render_report(lone | changes, [])).text()
        assert "There is only one exam, so there is nothing to compare." in text


@pytest.mark.parametrize("nothing", [{}, {"changes": None}, {"changes": []}])
def test_a_result_without_the_new_fields_makes_the_page_it_made_before(nothing):
    saliency = np.random.default_rng(2).random((8, 9, 7)).astype(np.float32)
    page = Page(render_report(result(**nothing), [picture(saliency=saliency)]))
    heads = [
        text for tag, _, text in page.texts if tag == "th" and text in ("Attention", "Cube filled", "Peak of the map")
    ]
    assert heads == ["Attention", "Cube filled"]
    text = page.text()
    assert "What changed" not in text
    assert "gradient-weighted" not in text
    assert "share of the patient's strongest evidence, 0-1; below 0.15 not drawn" in text
    assert all(label.endswith(", with the map of evidence on top") for label in slice_labels(page))
    assert "How faithful this map is has not been tested for this bundle." in text
    assert not {"Agreement", "Resolution", "Cost"} & set(text.split())


def test_the_check_of_the_map_is_quoted_before_the_pictures():
    shown = result(explanation=explained(check=CHECK, agreement=0.52, resolution_mm=18, passes=0.4))
    text = Page(render_report(shown, [signed_picture()])).text()
    assert (
        "On the phantom, this map's peak in the latest exam lay within 10 mm of the lesion in 38 of 40 patients who were "
        "diagnosed (inside it in 19); a random "
        "point in the liver would in 5%."
    ) in text
    assert text.index("How far the map can be believed") < text.index("Pictures")
    assert "has not been tested" not in text
    assert "forty phantoms, seed 7" in text
    assert "Agreement of the 3 members their maps agree in part (mean correlation 0.52)" in text
    assert "cells of 18 mm" in text
    assert "0.4 forward passes of the backbone per exam and member" in text
    real = result(explanation=explained(check={**CHECK, "phantom": False, "random": 0.0001}))
    text = Page(render_report(real, [])).text()
    assert "On patients with known lesions, this map's peak" in text
    assert "would in 1%." in text
    assert "The phantom" not in text


@pytest.mark.parametrize(
    ("agreement", "words"),
    [
        *((1.0, "agree closely"), (0.7, "agree closely"), (0.69, "agree in part"), (0.2, "agree little")),
        *((0.0, "do not agree"), (-0.3, "contradict each other (mean correlation −0.30)")),
    ],
)
def test_how_far_the_members_agree_is_said_in_words(agreement, words):
    shown = result(explanation=explained(agreement=agreement))
    assert f"their maps {words}" in Page(render_report(shown, [])).text()


def test_without_a_map_nothing_is_said_of_its_faith_and_a_demonstration_map_has_no_meaning():
    assert "can be believed" not in render_report(result(explanation=None), [])
    tested = demonstration(explanation=explained(check=CHECK))
    assert "the map has no meaning for this patient" in render_report(tested, [])
    assert "the map has no meaning" not in render_report(tested | {"phantom": True}, [])


def test_the_table_holds_both_attentions_and_the_peaks_where_any_exam_has_them():
    peak = {"mm": [-34.14, 12.0, 5.06], "value": 0.831, "members": 2}
    shown = result(exams=[exam("2022-04-20", attention_gradient=0.25, peak=None), exam("2023-01-11", peak=peak)])
    page = Page(render_report(shown, []))
    heads = [text for tag, _, text in page.texts if tag == "th"]
    assert {"Attention", "Attention, gradient-weighted", "Peak of the map"} <= set(heads)
    text = page.text()
    assert "L 34.1 mm, A 12.0 mm, S 5.1 mm 0.83, positive in 2 of 3 members" in text
    assert "2022-04-20 2022-04-20 3.0 0.50 0.25 8.1% not known 88% –" in text
    assert "gradient-weighted attention counts this reading only as far as it raises the output" in text


# The risk within each horizon

BY_HORIZON = [
    {"months": 6.0, "risk": 0.0312, "risk_uncalibrated": 0.04, "low": 0.019, "high": 0.052, "average": 0.06},
    {"months": 12.0, "risk": 0.1234, "risk_uncalibrated": 0.2345, "low": 0.1, "high": 0.19, "average": 0.101},
    {"months": 18.0, "risk": 0.1301, "risk_uncalibrated": 0.24, "low": 0.11, "high": 0.2, "average": 0.138},
    {"months": 36.0, "risk": 0.218, "risk_uncalibrated": 0.3, "low": 0.141, "high": 0.294, "average": 0.223},
]


def horizon_chart(shown):
    """The drawing, read as XML, and what it says in words."""
    drawn = re.search(r'<div class="horizons"><figure>(<svg.*?</svg>)', render_report(shown, []))[1]
    root = ElementTree.fromstring(drawn)
    return root, root.get("aria-label")


def drawn_path(root, css):
    """The points of a line, in what the axes show: months and risk."""
    (line,) = [path for path in root.iter("path") if path.get("class") == css]
    points = np.array([list(map(float, p.split())) for p in line.get("d").strip("MZ").split("L")])
    ticks = {text.text: text for text in root.iter("text") if (text.get("class") or "").startswith("tick")}
    start, end = (float(ticks[name].get("x")) for name in ("0", "36"))
    zero, top = (float(ticks[name].get("y")) - 4 for name in ("0%", "40%"))
    return np.column_stack([36 * (points[:, 0] - start) / (end - start), 0.4 * (points[:, 1] - zero) / (top - zero)])


def test_the_risk_by_horizon_is_a_curve_from_0_with_the_members_and_the_cohort():
    root, _ = horizon_chart(result(risk_by_horizon=BY_HORIZON))
    for css, key in (("line", "risk"), ("now", "average")):
        drawn = drawn_path(root, css)
        assert drawn[:, 0] == pytest.approx([0, *(at["months"] for at in BY_HORIZON)], abs=0.01)
        assert drawn[:, 1] == pytest.approx([0, *(at[key] for at in BY_HORIZON)], abs=2e-4)
    band = drawn_path(root, "band")
    upper, lower = band[:5], band[:4:-1]
    assert upper[:, 0] == pytest.approx(lower[:, 0])
    assert upper[:, 1] == pytest.approx([0, *(at["high"] for at in BY_HORIZON)], abs=2e-4)
    assert lower[:, 1] == pytest.approx([0, *(at["low"] for at in BY_HORIZON)], abs=2e-4)


def test_table_labels_and_words_say_the_numbers_of_the_result():
    shown = result(risk_by_horizon=BY_HORIZON)
    root, words = horizon_chart(shown)
    written = [text.text for text in root.iter("text")]
    text = Page(render_report(shown, [])).text()
    for at in BY_HORIZON:
        risk, low, high, average = (percent(at[key]) for key in ("risk", "low", "high", "average"))
        assert risk in written
        assert f"{at['months']:g}" in written
        main = ", main" if at["months"] == 12 else ""
        assert f"{at['months']:g} months{main} {risk} {low} to {high} {average}" in text
        main = " (main horizon)" if main else ""
        assert (
            f"within {at['months']:g} months{main} {risk}, members {low} to {high}, training cohort {average}" in words
        )
    assert written.count("main horizon") == 1
    assert "Months after 2023-01-11" in written
    assert "Members: smallest to largest of 3. Cohort: the observed risk over all exams" in text
    assert "ensemble" in text
    assert "smallest to largest of 3 members" in text


def test_the_trajectory_says_which_horizon_it_is_of():
    text = Page(render_report(result(risk_by_horizon=BY_HORIZON), [])).text()
    assert "Horizon: 12 months." in text[text.index("Exams over time") :]


@pytest.mark.parametrize("entries", [{}, {"risk_by_horizon": BY_HORIZON[1:2]}])
def test_a_single_horizon_has_no_curve(entries):
    page = render_report(result(**entries), [])
    assert "by horizon" not in page
    assert 'class="horizons"' not in page
    assert "within 12 months after 2023-01-11" in page
    assert page == render_report(result(), [])


def test_a_cohort_that_is_not_known_and_a_range_of_one_network_are_left_out():
    unknown = [at | {"average": None} for at in BY_HORIZON]
    root, words = horizon_chart(result(risk_by_horizon=unknown, members=[0.1234]))
    assert not [path for path in root.iter("path") if path.get("class") in ("band", "now")]
    assert "cohort" not in words
    text = Page(render_report(result(risk_by_horizon=unknown, members=[0.1234]), [])).text()
    assert "Horizon Risk 6 months 3.1% 12 months, main 12.3%" in text
    assert "Cohort" not in text
    assert "Members" not in text


def test_an_output_without_calibration_or_meaning_is_no_risk_by_horizon():
    raw = result(bundle={**RESULT["bundle"], "calibrated": False}, risk_by_horizon=BY_HORIZON)
    text = Page(render_report(raw, [])).text()
    assert "Network output (not calibrated) by horizon" in text
    assert "Risk by horizon" not in text
    shown = demonstration(risk_by_horizon=BY_HORIZON)
    root, words = horizon_chart(shown)
    text = Page(render_report(shown, [])).text()
    assert "Network output by horizon Demonstration: no meaning for this patient." in text
    assert "Risk by horizon" not in text
    assert words.startswith("Network output by horizon: no meaning for this patient; within 6 months")
    assert not [text.text for text in root.iter("text") if "." in text.text]  # no value stands at a point
    assert "Risk by horizon" in render_report(shown | {"phantom": True}, [])


def test_labels_of_close_horizons_do_not_overlap_and_the_main_one_is_kept():
    months = (1.0, 2.0, 3.0, 12.0, 60.0)
    close = [{**BY_HORIZON[0], "months": m, "risk": 0.01 * m, "high": 0.011 * m, "low": 0.009 * m} for m in months]
    for main in months:
        root, words = horizon_chart(result(risk_by_horizon=close, horizon_months=main))
        ticks = [t for t in root.iter("text") if (t.get("class") or "").startswith("tick") and "%" not in t.text]
        assert (np.diff([float(t.get("x")) for t in ticks][1:]) >= 46).all()
        assert f"{main:g}" in [t.text for t in ticks]
        assert len(list(root.iter("circle"))) == 5
        assert words.count("within") == 5


def test_a_lone_exam_has_the_curve():
    lone = [exam("2023-01-11", attention=1.0, risk_without=None, months_before_landmark=0.0)]
    shown = result(exams=lone, trajectory=RESULT["trajectory"][1:], risk_by_horizon=BY_HORIZON)
    assert drawn_path(horizon_chart(shown)[0], "line").shape == (5, 2)


# Numbers and time


@pytest.mark.parametrize(
    ("share", "written"),
    [
        *((0.1234, "12.3%"), (0.0, "0.0%"), (1.0, "100.0%"), (None, "–")),
        *((0.0001, "&lt;0.1%"), (0.99999, "&gt;99.9%")),
    ],
)
def test_percentages_are_never_falsely_certain(share, written):
    assert percent(share) == written


def test_labels_keep_their_distance_and_their_order_and_move_only_if_they_must():
    assert timeline.spread([10, 80, 200], 50, 0, 300) == [10, 80, 200]
    assert timeline.spread([100, 100], 50, 0, 300) == [75, 125]
    assert timeline.spread([0, 0, 300], 50, 0, 300) == [0, 50, 300]
    crowded = timeline.spread(sorted(np.random.default_rng(5).uniform(0, 1000, 15)), 50, 0, 1000)
    assert (np.diff(crowded) >= 50 - 1e-9).all()
    assert crowded[0] >= 0
    assert crowded[-1] <= 1000 + 1e-9
    assert timeline.spread([5, 5, 5], 50, 0, 60) == [0, 30, 60]


@pytest.mark.parametrize("count", [1, 2, 15])
def test_exams_stand_at_their_dates_in_proportion_to_time(count):
    days = [0, 3, *range(400, 6000, 400)][:count]
    dates = [str(np.datetime64("2010-05-06") + day) for day in days]
    shown = result(
        exams=[exam(date, attention=1 / count) for date in dates],
        trajectory=[{"as_of": date, "risk": 0.01 * (n + 1)} for n, date in enumerate(dates)],
        landmark=dates[-1],
        risk=0.01 * count,
    )
    drawn = timeline.timeline(shown)
    points = [tuple(map(float, p)) for p in re.findall(r'class="point" cx="([\d.]+)" cy="([\d.]+)"', drawn)]
    assert len(points) == len(re.findall('class="attention"', drawn)) == count
    if count > 1:
        x = np.array(points)[:, 0]
        assert np.allclose((x - x[0]) / (x[-1] - x[0]), np.array(days) / days[-1], atol=2e-3)
        assert (np.diff(np.array(points)[:, 1]) < 0).all()  # rising risk, rising line
    columns = [float(x) for x in re.findall(r'class="date" x="([\d.]+)"', drawn)][::2]
    assert (np.diff(columns) >= 49.8).all()
    assert 1 <= len(re.findall(r'class="tick"[^>]*middle', drawn)) <= 10


def test_members_of_equal_risk_are_stacked_not_hidden():
    drawn = timeline.dot_strip([0.1, 0.1, 0.1, 0.4], 0.2)
    dots = re.findall(r'class="dot" cx="([\d.]+)" cy="([\d.]+)"', drawn)
    assert len(set(dots)) == 4
    assert len({x for x, _ in dots}) == 2


def test_the_ensemble_s_label_stays_above_the_dots_however_many_are_stacked():
    drawn = timeline.dot_strip([0.2] * 20, 0.2)
    label = float(re.search(r'y="([\d.]+)" text-anchor="middle">ensemble', drawn)[1])
    dots = [float(y) for y in re.findall(r'class="dot" cx="[\d.]+" cy="([\d.]+)"', drawn)]
    height = float(re.search(r'viewBox="0 0 1000 ([\d.]+)"', drawn)[1])
    assert min(dots) - 6 >= label
    assert max(dots) + 6 <= height


def test_what_is_not_calibrated_is_not_called_a_risk_and_one_network_has_no_spread():
    bundle = {**RESULT["bundle"], "calibrated": False}
    page = render_report(result(bundle=bundle, members=[0.5], horizon_months=12.0), [])
    assert "network output, not calibrated" in page
    assert "estimated risk" not in page
    assert "Risk, calibrated" not in page
    assert "1 members" not in page
    assert "within 12 months" in page
    assert "estimated risk" in render_report(RESULT, [])
