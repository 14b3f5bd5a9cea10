"""`tokens_per_second` of sampling at batch 1 and 16, until the context is full; the median of five."""

import argparse
import statistics
import time

from training.figures import Figure, Table

SPEED = Figure(
    "tokens_per_second",
    "tokens/s (batch 1, 16)",
    show=lambda found: ", ".join(f"{found['tokens_per_second'][size]:,}" for size in ("1", "16")),
)
TABLES = (Table("Writing", (SPEED,), lambda found: "tokens_per_second" in found, 61),)
PICTURES = {}


def arguments(parser: argparse.ArgumentParser) -> None:
    pass


def applies(pipe, source) -> bool:
    return "score" in pipe.calls and "sample" in pipe.calls


def measure(pipe, source, options: argparse.Namespace) -> tuple[dict, dict[str, bytes]]:
    first = pipe.bos_token_id is None
    prompt = next(pipe.decode([i]) for i in range(pipe.model.config.vocab_size) if pipe.writes(i)) if first else ""
    ends, pipe.model.config.eos_token_id = pipe.model.config.eos_token_id, None  # a text that ended would cost nothing
    found = {}
    for batch in (1, 16):
        rates = []
        for _ in range(6):
            began = time.perf_counter()
            steps = sum(1 for _ in pipe.stream([prompt] * batch, pipe.context_length - 1))
            rates.append(batch * steps / (time.perf_counter() - began))
        found[str(batch)] = round(statistics.median(rates[1:]))
    pipe.model.config.eos_token_id = ends
    return {"tokens_per_second": found}, {}
