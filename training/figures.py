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
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Figure:
    """A figure of results.json.

    Attributes:
        key: in results.json.
        title: of its column.
        description: on a card: what it is, with its unit; may name {unit} of the data and {extractor}.
        digits: behind the point.
        error: the key of its standard error.
        metric_type: what the Hub calls such a metric; None where the card does not list the figure.
        order: among the figures of a card.
        show: results -> the cell, where it takes more than the number and its error.
    """

    key: str
    title: str
    description: str = ""
    digits: int = 2
    error: str | None = None
    metric_type: str | None = None
    order: int = 100
    show: Callable[[dict], str] | None = None

    def cell(self, found: dict) -> str:
        """As a table shows it; empty where it was not measured."""
        if self.key not in found:
            return ""
        if self.show is not None:
            return self.show(found)
        error = f" ± {found[self.error]:.{self.digits}f}" if self.error in found else ""
        return f"{found[self.key]:.{self.digits}f}{error}"


@dataclass(frozen=True)
class Table:
    """A table of models.

    Attributes:
        title: above the table.
        figures: its columns, after those that all tables have.
        includes: results -> whether the model of these results has a row in it.
        order: among the tables.
    """

    title: str
    figures: tuple[Figure, ...]
    includes: Callable[[dict], bool]
    order: int


MEASURES = sorted(file.stem for file in Path(__file__).parent.glob("measures/*.py") if file.stem != "__init__")
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
    """The filled tables of a folder of checkpoints: [{"title", "columns", "rows"}], models by name.

    A table without a row is left out. Cells are text, as many in each row as there are columns.
    """
    records = []
    for file in sorted(checkpoints.glob("*/results.json")):
        records.append(
            (file.parent.name, json.loads(file.read_text()), json.loads((file.parent / "run.json").read_text()))
        )
    made = []
    for table in tables():
        rows = [
            [
                name, found["dataset"], f"{found['parameters'] / 1e6:.2f} M", f"{run['seconds'] / 60:.1f}",
                *(figure.cell(found) for figure in table.figures),
            ]
            for name, found, run in records
            if table.includes(found)
        ]  # fmt: skip
        if rows:
            made.append(
                {"title": table.title, "columns": [*COMMON_COLUMNS, *(f.title for f in table.figures)], "rows": rows}
            )
    return made
