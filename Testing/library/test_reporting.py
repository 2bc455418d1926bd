from __future__ import annotations

import base64
import copy
import itertools
import re
import struct
import zlib
from html.parser import HTMLParser

import numpy as np
import pytest

from HCCNetLib.reporting import ExamPicture, colours, png, render_report, slices, timeline, write_report
from HCCNetLib.reporting.numbers import percent

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


def picture(image=None, saliency=None, affine=None, corners=None, exam_id="2023-01-11"):
    image = np.random.default_rng(0).random((8, 9, 7)).astype(np.float32) if image is None else image
    affine = ras_affine() if affine is None else affine
    corners = box((-38, -28, 13), (-35, -25, 16)) if corners is None else corners
    return ExamPicture(exam_id, "DWI_b800", image, saliency, affine, corners)


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


def demonstration():
    return result(bundle={**RESULT["bundle"], "demonstration": True, "calibrated": True})


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
    drawn = colours.overlay(np.array([0, 0.29, 0.3, 0.6, 1, 7, np.nan], dtype=np.float32)).astype(int)
    assert drawn[[0, 1, 6], 3].tolist() == [0, 0, 0]
    ramp = colours.overlay(np.linspace(0.3, 1, 50, dtype=np.float32)).astype(float)
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
    saliency[2, 2, 2] = 0.2
    assert "0.20 (below 0.3: nothing is drawn)" in render_report(result(), [picture(saliency=saliency)])


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
        explanation={"method": evil, "description": evil},
    )
    shown_picture = ExamPicture(
        evil, evil, np.ones((3, 3, 3), np.float32), None, ras_affine(), box((-40, -30, 12), (-39, -29, 13))
    )
    text = render_report(shown, [shown_picture])
    page = Page(text)
    assert text.count("<script>") == 1
    assert "<img" not in text
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert page.text().count("alert(1)") >= 14  # it is shown, as text


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
    saliency = np.random.default_rng(2).random((8, 9, 7)).astype(np.float32)
    text = render_report(result(), [picture(saliency=saliency)])
    page = Page(text)
    assert not re.search(r"https?:|url\(|@import", text)
    for tag, attrs in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        assert "src" not in attrs
        assert attrs.get("href", "data:image/png;base64,").startswith("data:image/png;base64,")
    policy = next(meta["content"] for meta in page.of("meta") if "content-security" in str(meta).lower())
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "script-src 'sha256-" in policy


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


def test_what_is_not_calibrated_is_not_called_a_risk_and_one_network_has_no_spread():
    bundle = {**RESULT["bundle"], "calibrated": False}
    page = render_report(result(bundle=bundle, members=[0.5], horizon_months=12.0), [])
    assert "network output, not calibrated" in page
    assert "estimated risk" not in page
    assert "Risk, calibrated" not in page
    assert "1 members" not in page
    assert "within 12 months" in page
    assert "estimated risk" in render_report(RESULT, [])
