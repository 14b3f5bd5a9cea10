"""Figures: what measures declare, the tables that they fill, and that no table is mostly empty."""

import json

import pytest

from tests.conftest import ROOT
from training.figures import COMMON_COLUMNS, MEASURES, Figure, all_tables, figures, measure_named, tables

RESULTS = {file.parent.name: json.loads(file.read_text()) for file in ROOT.glob("checkpoints/*/results.json")}


def test_every_measure_has_all_that_shared_code_asks_of_it():
    assert len(MEASURES) > 5
    for name in MEASURES:
        measure = measure_named(name)
        assert callable(measure.applies) and callable(measure.measure) and callable(measure.arguments), name
        assert isinstance(measure.TABLES, tuple) and isinstance(measure.PICTURES, dict), name
    with pytest.raises(ValueError, match="measure is 'beauty'; it must be one of"):
        measure_named("beauty")


def test_no_table_has_a_column_that_is_empty_for_most_of_its_rows():
    made = all_tables(ROOT / "checkpoints")
    assert {table["title"] for table in made} == {table.title for table in tables()}
    for table in made:
        assert table["columns"][: len(COMMON_COLUMNS)] == list(COMMON_COLUMNS) and table["rows"]
        assert all(len(row) == len(table["columns"]) for row in table["rows"])
        for column, cells in zip(table["columns"], zip(*table["rows"], strict=True), strict=True):
            assert sum(not cell for cell in cells) <= len(cells) / 2, f"{table['title']}: {column}"


def test_every_model_stands_in_a_table():
    shown = {row[0] for table in all_tables(ROOT / "checkpoints") for row in table["rows"]}
    assert shown == RESULTS.keys() and len(shown) > 30


def test_every_figure_of_a_table_was_measured_somewhere():
    for table in tables():
        for figure in table.figures:
            having = [found for found in RESULTS.values() if figure.key in found]
            assert having, f"{table.title}: {figure.key}"
            assert figure.error is None or all(figure.error in found for found in having), figure.key
            assert all(figure.cell(found) for found in having), figure.key


def test_figures_are_declared_once_and_described_where_a_card_lists_them():
    keys = [figure.key for figure in figures()]
    assert len(keys) == len(set(keys)) and [f.order for f in figures()] == sorted(f.order for f in figures())
    for table in tables():  # a figure that stands in two tables is the same in both
        assert all(figure in figures() for figure in table.figures)
    assert all(figure.description for figure in figures() if figure.metric_type)
    orders = [table.order for table in tables()]
    assert orders == sorted(set(orders))


def test_a_cell_shows_the_figure_with_its_error():
    plain, own = Figure("nats", "nats", error="error"), Figure("nats", "nats", show=lambda found: f"<{found['nats']}>")
    assert plain.cell({}) == own.cell({}) == ""
    assert plain.cell({"nats": 1.239}) == "1.24" and plain.cell({"nats": 1, "error": 0.5}) == "1.00 ± 0.50"
    sure = Figure("nats", "nats", interval="between", digits=1)
    assert sure.cell({"nats": 1, "between": [0.5, 2]}) == "1.0 [0.5, 2.0]" and sure.cell({"nats": 1}) == "1.0"
    assert own.cell({"nats": 2}) == "<2>" and Figure("nats", "nats", digits=0).cell({"nats": 12.6}) == "13"


def test_tables_of_a_folder_of_checkpoints(tmp_path):
    assert all_tables(tmp_path) == []
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "run.json").write_text('{"seconds": 90}')
    found = {"dataset": "a set", "parameters": 2_500_000, "reconstruction_error": 0.25}
    (tmp_path / "mine" / "results.json").write_text(json.dumps(found))
    (table,) = all_tables(tmp_path)
    assert table["rows"] == [["mine", "a set", "2.50 M", "1.5", "0.2500"]]
    assert table["notes"] == []


def test_rows_whose_order_is_in_dispute_are_marked_and_named_below(tmp_path):
    for name, first, second in (("a", 10, 100), ("b", 20, 50), ("c", 30, 120)):
        found = {"dataset": "a set", "parameters": 1, "precision": 1, "recall": 1, "density": 1, "coverage": 1}
        for prefix, value in (("", first), ("second_", second)):
            found |= {f"{prefix}frechet_distance": value, f"{prefix}frechet_distance_interval": [value - 1, value + 1]}
            found |= {f"{prefix}floor": {"frechet_distance": 2}}
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text('{"seconds": 90}')
        (tmp_path / name / "results.json").write_text(json.dumps(found))
    (table,) = [table for table in all_tables(tmp_path) if table["title"] == "Samples"]
    shown = [row[len(COMMON_COLUMNS)] for row in table["rows"]]
    assert shown[0] == "10.00 [9.00, 11.00] (2.00) †" and shown[1].endswith("†") and not shown[2].endswith("†")
    (note,) = table["notes"]
    assert note.startswith("† the two classifiers") and note.endswith(": a and b.")
