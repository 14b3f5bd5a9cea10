"""What the gallery knows of each model: its record, which the build copies to `records/`, and the page that shows it."""

import math
from dataclasses import dataclass
from pathlib import Path

from kit.records import RESULTS, RUN, read_record

HERE = Path(__file__).parent
RECORDS = HERE / "records"

# branches in the order of teaching; what is of another branch comes after them, under its own name
BRANCHES = {
    "classical": "Classical",
    "autoencoders": "Autoencoders",
    "adversarial": "Adversarial",
    "flows": "Flows",
    "diffusion": "Diffusion",
    "autoregressive": "Autoregressive",
    "language": "Language",
}


def branch_title(branch: str) -> str:
    return BRANCHES.get(branch) or branch.replace("-", " ").replace("_", " ").capitalize() or "Others"


def branch_place(branch: str) -> tuple[int, str]:
    """Where a branch stands among the others."""
    order = list(BRANCHES)
    return (order.index(branch) if branch in order else len(order), branch)


@dataclass(frozen=True)
class Record:
    """A model, as its run and its results describe it.

    Attributes:
        name: of its checkpoint.
        title: of its family, for a person.
        branch: of the family.
        likelihood: "exact", "bound", "implicit" or "none"; "" where it was not measured.
        is_text: whether it is a model of text.
        samples: a picture of what it draws or returns, or None.
    """

    name: str
    title: str
    branch: str
    likelihood: str
    is_text: bool
    samples: Path | None


def read_records() -> list[Record]:
    """The records of all models, by name."""
    found = []
    for folder in sorted(RECORDS.iterdir()):
        run, _ = read_record(folder / "run.json", RUN)
        results, _ = read_record(folder / "results.json", RESULTS)
        declared, samples = run.get("declaration", {}), folder / "samples.png"
        found.append(
            Record(
                name=folder.name,
                title=declared.get("title") or run.get("family") or folder.name,
                branch=declared.get("branch", ""),
                likelihood=results.get("likelihood", ""),
                is_text=results.get("data_kind") == "text",
                samples=samples if samples.is_file() else None,
            )
        )
    return found


def page_of(record: Record, pages: dict) -> str | None:
    """The page that shows a model best: the one that prefers it most, of its branch, or that asks for most of what it
    answers; None where none can."""

    def distance(name: str) -> tuple:
        preferred = pages[name].MODELS.preferred
        place = preferred.index(record.name) if record.name in preferred else math.inf
        return place, record.branch != pages[name].BRANCH, -pages[name].MODELS.fit(record.name), name

    return min((name for name, page in pages.items() if page.MODELS.takes(record.name)), key=distance, default=None)
