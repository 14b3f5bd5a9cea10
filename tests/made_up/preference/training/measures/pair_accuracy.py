"""`pair_accuracy`: the share of held-out pairs whose better text gets the higher reward."""

import argparse

from training.data.batches import batches_in_order
from training.figures import Figure, Table

ACCURACY = Figure(
    "pair_accuracy", "pairs in order", "share of pairs in the right order", metric_type="accuracy", order=70
)
TABLES = (Table("Preferences", (ACCURACY,), lambda found: "pair_accuracy" in found, 70),)
PICTURES = {}


def arguments(parser: argparse.ArgumentParser) -> None:
    pass


def applies(pipe, source) -> bool:
    return "reward" in pipe.calls


def measure(pipe, source, options: argparse.Namespace) -> tuple[dict, dict[str, bytes]]:
    right = count = 0
    for batch in batches_in_order(source.test, 25):
        chosen, rejected = (
            pipe.reward(pipe.tokenizer.batch_decode(batch[name])) for name in ("chosen_ids", "rejected_ids")
        )
        right, count = right + int((chosen > rejected).sum()), count + len(chosen)
    return {"pair_accuracy": right / count}, {}
