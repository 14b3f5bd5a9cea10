"""Train a variational autoencoder, or with `--conditional true` a conditional one.

    python -m training.autoencoders.vae                                              # digits, under a minute
    accelerate launch -m training.autoencoders.vae --config training/autoencoders/vae-mnist.yaml --output_dir runs/vae-mnist

The loss is -ELBO in nats, with the KL weighted by `--beta` and warmed up from zero over `--kl_warmup_steps`.
"""

from dataclasses import dataclass

import torch

from pipelines.autoencoders.modeling_vae import VAEModel
from pipelines.autoencoders.pipeline_vae import VAEPipeline
from training.data.batches import batches_in_order
from training.data.images import DataOptions
from training.data.source import DataSource, rows_to_show
from training.declaration import DRAW_IMAGES, DRAW_POINTS, Declaration
from training.loops.run import start
from training.loops.run_options import RunOptions
from training.loops.single import train
from training.options import command_line, option, parse, with_default
from training.pictures import image_grid, scatter

DECLARATION = Declaration(
    family="vae",
    branch="autoencoders",
    title="Variational autoencoder",
    example=DRAW_IMAGES,
    points_example=DRAW_POINTS,
    measures=("likelihood", "samples", "cost", "kept_rows"),
    paper="https://arxiv.org/abs/1312.6114",
)
# what each output models, as a data spec
SPECS = {
    "bernoulli": {"support": "binary", "value_range": (0, 1)},
    "logistic": {"support": "8-bit", "value_range": (-1, 1)},
    "gaussian": {"support": "8-bit", "value_range": (-1, 1), "dequantization": "uniform"},
}
COLLAPSED = 0.1  # warn when fewer than this share of the latent units is active


@dataclass
class VAEOptions(DataOptions, RunOptions):
    output_dir: str = with_default(RunOptions, "output_dir", "runs/vae-digits")
    max_steps: int = with_default(RunOptions, "max_steps", 3_000)
    output: str = option(
        "bernoulli",
        "distribution of x given z: bernoulli of binarised images, logistic of 8-bit levels, gaussian of dequantised images or of vectors",
        choices=tuple(SPECS),
    )
    network: str = option("mlp", "kind of the encoder and the decoder", choices=("mlp", "conv"))
    latent_dim: int = option(16, "number of dimensions of the code z", least=1)
    width: int = option(
        256, "hidden units of an MLP, or channels of a convolutional network at half resolution", least=1
    )
    num_blocks: int = option(
        1, "number of residual blocks in each MLP, or at each resolution of a convolutional network", least=0
    )
    num_levels: int = option(2, "number of times that the convolutional network halves the image", least=1, most=6)
    encoder_width: int | None = option(
        None, "put an MLP encoder with this many hidden units in front of a convolutional decoder", least=1
    )
    encoder_blocks: int = option(1, "number of residual blocks of that MLP encoder (see --encoder_width)", least=0)
    dropout: float = option(0.0, "dropout probability inside the residual blocks", least=0.0, most=0.9)
    conditional: bool = option(False, "give the class to the encoder and to the decoder")
    beta: float = option(1.0, "weight of the KL in the loss; with 1 the loss is the bound itself", least=0.0)
    kl_warmup_steps: int = option(
        500, "number of steps in which the weight of the KL rises from zero to --beta", least=0
    )


def build_model(options: VAEOptions, source: DataSource) -> VAEModel:
    """A VAE with random weights."""
    spec = source.spec(**SPECS[options.output])
    names = ("output", "network", "latent_dim", "width", "num_blocks", "num_levels")
    names += ("encoder_width", "encoder_blocks", "dropout", "conditional")
    return VAEModel(spec, **{name: getattr(options, name) for name in names})


def latent_map(pipeline: VAEPipeline, side: int = 16) -> bytes:
    """What each place of a two-dimensional latent space decodes to; places are equally likely under the prior."""
    quantiles = torch.special.ndtri((torch.arange(side) + 0.5) / side)
    z = torch.cartesian_prod(-quantiles, quantiles)[:, [1, 0]]  # rows go down, columns to the right
    return image_grid(pipeline.decode(z, output_type="np").images, side)


def picture(pipeline: VAEPipeline, source: DataSource) -> bytes:
    """64 samples; a conditional model shows its classes column by column, a 2-D latent space is drawn as a map."""
    if pipeline.vae.config.latent_dim == 2 and source.kind == "image" and not pipeline.vae.config.conditional:
        return latent_map(pipeline)
    columns = min(pipeline.data_spec["num_classes"], 10) if pipeline.vae.config.conditional else 8
    count = 8 * columns if source.kind == "image" else 2_000
    labels = [i % columns for i in range(count)] if pipeline.vae.config.conditional else None
    generator = torch.Generator().manual_seed(0)
    if source.kind == "vector":
        samples = pipeline(count, labels, decoder_output="sample", generator=generator, output_type="np").samples
        return scatter(samples, source.as_input(rows_to_show(source, count)).numpy())
    return image_grid(pipeline(count, labels, generator=generator, output_type="np").images, columns)


def inspect(pipeline: VAEPipeline, source: DataSource) -> tuple[dict, list[str]]:
    """Active units on the validation split, and a warning of posterior collapse."""
    batch = next(batches_in_order(source.validation, 1_000))
    x = source.as_input(batch, pipeline.data_spec, torch.Generator().manual_seed(0))
    active = pipeline.active_units(x, batch["class_labels"] if pipeline.vae.config.conditional else None)
    number, total = int(active.sum()), len(active)
    warnings = []
    if number < COLLAPSED * total or number == 0:
        warnings.append(
            f"posterior collapse: {number} of {total} latent units are active; lower --beta or warm up longer"
        )
    return {"active_units": number}, warnings


def main(argv: list[str] | None = None) -> None:
    options = parse(VAEOptions, argv, __doc__)
    run, source, model = start(DECLARATION, "vae", options, build_model)

    def loss(model, batch: dict, step: int) -> dict:
        beta = options.beta * min(1.0, (step + 1) / max(1, options.kl_warmup_steps))
        labels = batch["class_labels"] if options.conditional else None
        total, reconstruction, kl = model(batch["x"], labels, beta, return_dict=False)
        return {"loss": total, "reconstruction": -reconstruction.mean(), "kl": kl.mean()}

    train(run, source, model, loss, lambda vae: VAEPipeline(vae), picture, inspect)


if __name__ == "__main__":
    command_line(main)
