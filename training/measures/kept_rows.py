"""Figures of a few rows that are kept with the project, so that any machine can measure a checkpoint again in a second.

They say whether a model still answers as it did when its figures were written, to 1e-3; they are no figures of quality.
Of MNIST the rows are the 200 test digits of `spaces/kit/mnist-digits.png`, of embedded sets the first 200 of the test
split, of text a passage of Hamlet. Binary models see levels above one half as ones.
"""

import argparse

import torch

from training.data.source import reader_named

SAMPLES = 20
TABLES, PICTURES = (), {}


def arguments(parser: argparse.ArgumentParser) -> None:
    pass


def applies(pipe, source) -> bool:
    return True


def measure(pipe, source, options: argparse.Namespace) -> tuple[dict, dict[str, bytes]]:
    found = figures_on_kept_rows(pipe, options.run["dataset"])
    return ({} if found is None else {"figures_on_kept_rows": found}), {}


def figures_on_kept_rows(pipe, dataset: dict) -> dict[str, float] | None:
    """Whatever the pipeline answers, a mean over the rows; None where none are kept of its data, or it cannot
    read them.

    Args:
        dataset: of run.json.
    """
    kept = reader_named(dataset.get("reader", "images")).kept_rows(dataset["name"])
    if kept is None:
        return None
    source, rows = kept
    if "score" in pipe.calls:
        try:
            found = {"nats_per_token": torch.cat([-pipe.score(text).log_probs for text in rows["texts"]])}
        except ValueError:  # its vocabulary is of characters, and lacks some of these texts
            return None
    else:
        found = _answers(pipe, source, rows)
    return {name: float(f"{value.double().mean().item():.6g}") for name, value in found.items()}


def _answers(pipe, source, rows: dict) -> dict[str, torch.Tensor]:
    x, labels = source.as_input(rows), rows.get("class_labels")
    generator = torch.Generator().manual_seed(0)
    known = {"class_labels": labels.tolist()} if pipe.num_classes else {}
    found = {}
    on_support = (x > 0.5).float() if pipe.data_spec["support"] == "binary" else x
    if pipe.likelihood == "exact":
        found["nats"] = -pipe.log_prob(on_support, generator=generator, **known)
    elif pipe.likelihood == "bound":
        found["nats"] = -pipe.elbo(on_support, 1, generator=generator, **known)
    if "discriminate" in pipe.calls:
        found["discriminator"] = pipe.discriminate(x, **known)
    if "reconstruction_error" in pipe.calls:
        found["reconstruction_error"] = pipe.reconstruction_error(x)
    if "classify" in pipe.calls:
        found["class_nats"] = -pipe.classify(x).cpu().gather(1, labels[:, None]).log()
    if "sample" in pipe.calls:
        classes = {"class_labels": [i % pipe.num_classes for i in range(SAMPLES)]} if pipe.num_classes else {}
        drawn = pipe(batch_size=SAMPLES, generator=generator.manual_seed(0), output_type="pt", **classes)
        found["sample_mean_square"] = (drawn.images if "images" in drawn else drawn.samples).square()
    return found
