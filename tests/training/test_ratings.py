"""Tables of ratings: a row for each person, or one rating a line, as spreadsheets and MovieLens write them."""

import json
import math

import pytest
import torch

from training.classical.nmf import NMFOptions
from training.classical.nmf import main as nmf
from training.data.ratings import load_ratings
from training.options import UsageError

NAN = math.nan


def read(tmp_path, content: str | bytes, **options):
    file = tmp_path / "ratings.csv"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return load_ratings(NMFOptions(ratings=str(file), **options))


def holds(source, names: list[str], rows: list[list[float]]) -> bool:
    return source.item_names == names and torch.equal(
        source.train.columns["x"].nan_to_num(-1), torch.tensor(rows).nan_to_num(-1)
    )


def test_movielens_is_read_by_its_users_and_movies(tmp_path):
    lines = ["userId,movieId,rating,timestamp", "1,10,4.0,964982703", "1,2,3.5,964982704", "7,10,0.5,964982705", ""]
    source = read(tmp_path, "\n".join(lines))
    assert holds(source, ["2", "10"], [[3.5, 4.0], [NAN, 0.5]])
    assert source.report.found == ["3 ratings of 2 items by 2 people, one a line: userId, movieId, rating"]
    assert source.report.left_out == {"columns that are not used": ["timestamp"]}


def test_columns_are_named_where_they_are_called_otherwise(tmp_path):
    content = "when;who;what;how much\n1;Ann;Pie;3,5\n2;Bo;Pie;1\n3;Bo;Tart;5\n4;Bo;Tart;2\n5;;Tart;2\n"
    with pytest.raises(UsageError, match=r"--user_column whom: --ratings .* has when, who, what, how much"):
        read(tmp_path, content, user_column="whom")
    with pytest.raises(UsageError, match="--item_column is not given, and no column of when, who"):
        read(tmp_path, content, user_column="who")
    source = read(tmp_path, content, user_column="who", item_column="what", rating_column="how much")
    assert holds(source, ["Pie", "Tart"], [[3.5, NAN], [1, 2]])
    assert source.report.left_out == {
        "columns that are not used": ["when"],
        "lines without a user, an item or a rating": ["line 6"],
        "ratings that a later line gives again": ["line 4"],
    }
    with pytest.raises(UsageError, match="--user_column who: is a column of --ratings, which is not given"):
        NMFOptions(user_column="who")


def test_what_a_spreadsheet_saves_is_read(tmp_path):
    """A byte order mark, semicolons, decimal commas, blank lines, empty columns at the right."""
    content = "\ufeffwho;tea;milk;;\r\nAnn;1,5;;;\r\n;;;;\r\n\r\nBo;2;4;;\r\nCy;;;;\r\n"
    source = read(tmp_path, content)
    assert holds(source, ["tea", "milk"], [[1.5, NAN], [2, 4]])
    assert source.report.found == ["3 ratings of 2 items by 2 people, a row for each person"]
    assert source.report.left_out == {"blank lines": ["line 3", "line 4"], "people who rate nothing": ["line 6, Cy"]}


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_cells_are_parted_by_what_parts_the_first_line(mark, tmp_path):
    content = '"who, then",a,"b;c"\nAnn,1,2\n'.replace('"who, then"', f'"who{mark} then"')
    content = content.replace(",a,", f"{mark}a{mark}").replace("Ann,1,2", f"Ann{mark}1{mark}2")
    assert holds(read(tmp_path, content), ["a", "b;c"], [[1, 2]])


def test_numbers_may_name_what_is_rated(tmp_path):
    source = read(tmp_path, "userId,1,2\n5,4,\n6,3,2\n")
    assert holds(source, ["1", "2"], [[4, NAN], [3, 2]])


def test_what_no_one_rates_is_left_out_and_the_run_says_so(tmp_path, capsys):
    (tmp_path / "r.csv").write_text("who,tea,milk\nAnn,1,\nBo,2,\n")
    nmf(["--ratings", str(tmp_path / "r.csv"), "--num_components", "1", "--output_dir", str(tmp_path / "run")])
    assert "data: left out, items that no one rates: 1 (milk)" in capsys.readouterr().err
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["dataset"]["found"] == ["2 ratings of 1 items by 2 people, a row for each person"]
    assert record["dataset"]["left_out"] == [{"why": "items that no one rates", "count": 1, "names": ["milk"]}]
