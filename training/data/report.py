"""What a reader found, and what it left out and why: said in a few lines before the work, and kept in run.json."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from training.options import one_line

NAMES_SAID, NAMES_KEPT = 5, 100  # of what was left out for one reason


@dataclass
class Report:
    """Lines of what was found, and names of what was left out, by the reason.

    Attributes:
        found: a line each.
        left_out: reason -> names of files or rows; a reason reads on from "left out: ".
        warnings: a line each, of what can be done but will hardly be what is wanted.
    """

    found: list[str] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def leave_out(self, why: str, names: Iterable) -> None:
        """Note what is left out for one reason; nothing where there are no names."""
        if names := [one_line(name, 200) for name in names]:
            self.left_out.setdefault(why, []).extend(names)

    def lines(self) -> list[str]:
        """What a person is told."""
        lines = [f"data: {one_line(line, 500)}" for line in self.found]
        for why, names in self.left_out.items():
            said = ", ".join(names[:NAMES_SAID]) + (", ..." if len(names) > NAMES_SAID else "")
            lines.append(f"data: left out, {why}: {len(names)} ({said})")
        return lines

    def record(self) -> dict:
        """As run.json keeps it."""
        left_out = [{"why": w, "count": len(n), "names": n[:NAMES_KEPT]} for w, n in self.left_out.items()]
        return {"found": self.found, "left_out": left_out}


def fingerprint(parts: Iterable[bytes]) -> str:
    """What tells data from other data, whatever they are called: 32 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()
