from __future__ import annotations

import copy
import csv
import io

import pytest

from HCCNetLib.reporting.tables import exam_table, patient_table

NOTICE = "Research software, not a medical device. Not for clinical use."
RESULT = {
    "patient_id": "P1",
    "phantom": False,
    "bundle": {"name": "tiny", "version": "1.2", "sha256": "ab" * 32, "demonstration": False, "calibrated": True},
    "landmark": "2023-01-11",
    "horizon_months": 12,
    "risk": 0.1 + 0.2,
    "risk_uncalibrated": 1e-17,
    "members": [0.1, 0.2, 0.3],
    "spread": {"sd": 0.04, "low": 0.1, "high": 0.19},
    "exams": [
        {
            "exam_id": "first",
            "date": "2022-04-20",
            "months_before_landmark": 8.739219712525667,
            "attention": None,
            "risk_without": 0.081,
            "saliency": None,
            "field": {"box": {}, "liver_fraction": None, "filled_fraction": 0.884},
        },
        {
            "exam_id": "second",
            "date": "2023-01-11",
            "months_before_landmark": 0.0,
            "attention": 0.75,
            "attention_gradient": 0.625,
            "risk_without": None,
            "saliency": {"all": "saliency/second.nii.gz"},
            "peak": {"mm": [-34.25, 12.0, -5.5], "value": 0.875, "members": 2},
            "field": {"box": {}, "liver_fraction": 0.5, "filled_fraction": 1.0},
        },
    ],
    "trajectory": [{"as_of": "2022-04-20", "risk": 0.05}, {"as_of": "2023-01-11", "risk": 0.3}],
    "warnings": [
        {"code": "b_value", "message": "b 50 taken for 0", "exam_id": "second"},
        {"code": "b_value", "message": "b 60 taken for 0", "exam_id": "second"},
        {"code": "gap", "message": "a long gap"},
    ],
    "explanation": {"method": "class activation", "description": "Gradients."},
    "notice": NOTICE,
}


def result(**changed):
    return copy.deepcopy(RESULT) | changed


def records(table):
    head, *lines = table
    assert all(len(line) == len(head) for line in lines)
    assert all(isinstance(cell, str) for line in table for cell in line)
    return [dict(zip(head, line, strict=True)) for line in lines]


def test_an_exam_s_row_holds_its_numbers_and_leaves_empty_what_is_not_known():
    first, second = records(exam_table(result()))
    assert first == {
        "patient_id": "P1",
        "exam_id": "first",
        "date": "2022-04-20",
        "attention": "",
        "attention_gradient": "",
        "months_before_landmark": "8.739219712525667",
        "risk_as_of": "0.05",
        "risk_without": "0.081",
        "peak_r_mm": "",
        "peak_a_mm": "",
        "peak_s_mm": "",
        "peak_value": "",
        "peak_members": "",
        "liver_fraction": "",
        "filled_fraction": "0.884",
        "saliency": "",
        "warnings": "0",
        "notice": NOTICE,
    }
    assert second == {
        "patient_id": "P1",
        "exam_id": "second",
        "date": "2023-01-11",
        "attention": "0.75",
        "months_before_landmark": "0.0",
        "risk_as_of": "0.3",
        "risk_without": "",
        "attention_gradient": "0.625",
        "peak_r_mm": "-34.25",
        "peak_a_mm": "12.0",
        "peak_s_mm": "-5.5",
        "peak_value": "0.875",
        "peak_members": "2",
        "liver_fraction": "0.5",
        "filled_fraction": "1.0",
        "saliency": "saliency/second.nii.gz",
        "warnings": "2",
        "notice": NOTICE,
    }


def test_the_columns_of_exams_keep_their_order():
    assert exam_table(result())[0] == [
        "patient_id",
        "exam_id",
        "date",
        "months_before_landmark",
        "attention",
        "attention_gradient",
        "risk_as_of",
        "risk_without",
        "peak_r_mm",
        "peak_a_mm",
        "peak_s_mm",
        "peak_value",
        "peak_members",
        "liver_fraction",
        "filled_fraction",
        "saliency",
        "warnings",
        "notice",
    ]


def test_a_patient_s_row_holds_what_the_result_says():
    table = patient_table([result(), result(patient_id="P2", phantom=True, explanation=None)])
    first, second = records(table)
    assert list(first) == table[0]
    assert first == {
        "patient_id": "P1",
        "landmark": "2023-01-11",
        "horizon_months": "12.0",
        "risk": "0.30000000000000004",
        "risk_uncalibrated": "1e-17",
        "calibrated": "true",
        "low": "0.1",
        "high": "0.19",
        "sd": "0.04",
        "members": "3",
        "exams": "2",
        "phantom": "false",
        "demonstration": "false",
        "bundle": "tiny 1.2",
        "bundle_sha256": "ab" * 32,
        "method": "class activation",
        "notice": NOTICE,
    }
    assert (second["patient_id"], second["phantom"], second["method"]) == ("P2", "true", "")


def test_numbers_read_back_to_the_same_bits():
    first = records(patient_table([result()]))[0]
    assert float(first["risk"]) == RESULT["risk"]
    assert float(first["risk_uncalibrated"]) == RESULT["risk_uncalibrated"]


def test_a_demonstration_on_a_real_patient_keeps_its_numbers_and_says_that_they_have_no_meaning():
    demonstration = {**RESULT["bundle"], "demonstration": True}
    real, phantom = result(bundle=demonstration), result(bundle=demonstration, phantom=True)
    for table in (patient_table([real]), exam_table(real)):
        for row in records(table):
            assert row["notice"] == f"Demonstration weights: this result has no meaning for this patient. {NOTICE}"
    assert records(patient_table([real]))[0]["risk"] == "0.30000000000000004"
    assert records(patient_table([phantom]))[0]["notice"] == NOTICE
    assert records(patient_table([phantom]))[0]["demonstration"] == "true"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_text_that_a_spreadsheet_could_run_gets_an_apostrophe_and_numbers_none(start):
    evil = f'{start}HYPERLINK("x")'
    shown = result(
        patient_id=evil,
        bundle={**RESULT["bundle"], "name": evil, "sha256": evil},
        explanation={"method": evil, "description": ""},
        notice=evil,
    )
    shown["exams"][1] |= {"exam_id": evil, "saliency": {"all": evil}}
    exams, patient = records(exam_table(shown)), records(patient_table([shown]))[0]
    for cell in (exams[1][name] for name in ("patient_id", "exam_id", "saliency", "notice")):
        assert cell == f"'{evil}"
    for cell in (patient[name] for name in ("patient_id", "bundle_sha256", "method", "notice")):
        assert cell == f"'{evil}"
    assert patient["bundle"] == f"'{evil} 1.2"
    assert exams[1]["peak_r_mm"] == "-34.25"


def test_an_identifier_that_only_contains_such_a_sign_is_left_as_it_is():
    assert records(patient_table([result(patient_id="RA-01=2 @x")]))[0]["patient_id"] == "RA-01=2 @x"


def test_maps_per_channel_are_named_by_their_channel():
    shown = result()
    shown["exams"][1]["saliency"] = {"DWI_b0": "saliency/a.nii.gz", "DWI_b800": "saliency/b.nii.gz"}
    assert records(exam_table(shown))[1]["saliency"] == "DWI_b0: saliency/a.nii.gz; DWI_b800: saliency/b.nii.gz"


def test_the_rows_survive_a_csv_file_whatever_an_identifier_holds():
    table = patient_table([result(patient_id='a,"b"\nc;é')])
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(table)
    assert list(csv.reader(io.StringIO(text.getvalue()))) == table


def by_horizon(**risks):
    """Entries of risk_by_horizon: m12=0.3 is a risk of 0.3 within 12 months, its members 0.1 below and above."""
    return [
        {"months": float(name[1:]), "risk": risk, "risk_uncalibrated": risk, "low": risk - 0.1, "high": risk + 0.1}
        | {"average": None}
        for name, risk in risks.items()
    ]


def test_several_horizons_have_columns_after_those_of_the_main_one():
    several = result(risk_by_horizon=by_horizon(m6=0.25, m12=RESULT["risk"], m24=0.5))
    table = patient_table([several], {"P9": "No exams."})
    assert table[0][8:19] == [
        *("sd", "risk_6_months", "low_6_months", "high_6_months", "risk_12_months", "low_12_months", "high_12_months"),
        *("risk_24_months", "low_24_months", "high_24_months", "members"),
    ]
    first, refused = records(table)
    for at in several["risk_by_horizon"]:
        for name in ("risk", "low", "high"):
            assert float(first[f"{name}_{at['months']:g}_months"]) == at[name]
    assert first["risk_12_months"] == first["risk"]
    assert refused == {**dict.fromkeys(table[0], ""), "patient_id": "P9", "notice": "Refused: No exams."}


def test_results_of_several_bundles_share_one_header():
    results = [
        result(risk_by_horizon=by_horizon(m12=0.3, m36=0.5)),
        result(risk_by_horizon=by_horizon(m6=0.2, m12=0.3)),
        result(),  # of a version that knew one horizon
    ]
    first, second, third = records(patient_table(results))
    risks = ["risk_6_months", "risk_12_months", "risk_36_months"]
    assert [name for name in first if name.startswith("risk_") and name != "risk_uncalibrated"] == risks
    assert [[row[name] for name in risks] for row in (first, second, third)] == [
        ["", "0.3", "0.5"],
        ["0.2", "0.3", ""],
        ["", "0.30000000000000004", ""],
    ]


def test_a_single_horizon_has_the_columns_it_had_before():
    single = result(risk_by_horizon=by_horizon(m12=RESULT["risk"]))
    assert patient_table([single]) == patient_table([result()])
    assert exam_table(single) == exam_table(result())


def test_the_latest_exam_s_row_holds_the_risk_within_each_horizon():
    table = exam_table(result(risk_by_horizon=by_horizon(m6=0.25, m12=0.3)))
    first, second = records(table)
    assert table[0][7:15] == [
        *("risk_without", "risk_6_months", "low_6_months", "high_6_months"),
        *("risk_12_months", "low_12_months", "high_12_months", "peak_r_mm"),
    ]
    assert {first[name] for name in table[0][8:14]} == {""}
    assert (second["risk_6_months"], second["low_6_months"], second["high_6_months"]) == ("0.25", "0.15", "0.35")


def test_no_patients_make_a_header_alone():
    assert len(patient_table([])) == 1


def test_a_refused_patient_has_a_row_that_says_why():
    header, row = patient_table([], {"=P9": "Exam 2020-01-01 lacks DWI_b0. Export it."})
    assert dict(zip(header, row, strict=True)) == {
        **dict.fromkeys(header, ""),
        "patient_id": "'=P9",
        "notice": "Refused: Exam 2020-01-01 lacks DWI_b0. Export it.",
    }
