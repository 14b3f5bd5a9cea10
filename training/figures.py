"""The one table of figures: what each is called, how it is shown, and in which tables it stands.

Figures are declared beside what measures them. The cards, the tables of all models and the gallery take them from here,
and name none. A measure is a module of training/measures/, whose docstring says what its figures mean, with

    TABLES                           its tables, with their figures
    PICTURES                         {file name: what a card says of this picture}
    arguments(parser)                adds its options to those of training.evaluate
    applies(pipe, source)            whether it can be asked of this pipeline, with these data
    measure(pipe, source, options)   ({key of results.json: figure}, {file name: PNG bytes})

A new measure is a new module there; a recipe names it in its declaration.
"""

import importlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from training.files import read_json
from training.options import UsageError


@dataclass(frozen=True)
class Figure:
    """A figure of results.json.

    Attributes:
        key: in results.json.
        title: of its column.
        description: on a card: what it is, with its unit; may name {unit} of the data, {extractor} and {second_extractor}.
        digits: behind the point.
        error: the key of its standard error.
        interval: the key of its 95 % interval, two numbers.
        metric_type: what the Hub calls such a metric; None where the card does not list the figure.
        order: among the figures of a card.
        show: results -> the cell, where it takes more than the number with its error or interval.
    """

    key: str
    title: str
    description: str = ""
    digits: int = 2
    error: str | None = None
    interval: str | None = None
    metric_type: str | None = None
    order: int = 100
    show: Callable[[dict], str] | None = None

    def cell(self, found: dict) -> str:
        """As a table shows it; empty where it was not measured."""
        if self.key not in found:
            return ""
        if self.show is not None:
            return self.show(found)
        text = f"{found[self.key]:.{self.digits}f}"
        if self.error in found:
            text += f" ± {found[self.error]:.{self.digits}f}"
        if self.interval in found:
            text += " [{:.{d}f}, {:.{d}f}]".format(*found[self.interval], d=self.digits)
        return text


@dataclass(frozen=True)
class Table:
    """A table of models.

    Attributes:
        title: above the table.
        figures: its columns, after those that all tables have.
        includes: results -> whether the model of these results has a row in it.
        order: among the tables.
        in_dispute: results of two rows -> whether the table's figures contradict each other on which is better. Such rows
            are marked, and named in a note below.
        dispute: what that note says.
    """

    title: str
    figures: tuple[Figure, ...]
    includes: Callable[[dict], bool]
    order: int
    in_dispute: Callable[[dict, dict], bool] | None = None
    dispute: str = ""


MEASURES = sorted(file.stem for file in Path(__file__).parent.glob("measures/*.py") if file.stem != "__init__")
DISPUTED = "†"
COMMON_COLUMNS = ("model", "data", "parameters", "minutes to train")


def measure_named(name: str):
    """A module of training/measures/.

    Raises:
        ValueError: there is none of this name.
    """
    if name not in MEASURES:
        raise ValueError(f"measure is {name!r}; it must be one of {', '.join(MEASURES)}")
    return importlib.import_module(f"training.measures.{name}")


def tables() -> list[Table]:
    """Every table that a measure declares, in their order."""
    found = [table for name in MEASURES for table in measure_named(name).TABLES]
    return sorted(found, key=lambda table: table.order)


def figures() -> list[Figure]:
    """Every figure once, in the order of a card."""
    by_key = {figure.key: figure for table in tables() for figure in table.figures}
    return sorted(by_key.values(), key=lambda figure: figure.order)


def all_tables(checkpoints: Path) -> list[dict]:
    """The filled tables of a folder of checkpoints: [{"title", "columns", "rows", "notes"}], models by name.

    A table without a row is left out. Cells are text, as many in each row as there are columns; notes are lines of text
    below the table.

    Raises:
        UsageError: a record is damaged, or holds a figure that cannot be shown.
    """
    records = []
    for file in sorted(checkpoints.glob("*/results.json")):
        records.append(
            (file, read_json(file, "file of results"), read_json(file.parent / "run.json", "record of a run"))
        )
    made = []
    for table in tables():
        shown = [record for record in records if table.includes(record[1])]
        if shown:
            columns = [*COMMON_COLUMNS, *(figure.title for figure in table.figures)]
            rows = [_row(table, *record) for record in shown]
            notes = _mark_disputes(table, rows, [found for _, found, _ in shown])
            made.append({"title": table.title, "columns": columns, "rows": rows, "notes": notes})
    return made


def _mark_disputes(table: Table, rows: list[list[str]], results: list[dict]) -> list[str]:
    """Mark the rows whose order the table's figures do not agree on; the note that names their pairs, [] for none."""
    if table.in_dispute is None:
        return []
    pairs = []
    for i, j in itertools.combinations(range(len(rows)), 2):
        try:
            if table.in_dispute(results[i], results[j]):
                pairs.append((i, j))
        except (TypeError, ValueError, LookupError) as error:
            both = f"{rows[i][0]} and {rows[j][0]}"
            raise UsageError(f"{table.title}: {both} cannot be compared ({type(error).__name__}: {error})") from None
    for i in {i for pair in pairs for i in pair}:
        rows[i][len(COMMON_COLUMNS)] += f" {DISPUTED}"
    named = "; ".join(f"{rows[i][0]} and {rows[j][0]}" for i, j in pairs)
    return [f"{DISPUTED} {table.dispute}: {named}."] if pairs else []


def _row(table: Table, file: Path, found: dict, run: dict) -> list[str]:
    """The cells of a model. Figures may be of any kind: what cannot be shown is told, with the file."""
    title = COMMON_COLUMNS[0]
    try:
        cells = [
            file.parent.name,
            f"{found['dataset']}",
            f"{found['parameters'] / 1e6:.2f} M",
            f"{run['seconds'] / 60:.1f}",
        ]
        for figure in table.figures:
            title = figure.title
            cells.append(figure.cell(found))
        return cells
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        raise UsageError(
            f"{file}: {table.title}: {title} cannot be shown ({type(error).__name__}: {error}); measure the model again by "
            f"python -m training.evaluate {file.parent}"
        ) from None
