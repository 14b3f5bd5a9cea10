"""The experiment tracker of --report_to: it is sent the figures too, and where it fails the run goes on without it."""

import dataclasses
from collections.abc import Callable

from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import LoggerType

from training.options import UsageError, in_one_line

PROJECT = "genus"


class Tracker:
    """The tracker called `name`; "none" is one that does nothing.

    Args:
        warn: called with a line of text when the tracker fails, which is once: it is left alone from then on.

    Raises:
        UsageError: it is not installed.
    """

    def __init__(self, name: str, warn: Callable[[str], None]):
        self.name, self.warn, self.accelerator = name, warn, None
        # a folder of this name in the working directory is no installed package, and accelerate knows the difference
        if name != "none" and LoggerType(name) not in get_available_trackers():
            raise UsageError(f"--report_to {name}: not installed; pip install {name}")

    def start(self, accelerator: Accelerator, options) -> None:
        """Begin to track, with the options of a dataclass as the run's hyperparameters."""
        if self.name == "none":
            return
        self.accelerator = accelerator
        given = {name: value for name, value in dataclasses.asdict(options).items() if value is not None}
        # trackers take single values only
        config = {k: " ".join(map(str, v)) if isinstance(v, list) else v for k, v in given.items()}
        self._try(lambda: accelerator.init_trackers(PROJECT, config))

    def log(self, step: int, figures: dict) -> None:
        """Send a line of figures."""
        if self.accelerator is not None:
            self._try(lambda: self.accelerator.log(figures, step=step))

    def finish(self) -> None:
        """Let the tracker write what it still holds."""
        for tracker in self.accelerator.trackers if self.accelerator is not None else ():
            self._try(tracker.finish)
        self._leave()

    def _try(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # whatever a tracker raises, the work of the run is worth more
            self._leave()
            self.warn(f"--report_to {self.name} failed and is left alone from here on ({in_one_line(error)})")

    def _leave(self) -> None:
        if self.accelerator is not None:
            self.accelerator.trackers = []  # or ending the training would call them again
        self.accelerator = None
