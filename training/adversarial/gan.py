"""Train a generative adversarial network: a generator and a discriminator, each against the other.

    python -m training.adversarial.gan                                               # digits, under a minute
    python -m training.adversarial.gan --objective wasserstein --output_dir runs/wgan-digits
    accelerate launch -m training.adversarial.gan --config training/adversarial/gan-mnist.yaml

Objectives: minimax (arXiv 1406.2661, equation 1), non_saturating (its section 3: the generator raises log D instead),
wasserstein with a gradient penalty on random interpolates (arXiv 1704.00028, equation 3).
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.adversarial.modeling_gan import NORMS, DiscriminatorModel, GeneratorModel
from pipelines.adversarial.pipeline_gan import GANPipeline
from training.data.batches import batches_in_order
from training.data.images import DataOptions
from training.data.source import DataSource, rows_to_show
from training.declaration import DRAW_IMAGES, DRAW_POINTS, Declaration
from training.loops.run import start
from training.loops.run_options import RunOptions
from training.loops.two_player import LOSSES, train
from training.options import UsageError, command_line, option, parse, with_default
from training.pictures import image_grid, scatter

DECLARATION = Declaration(
    family="gan",
    branch="adversarial",
    title="Generative adversarial network",
    example=DRAW_IMAGES,
    points_example=DRAW_POINTS,
    measures=("samples", "cost", "kept_rows"),
    paper="https://arxiv.org/abs/1406.2661",
)
WASSERSTEIN = replace(DECLARATION, paper="https://arxiv.org/abs/1704.00028")
OBJECTIVES = ("minimax", "non_saturating", "wasserstein")
DIVERSITY_SAMPLES = 500
COLLAPSED = 0.5  # warn when samples lie less than this share as far apart as data


@dataclass
class GANOptions(DataOptions, RunOptions):
    output_dir: str = with_default(RunOptions, "output_dir", "runs/gan-digits")
    max_steps: int = option(4_000, "number of optimizer steps of the generator", least=1)
    batch_size: int = with_default(RunOptions, "batch_size", 64)
    learning_rate: float = option(
        1e-3, "the generator's highest learning rate, reached at the end of the warm-up", above=0.0
    )
    critic_learning_rate: float | None = option(
        None, "the discriminator's highest learning rate; by default the generator's", above=0.0
    )
    lr_scheduler: str = with_default(RunOptions, "lr_scheduler", "constant")
    adam_beta1: float = option(
        0.5, "decay of the gradients' moving average in both AdamW optimizers", least=0.0, below=1.0
    )
    export: str = option(
        "last",
        "weights of the finished pipeline: the last averaged ones, since no loss says which are best",
        choices=("last",),
    )
    max_grad_norm: float = with_default(RunOptions, "max_grad_norm", 0.0)
    objective: str = option("non_saturating", "losses of the generator and the discriminator", choices=OBJECTIVES)
    n_critic: int = option(1, "number of optimizer steps of the discriminator for each step of the generator", least=1)
    gradient_penalty: float = option(10.0, "weight of the gradient penalty in the wasserstein objective", above=0.0)
    latent_dim: int = option(100, "number of dimensions of the noise z", least=1)
    network: str = option("mlp", "kind of the generator and the discriminator", choices=("mlp", "conv"))
    generator_width: list[int] = option(
        (128, 256),
        "units of each layer of the generator; with --network conv one number, its channels at full resolution",
        least=1,
    )
    discriminator_width: list[int] = option(
        (256, 128),
        "units of each layer of the discriminator; with --network conv one number, its channels at half resolution",
        least=1,
    )
    generator_norm: str = option("none", "normalisation between the generator's layers", choices=NORMS)
    discriminator_norm: str = option("none", "normalisation between the discriminator's layers", choices=NORMS)
    dropout: float | None = option(
        None,
        "dropout probability in the discriminator; by default 0.3, and 0 with the wasserstein objective",
        least=0.0,
        most=0.9,
    )
    conditional: bool = option(False, "give the class to the generator and to the discriminator")

    def __post_init__(self):
        super().__post_init__()
        if self.dropout is None:  # a gradient penalty is of one function, not of a different one in each pass
            self.dropout = 0.0 if self.objective == "wasserstein" else 0.3
        for name in ("generator_width", "discriminator_width") if self.network == "conv" else ():
            if len(getattr(self, name)) > 1:
                widths = " ".join(map(str, getattr(self, name)))
                raise UsageError(f"--{name} is {widths}; with --network conv it must be one number of channels")
        if self.objective == "wasserstein" and self.discriminator_norm == "batch":
            raise UsageError(
                "--discriminator_norm is 'batch', but the gradient penalty is of each x by itself, and batch norm makes "
                "the critic's value of one x depend on the others; it must be none or layer"
            )


def build_players(options: GANOptions, source: DataSource) -> tuple[GeneratorModel, DiscriminatorModel]:
    """The generator and the discriminator, with random weights."""
    spec = source.spec("8-bit", (-1, 1))
    generator = GeneratorModel(
        spec,
        latent_dim=options.latent_dim,
        network=options.network,
        width=tuple(options.generator_width),
        norm=options.generator_norm,
        conditional=options.conditional,
    )
    discriminator = DiscriminatorModel(
        spec,
        network=options.network,
        width=tuple(options.discriminator_width),
        norm=options.discriminator_norm,
        dropout=options.dropout,
        conditional=options.conditional,
        output="critic" if options.objective == "wasserstein" else "probability",
    )
    return generator, discriminator


def gradient_penalty(critic: nn.Module, real: Tensor, fake: Tensor, class_labels: Tensor | None = None) -> Tensor:
    """E (|grad C(x)|_2 - 1)^2 at points drawn evenly between each real and fake x: (B, *shape) each -> a scalar."""
    bare = getattr(critic, "module", critic)  # wrapped for several processes, it takes gradients of parameters only
    share = torch.rand(len(real), *[1] * (real.ndim - 1), device=real.device)
    between = torch.lerp(real, fake, share).requires_grad_(True)
    value = bare(between, class_labels, return_dict=False)[0]
    (gradient,) = torch.autograd.grad(value.sum(), between, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def make_losses(options: GANOptions):
    """The two losses of an objective, as the loop takes them."""

    def draw(generator: nn.Module, x: Tensor, labels: Tensor | None) -> Tensor:
        return generator(torch.randn(len(x), options.latent_dim, device=x.device), labels, return_dict=False)[0]

    def discriminator_loss(generator, discriminator, batch: dict[str, Tensor], step: int) -> dict:
        x, labels = batch["x"], batch["class_labels"] if options.conditional else None
        with torch.no_grad():
            fake = draw(generator, x, labels)
        # one pass over both: a discriminator with batch norm would else tell them apart by their batches
        both = discriminator(torch.cat([x, fake]), None if labels is None else labels.repeat(2), return_dict=False)[0]
        real_value, fake_value = both.chunk(2)
        if options.objective == "wasserstein":
            estimate = real_value.mean() - fake_value.mean()
            penalty = gradient_penalty(discriminator, x, fake, labels)
            loss = options.gradient_penalty * penalty - estimate
            return {"loss": loss, "wasserstein_estimate": estimate, "gradient_penalty": penalty}
        return {
            "loss": F.softplus(-real_value).mean() + F.softplus(fake_value).mean(),
            "confidence_in_data": torch.sigmoid(real_value).mean(),
            "confidence_in_samples": torch.sigmoid(fake_value).mean(),
        }

    def generator_loss(generator, discriminator, batch: dict[str, Tensor], step: int) -> dict:
        x, labels = batch["x"], batch["class_labels"] if options.conditional else None
        value = discriminator(draw(generator, x, labels), labels, return_dict=False)[0]
        loss = {
            "minimax": lambda: -F.softplus(value).mean(),  # log(1 - D)
            "non_saturating": lambda: F.softplus(-value).mean(),  # -log D
            "wasserstein": lambda: -value.mean(),
        }[options.objective]()
        return {"loss": loss}

    return discriminator_loss, generator_loss


def picture(pipeline: GANPipeline, source: DataSource) -> bytes:
    """64 samples; a conditional model shows its classes column by column, a style in each row."""
    classes = pipeline.data_spec["num_classes"] if pipeline.generator.config.conditional else 0
    generator = torch.Generator().manual_seed(0)
    if source.kind == "vector":
        labels = [i % classes for i in range(2_000)] if classes else None
        samples = pipeline(2_000, labels, generator=generator, output_type="np").samples
        return scatter(samples, source.as_input(rows_to_show(source, 2_000)).numpy())
    columns = min(classes, 10) or 8
    z = torch.randn(8 if classes else 64, pipeline.latent_dim, generator=generator)
    labels = [i % columns for i in range(8 * columns)] if classes else None
    z = z.repeat_interleave(columns, 0) if classes else z
    return image_grid(pipeline(class_labels=labels, latents=z, output_type="np").images, columns)


def mean_distance(x: Tensor) -> float:
    """The mean distance between two different rows of (N, ...)."""
    distance = torch.pdist(x.flatten(1))
    return distance.mean().item()


def inspect(pipeline: GANPipeline, source: DataSource) -> tuple[dict, list[str]]:
    """How far apart samples lie, as a share of how far apart data do, and a warning of lost diversity."""
    data = source.as_input(next(batches_in_order(source.train, DIVERSITY_SAMPLES)))
    drawn = pipeline(len(data), generator=torch.Generator().manual_seed(0), output_type="pt")
    samples = drawn.images if source.kind == "image" else drawn.samples
    diversity = mean_distance(samples.cpu()) / mean_distance(data)
    warnings = []
    if diversity < COLLAPSED:
        warnings.append(
            f"lost diversity: samples lie {diversity:.2f} times as far apart as data; "
            "--dropout, another --learning_rate or --objective wasserstein may help"
        )
    return {"diversity": diversity}, warnings


def main(argv: list[str] | None = None) -> None:
    options = parse(GANOptions, argv, __doc__)
    declaration = WASSERSTEIN if options.objective == "wasserstein" else DECLARATION
    run, source, players = start(declaration, ("generator", "discriminator"), options, build_players)
    discriminator_loss, generator_loss = make_losses(options)
    # a critic's losses say little; what it estimates falls as samples come nearer to data
    curve = (
        ("discriminator_loss", "discriminator_wasserstein_estimate") if options.objective == "wasserstein" else LOSSES
    )
    train(run, source, *players, discriminator_loss, generator_loss, GANPipeline, picture, inspect, curve)


if __name__ == "__main__":
    command_line(main)
