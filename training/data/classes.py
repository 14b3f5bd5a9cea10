"""Classes: the values of a column of labels, whatever they are, as whole numbers from 0 on, with their names kept."""

import math
from dataclasses import dataclass

import numpy as np

from training.options import UsageError

MOST_CLASSES = 100_000


@dataclass
class Classes:
    """What the values of a column are called, and which number each has.

    Attributes:
        column: the name of the column.
        names: one name for each class.
        numbers: the stored value -> its class, 0 to K - 1.
        declared: whether the set names its classes itself; a -1 there stands for no class.
    """

    column: str
    names: list[str]
    numbers: dict
    declared: bool

    def of(self, value, where: str) -> int | None:
        """The class of a stored value; None where there is none.

        Raises:
            UsageError: it is no value of a class, or one that the set does not name.
        """
        found = value_of(value, self.column, where, self.declared)
        if found is not None and found not in self.numbers:
            raise UsageError(f"--label_column {self.column}: {where} holds {value!r:.100}; the set names no such class")
        return None if found is None else self.numbers[found]


def value_of(value, column: str, where: str, declared: bool = False):
    """A stored label as a number, a text, true or false; None where there is none.

    Raises:
        UsageError: it is none of these.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)) or (declared and value == -1):
        return None
    if isinstance(value, float) and value.is_integer():  # a table that has lost a row's label holds the others so
        return int(value)
    if not isinstance(value, bool | int | str) or value == "":
        if value == "":
            return None
        raise UsageError(
            f"--label_column {column}: {where} holds {value!r:.100}; a class must be a whole number, a text, true or false"
        )
    return value


def classes_of(column: str, values: set, names: list[str], shown: str) -> tuple[Classes, list[str]]:
    """The classes of a column, and the names of those that the set declares but has no row of.

    Args:
        values: those that some row holds, as `value_of` gives them.
        names: that the set gives to the classes 0, 1, ...; empty where it names none.
        shown: the set, for a message.

    Raises:
        UsageError: there are more than any set has, or values of several kinds.
    """
    if names:
        present = [value for value in range(len(names)) if value in values]
        empty = [name for value, name in enumerate(names) if value not in values]
        outside = sorted(values - set(range(len(names))))
        if outside:
            raise UsageError(
                f"--label_column {column}: {shown} holds {outside[0]}; the set names the classes 0 to {len(names) - 1}"
            )
        found = [names[value] for value in present]
        return Classes(column, found, {value: i for i, value in enumerate(present)}, True), empty
    kinds = {type(value) for value in values}
    if len(kinds) > 1:
        words = " and ".join(sorted(kind.__name__ for kind in kinds))
        raise UsageError(f"--label_column {column}: {shown} holds {words} values; classes must be of one kind")
    if len(values) > MOST_CLASSES:
        raise UsageError(
            f"--label_column {column}: {shown} holds {len(values)} different values; a set has at most {MOST_CLASSES} classes"
        )
    ordered = in_order(values)
    found = [str(value).lower() if isinstance(value, bool) else str(value) for value in ordered]
    return Classes(column, found, {value: i for i, value in enumerate(ordered)}, False), []


def in_order(values) -> list:
    """Values of one kind, sorted; texts that are all numbers by the numbers."""
    numeric = all(isinstance(value, str) and value.isdecimal() and value.isascii() for value in values)
    return sorted(values, key=(lambda value: (int(value), value)) if numeric else None)


def counted(names: list[str], numbers: np.ndarray) -> str:
    """How many rows each class has, as a person is told."""
    counts = np.bincount(numbers, minlength=len(names))
    few = len(names) <= 20
    said = ", ".join(f"{name} {count}" for name, count in zip(names, counts, strict=True)) if few else ""
    return f"{len(names)} classes" + (f": {said}" if few else f", of {counts.min()} to {counts.max()} rows each")
