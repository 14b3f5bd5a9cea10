"""Declarations: what a recipe says of its family, run.json keeps, and shared code reads again."""

import json

import pytest

from training.declaration import UNDECLARED, Declaration, declaration_of
from training.layouts.choice import declaration_in

MINE = Declaration(
    family="sorcery", branch="flows", title="Sorcery", example="pipe()", points_example="pipe(points=True)",
    measures=("cost", "kept_rows"), unit="pair",
)  # fmt: skip


def test_run_json_gives_back_what_was_declared():
    record = json.loads(json.dumps({"family": "sorcery", "declaration": MINE.record()}))
    assert declaration_of(record) == MINE
    # what a newer version adds is left aside, and what has a default may be missing
    record["declaration"] |= {"colour": "green"}
    del record["declaration"]["layout"], record["declaration"]["task"]
    assert declaration_of(record) == MINE


def test_points_have_an_example_and_a_unit_of_their_own():
    points = MINE.of_points()
    assert (points.example, points.unit, points.family) == ("pipe(points=True)", "point", "sorcery")
    same = Declaration(family="a", branch="b", title="c", example="pipe()", measures=())
    assert same.of_points().example == "pipe()"


@pytest.mark.parametrize("record", [{}, {"declaration": None}, {"declaration": {"family": "sorcery"}}])
def test_a_record_without_a_declaration_says_what_to_do(record):
    with pytest.raises(ValueError, match=r"run\.json has no declaration of its family; .* resume the run"):
        declaration_of(record)


def test_a_folder_without_a_readable_record_declares_nothing(tmp_path):
    assert declaration_in(tmp_path) is None
    (tmp_path / "run.json").write_text('{"declaration": {')
    assert declaration_in(tmp_path) is None
    assert not UNDECLARED.measures and UNDECLARED.example


def test_a_run_keeps_the_declaration_of_its_recipe(tiny_run):
    from training.autoencoders.vae import DECLARATION

    assert declaration_in(tiny_run) == DECLARATION
