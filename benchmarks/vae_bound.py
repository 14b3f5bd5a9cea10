"""The bound of a VAE on its test set, with standard error, and the importance-weighted estimate on a part of it.

    python benchmarks/vae_bound.py checkpoints/vae-mnist --data_dir DIR

Prints one JSON line. Binary data is binarised dynamically, anew for each of the `--rounds`; the standard error is over
test images.
"""

import argparse
import json
import math
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pipelines.autoencoders.modeling_vae  # noqa: F401  diffusers loads the model from an imported module
from pipelines.autoencoders.pipeline_vae import VAEPipeline
from training.data.batches import batches_in_order
from training.data.images import DataOptions, load_data


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data_dir")
    parser.add_argument("--rounds", type=int, default=3, help="binarisations, with 10 samples of z each")
    parser.add_argument("--importance_samples", type=int, default=500)
    parser.add_argument("--importance_images", type=int, default=1000)
    options = parser.parse_args()

    record = json.loads((options.checkpoint / "run.json").read_text())
    source = load_data(DataOptions(dataset=record["dataset"]["name"], data_dir=options.data_dir))
    pipe = VAEPipeline.from_pretrained(options.checkpoint, dtype=torch.float32)
    spec, conditional = pipe.data_spec, pipe.vae.config.conditional
    generator = torch.Generator().manual_seed(0)

    terms, marginal = [], []
    for _ in range(options.rounds):
        each = []
        for batch in batches_in_order(source.test, 500):
            x, labels = source.as_input(batch, spec, generator), batch["class_labels"]
            each.append(torch.stack(pipe.elbo_terms(x, 10, labels if conditional else None, generator)))
            if conditional:
                marginal.append(pipe.elbo(x, 2, None, generator))
        terms.append(torch.cat(each, 1))
    reconstruction, kl = torch.stack(terms).mean(0)  # (N,) each
    bound = -(reconstruction - kl)
    spread = torch.linspace(0, len(source.test) - 1, min(options.importance_images, len(source.test))).long()
    batch = source.test.__getitems__(spread)
    x, labels = source.as_input(batch, spec, generator), batch["class_labels"]
    tight = -pipe.log_prob(x, options.importance_samples, labels if conditional else None, generator)
    figures = {
        "checkpoint": options.checkpoint.name,
        "test_images": len(bound),
        "given_class": conditional,
        "bound_nats": round(bound.mean().item(), 3),
        "standard_error": round(bound.std().item() / math.sqrt(len(bound)), 3),
        "reconstruction_nats": round(-reconstruction.mean().item(), 3),
        "kl_nats": round(kl.mean().item(), 3),
        "importance_weighted_nats": round(tight.mean().item(), 3),
        "importance_samples": options.importance_samples,
        "importance_images": len(tight),
    }
    if spec["support"] == "8-bit":
        figures["bound_bits_per_dim"] = round(bound.mean().item() / (math.prod(spec["shape"]) * math.log(2)), 4)
    if marginal:
        figures["bound_nats_without_class"] = round(-torch.cat(marginal).mean().item(), 3)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
