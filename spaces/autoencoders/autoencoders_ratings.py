"""A table of ratings to edit, and tables of what was made of it."""

import html
import json
import math

import gradio as gr
import numpy as np
from kit.bounds import is_number
from kit.errors import user_error
from kit.inputs import check_fields
from kit.words import short

MOST_STARS = 5.0  # of a rating
MOST_PEOPLE = MOST_DISHES = 20

RATINGS = """
const place = element.querySelector(".ratings");
let drawn = "";
function show() {
  const { people = [], dishes = [], ratings = [] } = props.value || {};
  const now = JSON.stringify(props.value);
  if (now === drawn) return;  // what was typed here: the reader's place stays
  drawn = now;
  const table = document.createElement("table"), head = table.createTHead().insertRow();
  for (const name of ["", ...dishes]) {
    const th = document.createElement("th");
    th.scope = "col";
    th.textContent = name;
    head.append(th);
  }
  const body = table.createTBody();
  people.forEach((person, i) => {
    const row = body.insertRow(), name = document.createElement("th");
    name.scope = "row";
    name.textContent = person;
    row.append(name);
    dishes.forEach((dish, j) => {
      const input = document.createElement("input");
      input.inputMode = "decimal";
      input.autocomplete = "off";
      input.setAttribute("aria-label", `${person}: ${dish}`);
      input.value = ratings[i][j] ?? "";
      input.addEventListener("focus", () => input.select());
      input.addEventListener("change", () => {
        const text = input.value.trim().replace(",", ".");
        const next = ratings.map((line) => [...line]);
        next[i][j] = text === "" ? null : Number.isNaN(Number(text)) ? text : Number(text);
        ratings[i][j] = next[i][j];
        drawn = JSON.stringify({ ...props.value, ratings: next });
        props.value = { ...props.value, ratings: next };
        trigger("input");
      });
      row.insertCell().append(input);
    });
  });
  place.replaceChildren(table);
}
watch("value", show);
show();
"""
TABLE_CSS = """
.ratings { overflow-x: auto; border: 1px solid var(--border-color-primary); border-radius: 14px; padding: 6px;
  background: var(--block-background-fill); color: var(--body-text-color); }
.ratings table { border: 0 !important; border-collapse: separate; border-spacing: 3px;
  width: 100%; font-size: var(--text-sm); margin: 0; }
.ratings :is(th, td) { border: 0 !important; padding: 0; background: none; }
.ratings thead th { font-weight: 600; vertical-align: bottom; text-align: center; padding: 4px 2px; min-width: 58px;
  line-height: 1.2; }
.ratings tbody th { position: sticky; left: 0; font-weight: 600; text-align: left; padding: 0 10px 0 6px;
  white-space: nowrap; background: var(--block-background-fill); }
.ratings input { width: 100%; min-width: 52px; height: 34px; padding: 0; text-align: center; border-radius: 8px;
  border: 1px solid var(--border-color-primary); background: var(--background-fill-secondary);
  color: var(--body-text-color);
  font-variant-numeric: tabular-nums; }
.ratings input:placeholder-shown { border-style: dashed; }
.ratings input:focus { outline: 2px solid var(--color-accent); outline-offset: 0; }
.ratings.shown thead th { min-width: 44px; }
.ratings td.cell { height: 34px; text-align: center; border-radius: 8px; font-variant-numeric: tabular-nums; }
.ratings td.known { color: var(--body-text-color-subdued); }
.ratings td.filled { font-weight: 700; box-shadow: inset 0 0 0 2px #ea580c;
  background: color-mix(in srgb, #f97316 calc(var(--share) * 55%), transparent); }
.ratings td.liking { background: color-mix(in srgb, #f97316 calc(var(--share) * 65%), transparent); }
.ratings tr.chosen th { color: var(--color-accent); }
"""

EXAMPLE = {  # made up: three like what is sweet, three what is hot, two the sea, and one both of the first
    "people": ["Mira", "Tobin", "Ilse", "Oskar", "Wen", "Farah", "Jonas", "Lupe", "Edda"],
    "dishes": [
        "Cloud cake", "Honey stones", "Snow pudding", "Fire noodles", "Ember curry", "Dragon toast", "Kelp rolls",
        "Moss soup", "Salt plums",
    ],
    "ratings": [
        [5, 4, None, 1, None, 1, 2, None, 1],
        [None, 5, 5, None, 1, 1, None, 2, 1],
        [4, None, 5, 2, 1, None, 1, 1, None],
        [1, None, 1, 5, 5, None, None, 1, 2],
        [None, 1, 2, 4, None, 5, 1, None, 1],
        [1, 1, None, None, 4, 5, 2, 1, None],
        [None, 1, 1, 2, None, 1, 5, 4, None],
        [2, None, 1, None, 1, 2, None, 5, 4],
        [5, 5, None, None, 4, 5, None, 1, 2],
    ],
}  # fmt: skip
Table = tuple[list[str], list[str], np.ndarray]  # people, dishes, ratings (N, D) with NaN where there is none


def is_empty(cell) -> bool:
    return cell is None or (isinstance(cell, str) and not cell.strip())


def check_rating(cell, person: str, dish: str) -> None:
    if not is_empty(cell) and not (is_number(cell) and 0 <= cell <= MOST_STARS):
        raise user_error(f"{person}'s rating of {dish} is {short(cell)}; it must be a number from 0 to 5, or empty")


def check_names(kind: str, value, most: int) -> list[str]:
    if not isinstance(value, list) or not 2 <= len(value) <= most or not all(isinstance(v, str) for v in value):
        raise user_error(f"{kind} is {short(value)}; it must be a list of 2 to {most} names")
    if any(len(v) > 40 for v in value) or len(set(value)) < len(value):
        raise user_error(f"{kind} is {short(value)}; it must hold different names of at most 40 letters")
    return value


class Ratings(gr.HTML):
    """A table of ratings to edit, empty cells where there are none; hands a `Table` to its handler."""

    def __init__(self, value: dict, label: str, **options):
        super().__init__(
            value,
            label=label,
            html_template=f'<div class="ratings" role="group" aria-label="{label}"></div>',
            css_template=TABLE_CSS,
            js_on_load=RATINGS,
            **options,
        )

    def taken(self, value) -> dict:
        table = check_fields(value, {"people": "names", "dishes": "names", "ratings": "a row for each of the people"})
        people, dishes = (
            check_names(kind, table[kind], most) for kind, most in (("people", MOST_PEOPLE), ("dishes", MOST_DISHES))
        )
        rows = table["ratings"]
        if not isinstance(rows, list) or len(rows) != len(people):
            raise user_error(f"it has {short(rows)} as ratings, which must be a row for each of {len(people)} people")
        for person, row in zip(people, rows, strict=True):
            if not isinstance(row, list) or len(row) != len(dishes):
                raise user_error(f"{person}'s row must hold {len(dishes)} ratings, null where there is none")
            for rating, dish in zip(row, dishes, strict=True):
                check_rating(rating, person, dish)
        ratings = [[None if is_empty(rating) else rating for rating in row] for row in rows]
        return {"people": people, "dishes": dishes, "ratings": ratings}

    def preprocess(self, payload: dict) -> Table:
        people, dishes, rows = (payload[kind] for kind in ("people", "dishes", "ratings"))
        return people, dishes, np.array(rows, dtype=float)  # None becomes NaN

    def postprocess(self, value: dict) -> dict:
        return value

    def api_info(self) -> dict:
        words = {"type": "array", "items": {"type": "string"}}
        cells = {
            "type": "array",
            "items": {"type": "array", "items": {"anyOf": [{"type": "number"}, {"type": "null"}]}},
        }
        fields = {"people": words, "dishes": words, "ratings": cells}
        return {"type": "object", "properties": fields, "required": list(fields)}

    def example_payload(self):
        return json.loads(json.dumps(self.value))


def _table(columns: list[str], rows: list[tuple[str, str]], chosen: str | None = None) -> str:
    """Rows of (name, cells)."""
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in ["", *columns])
    body = "".join(
        f'<tr{" class=chosen" if name == chosen else ""}><th scope="row">{html.escape(name)}</th>{cells}</tr>'
        for name, cells in rows
    )
    return f'<div class="ratings shown"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def completed_table(people: list[str], dishes: list[str], known: np.ndarray, filled: np.ndarray, chosen: str) -> str:
    """Known ratings as they are, the others as expected and marked."""
    rows = []
    for i, person in enumerate(people):
        cells = ""
        for value, expected in zip(known[i], filled[i], strict=True):
            if math.isnan(value):
                share = min(max(expected / MOST_STARS, 0), 1)
                cells += f'<td class="cell filled" style="--share:{share:.2f}">{expected:.1f}</td>'
            else:
                cells += f'<td class="cell known">{value:g}</td>'
        rows.append((person, cells))
    return _table(dishes, rows, chosen)


def liking_table(row_names: list[str], columns: list[str], values: np.ndarray) -> str:
    """Degrees of liking (N, D), darker for more."""
    most = max(values.max(), 1e-12)
    rows = [
        (name, "".join(f'<td class="cell liking" style="--share:{v / most:.2f}">{v:.1f}</td>' for v in row))
        for name, row in zip(row_names, values, strict=True)
    ]
    return _table(columns, rows)
