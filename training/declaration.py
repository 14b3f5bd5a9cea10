"""What a family says of itself, once: the shared code reads it, and knows no family by name.

A recipe hands its declaration to its loop, and run.json keeps it under "declaration". From there publishing, evaluating,
the tables, the cards and the gallery take it.
"""

import dataclasses
from dataclasses import dataclass

LONGEST = 2_000  # characters of a field


@dataclass(frozen=True)
class Declaration:
    """One declaration a run.

    Attributes:
        family: of the recipe, as run.json names it; a run folder holds runs of one family.
        branch: the folder under pipelines/ and training/ in which it lives.
        title: what a person calls it.
        example: Python that a card shows first, one line or a few; `pipe` is the loaded pipeline.
        points_example: the same where x are points and not images.
        measures: the modules of training/measures/ that evaluating owes it. Each is asked whether it applies.
        layout: the module of training/layouts/ that knows its files.
        unit: what its data are counted in, in the singular: image, token, pair, ...
        task: of the Hub's list of tasks, for the figures on the card and its pipeline tag; "other" where none fits.
        paper: the address of the paper that describes such models.
        class_arguments: Python that a card adds for a model that takes classes: the arguments of `pipe(...)`.
        training_example: about ten lines of Python that train the loaded `pipe` further, where its network's input does not
            tell how.
    """

    family: str
    branch: str
    title: str
    example: str
    measures: tuple[str, ...]
    points_example: str | None = None
    layout: str = "diffusers"
    unit: str = "image"
    task: str = "unconditional-image-generation"
    paper: str | None = None
    class_arguments: str = "class_labels=[0, 1]"
    training_example: str | None = None

    def record(self) -> dict:
        """As run.json holds it."""
        return {**dataclasses.asdict(self), "measures": list(self.measures)}

    def of_points(self) -> "Declaration":
        """The same for points."""
        return dataclasses.replace(self, example=self.points_example or self.example, unit="point", task="other")


DRAW_IMAGES, DRAW_POINTS = "images = pipe(batch_size=16).images", "points = pipe(batch_size=16).samples  # (16, 2)"
SOME_IMAGES = 'images = torch.rand(2, *pipe.data_spec["shape"])  # (B, C, H, W) in [0, 1], or PIL images'
SOME_POINTS = 'points = torch.rand(2, *pipe.data_spec["shape"])  # (B, D)'
RECONSTRUCT = f"{SOME_IMAGES}\nagain = pipe.reconstruct(images).images"
RECONSTRUCT_POINTS = f"{SOME_POINTS}\nagain = pipe.reconstruct(points).samples"
# of a portable folder or a saved pipeline that has no run.json: nothing is owed, and the card shows how to draw
UNDECLARED = Declaration(family="", branch="", title="", example=DRAW_IMAGES, measures=())


def declaration_of(run: dict) -> Declaration:
    """The declaration in a run.json.

    Raises:
        ValueError: there is none, or not such a one; the message says what to do.
    """
    found = run.get("declaration")
    names = {field.name for field in dataclasses.fields(Declaration)}
    required = {field.name for field in dataclasses.fields(Declaration) if field.default is dataclasses.MISSING}
    if not isinstance(found, dict) or not required <= found.keys():
        raise ValueError("run.json has no declaration of its family; it was made by an older version: resume the run")
    for field in dataclasses.fields(Declaration):
        value = found.get(field.name, field.default)
        several = value if field.name == "measures" and isinstance(value, list) else [value]
        missing = field.default is None and value is None
        good = all(isinstance(one, str) and len(one) <= LONGEST for one in several) and (
            isinstance(value, list) == (field.name == "measures")
        )
        if not good and not missing:
            kind = "a list of names" if field.name == "measures" else "a text"
            raise ValueError(f"declaration.{field.name} is {value!r:.100}; it must be {kind}")
    return Declaration(**{k: tuple(v) if isinstance(v, list) else v for k, v in found.items() if k in names})
