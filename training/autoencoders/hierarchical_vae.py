"""Train a hierarchical variational autoencoder: a chain of latent levels, each the prior of the one below.

    python -m training.autoencoders.hierarchical_vae                                 # digits, under a minute
    accelerate launch -m training.autoencoders.hierarchical_vae --config training/autoencoders/hierarchical-vae-mnist.yaml

The loss is -ELBO in nats, with the KL of all levels weighted by `--beta` and warmed up from zero over
`--kl_warmup_steps`: in a shorter warm-up less of the code moves to the upper levels (Sønderby et al., arXiv 1602.02282,
section 2.3).
"""

from dataclasses import dataclass

import torch

from pipelines.autoencoders.modeling_hierarchical_vae import HierarchicalVAEModel
from pipelines.autoencoders.pipeline_hierarchical_vae import HierarchicalVAEPipeline
from training.data.batches import batches_in_order
from training.data.images import DataOptions
from training.data.source import DataSource
from training.declaration import DRAW_IMAGES, Declaration
from training.loops.run import start
from training.loops.run_options import RunOptions
from training.loops.single import train
from training.options import command_line, option, parse, with_default
from training.pictures import image_grid

DECLARATION = Declaration(
    family="hierarchical-vae",
    branch="autoencoders",
    title="Hierarchical variational autoencoder",
    example=DRAW_IMAGES,
    measures=("likelihood", "samples", "cost", "kept_rows"),
    paper="https://arxiv.org/abs/1602.02282",
)
UNUSED = 0.1  # nats: warn when the top level's KL is below


@dataclass
class HierarchicalVAEOptions(DataOptions, RunOptions):
    output_dir: str = with_default(RunOptions, "output_dir", "runs/hierarchical-vae-digits")
    max_steps: int = with_default(RunOptions, "max_steps", 3_000)
    latent_dims: list[int] = option(
        (16, 8), "number of dimensions of the code of each level, from the bottom to the top", least=1
    )
    width: int = option(
        256, "hidden units of the networks between x and the lowest level: q(z1|x) and p(x|z1)", least=1
    )
    num_blocks: int = option(1, "number of residual blocks in each network", least=0)
    upper_width: int = option(128, "hidden units of the networks between two levels", least=1)
    beta: float = option(1.0, "weight of the KL in the loss; with 1 the loss is the bound itself", least=0.0)
    kl_warmup_steps: int = option(
        500, "number of steps in which the weight of the KL rises from zero to --beta", least=0
    )


def build_model(options: HierarchicalVAEOptions, source: DataSource) -> HierarchicalVAEModel:
    """A hierarchical VAE with random weights."""
    names = ("latent_dims", "width", "num_blocks", "upper_width")
    return HierarchicalVAEModel(source.spec("binary", (0, 1)), **{name: getattr(options, name) for name in names})


def picture(pipeline: HierarchicalVAEPipeline, source: DataSource) -> bytes:
    """64 samples, a row of 8 for each code of the top: what a row shares is what the top says."""
    generator = torch.Generator().manual_seed(0)
    top = torch.randn(8, pipeline.latent_dims[-1], generator=generator)
    return image_grid(pipeline.resample(latents=top, num=8, generator=generator, output_type="np").images, 8)


def inspect(pipeline: HierarchicalVAEPipeline, source: DataSource) -> tuple[dict, list[str]]:
    """Active units of each level on the validation split, and a warning where the top level is not used."""
    generator = torch.Generator().manual_seed(0)
    x = source.as_input(next(batches_in_order(source.validation, 1_000)), pipeline.data_spec, generator)
    top = pipeline.elbo_terms(x, generator=generator)[1][:, -1].mean().item()
    warnings = []
    if top < UNUSED:
        warnings.append(
            f"the top level is not used: its KL is {top:.3f} nats; raise --kl_warmup_steps, or give fewer --latent_dims"
        )
    levels = range(pipeline.num_levels)
    return {f"active_units_{level + 1}": int(pipeline.active_units(x, level=level).sum()) for level in levels}, warnings


def main(argv: list[str] | None = None) -> None:
    options = parse(HierarchicalVAEOptions, argv, __doc__)
    run, source, model = start(DECLARATION, "hierarchical_vae", options, build_model)

    def loss(model, batch: dict, step: int) -> dict:
        beta = options.beta * min(1.0, (step + 1) / max(1, options.kl_warmup_steps))
        total, reconstruction, kl = model(batch["x"], beta, return_dict=False)
        terms = {f"kl_{level}": value for level, value in enumerate(kl.mean(0), 1)}
        return {"loss": total, "reconstruction": -reconstruction.mean(), **terms}

    train(run, source, model, loss, lambda model: HierarchicalVAEPipeline(model), picture, inspect)


if __name__ == "__main__":
    command_line(main)
