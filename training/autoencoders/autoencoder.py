"""Train an autoencoder; `--objective` says what its codes are asked for beyond bringing x back.

    python -m training.autoencoders.autoencoder                                      # digits, under a minute
    python -m training.autoencoders.autoencoder --objective contractive --output_dir runs/cae-digits
    python -m training.autoencoders.autoencoder --config training/autoencoders/ae-mnist.yaml

All minimise the squared error, summed over the entries of x in [0, 1], plus
    plain               nothing
    supervised          --class_weight times -log p(y|z) of a linear classifier on the code
    sliced_wasserstein  --sliced_weight times the squared sliced Wasserstein distance of a batch of codes from as many
                        draws of --code_prior (Kolouri et al., arXiv 1804.01947)
    denoising           nothing, but the encoder sees a corrupted x (Vincent et al., ICML 2008)
    contractive         --contractive_weight times ||dz/dx||_F^2 (Rifai et al., ICML 2011); codes are standardised, or the
                        encoder would pay with small codes and the decoder take them back

When training is done, `--prior` fits a density to the codes of the training set, from which the pipeline then draws; a
finished run gets another one by `--resume true` and other options of the prior.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.autoencoders.modeling_autoencoder import CODE_PRIORS, AutoencoderModel, prior_codes
from pipelines.autoencoders.pipeline_autoencoder import AutoencoderPipeline
from pipelines.classical.modeling_gaussian_mixture import GaussianMixtureModel
from pipelines.classical.modeling_kde import KDEModel
from training.data.batches import batches_in_order, random_subset
from training.data.images import DataOptions
from training.data.source import DataSource, class_arguments
from training.data.splits import StreamSplit
from training.declaration import DRAW_IMAGES, DRAW_POINTS, RECONSTRUCT, RECONSTRUCT_POINTS, Declaration
from training.loops.run import start
from training.loops.run_options import RunOptions
from training.loops.single import train
from training.options import UsageError, command_line, option, parse, with_default
from training.pictures import samples_or_reconstructions

DECLARATION = Declaration(
    family="autoencoder",
    branch="autoencoders",
    title="Autoencoder",
    example=DRAW_IMAGES,
    points_example=DRAW_POINTS,
    measures=("reconstruction", "classification", "samples", "cost", "kept_rows"),
    paper="https://doi.org/10.1126/science.1127647",
)
WITHOUT_PRIOR = replace(
    DECLARATION, example=RECONSTRUCT, points_example=RECONSTRUCT_POINTS, task="image-feature-extraction"
)
OBJECTIVES = ("plain", "supervised", "sliced_wasserstein", "denoising", "contractive")
CORRUPTIONS = ("gaussian", "mask")
PRIORS = ("none", "mixture", "kde")
STREAMED_ROWS = 20_000  # to which a prior is fitted, of a set that has no end


@dataclass
class AutoencoderOptions(DataOptions, RunOptions):
    output_dir: str = with_default(RunOptions, "output_dir", "runs/autoencoder-digits")
    max_steps: int = with_default(RunOptions, "max_steps", 3_000)
    objective: str = option(
        "plain", "what the training asks of the codes, beside the squared error", choices=OBJECTIVES
    )
    network: str = option("mlp", "kind of the encoder and the decoder", choices=("mlp", "conv"))
    latent_dim: int = option(16, "number of dimensions of the code", least=1)
    width: int = option(256, "hidden units of an MLP, or channels of a conv network at half resolution", least=1)
    num_blocks: int = option(1, "number of residual blocks in each MLP", least=0)
    num_levels: int = option(2, "number of times that the conv network halves the image", least=1, most=6)
    class_weight: float = option(1.0, "supervised: weight of -log p(y|z), nats, in the loss", least=0.0)
    code_prior: str = option("gaussian", "sliced_wasserstein: wanted distribution of the codes", choices=CODE_PRIORS)
    sliced_weight: float = option(100.0, "sliced_wasserstein: weight of the squared distance in the loss", least=0.0)
    num_projections: int = option(64, "sliced_wasserstein: random directions drawn at each step", least=1)
    corruption: str = option(
        "gaussian", "denoising: noise is added to the input, or pixels are set to 0", choices=CORRUPTIONS
    )
    corruption_level: float = option(
        0.5, "denoising: standard deviation of the noise, or share of pixels set to 0", above=0.0
    )
    contractive_weight: float = option(
        0.1, "contractive: weight of the squared norm of the encoder's Jacobian", least=0.0
    )
    prior: str = option("mixture", "density fitted to the codes at the end", choices=PRIORS, may_change_on_resume=True)
    prior_components: int = option(
        10, "components of the mixture, or of each class's", least=1, may_change_on_resume=True
    )
    prior_points: int = option(2_000, "codes kept by the kernel density estimate", least=2, may_change_on_resume=True)
    prior_by_class: bool = option(False, "fit one density of the codes for each class", may_change_on_resume=True)


# What codes can be asked for


def squared_sliced_wasserstein(a: Tensor, b: Tensor, num_projections: int) -> Tensor:
    """The squared sliced Wasserstein-2 distance of two sets of as many points, (N, D) each: a scalar.

    The mean over random directions of the exact distance along them, where transport is between the sorted projections
    (Bonneel et al., "Sliced and Radon Wasserstein Barycenters of Measures", 2015, section 3).
    """
    directions = F.normalize(torch.randn(a.shape[1], num_projections, device=a.device), dim=0)
    return ((a @ directions).sort(0).values - (b @ directions).sort(0).values).square().mean()


def contractive_penalty(codes: Tensor, x: Tensor, directions: Tensor | None = None) -> Tensor:
    """||dz/dx||_F^2 of each sample: codes (B, D), computed from x (B, ...) with gradients on -> (B,).

    Where codes are standardised by the batch, as in training, the little that an x does to the codes of others counts too.

    Args:
        directions: (P, B, D) standard normal: the mean over P of ||v^T dz/dx||^2, an estimate without bias from one
            backward pass each (Hutchinson). Without it the norm itself, from D passes.
    """
    exact = directions is None
    if exact:
        directions = torch.eye(codes.shape[1], device=codes.device)[:, None].expand(-1, len(codes), -1)
    norms = 0.0
    for v in directions:
        (gradient,) = torch.autograd.grad(codes, x, v, create_graph=True)
        norms = norms + gradient.flatten(1).square().sum(1)
    return norms if exact else norms / len(directions)


def corrupt(x: Tensor, kind: str, level: float) -> Tensor:
    """x with Gaussian noise of standard deviation `level` added, or with that share of its entries set to 0."""
    if kind == "gaussian":
        return x + level * torch.randn_like(x)
    return x * (torch.rand_like(x) >= level)


def make_loss(options: AutoencoderOptions) -> Callable:
    """The loss of the objective, as the loop asks for it."""

    def loss(model, batch: dict[str, Tensor], step: int) -> dict:
        x = batch["x"]
        seen = corrupt(x, options.corruption, options.corruption_level) if options.objective == "denoising" else x
        if options.objective == "contractive":
            seen = seen.requires_grad_()
        with torch.set_grad_enabled(options.objective == "contractive" or torch.is_grad_enabled()):
            codes, reconstruction, logits = model(seen, return_dict=False)
            error = (reconstruction - x).square().flatten(1).sum(1).mean()
            extra = {}
            if options.objective == "supervised":
                extra = {"class_nats": (options.class_weight, F.cross_entropy(logits, batch["class_labels"]))}
            elif options.objective == "sliced_wasserstein":
                wanted = prior_codes(options.code_prior, torch.rand_like(codes[:, 0]), torch.randn_like(codes))
                distance = squared_sliced_wasserstein(codes, wanted, options.num_projections)
                extra = {"sliced_wasserstein": (options.sliced_weight, distance)}
            elif options.objective == "contractive":
                norm = contractive_penalty(codes, seen, torch.randn(1, *codes.shape, device=x.device)).mean()
                extra = {"jacobian": (options.contractive_weight, norm)}
        total = error + sum(weight * term for weight, term in extra.values())
        return {"loss": total, "squared_error": error, **{name: term for name, (_, term) in extra.items()}}

    return loss


# The model and its pipeline


def build_model(options: AutoencoderOptions, source: DataSource) -> AutoencoderModel:
    """An autoencoder with random weights.

    Raises:
        UsageError: the objective or the prior does not fit the batch size or the data.
    """
    if options.objective == "contractive" and options.batch_size < 2:
        raise UsageError("--batch_size is 1; standardised codes need at least 2")
    if options.prior_by_class and not source.class_names:
        raise UsageError(f"--prior_by_class true: {source.name} has no classes")
    names = ("network", "latent_dim", "width", "num_blocks", "num_levels")
    return AutoencoderModel(
        source.spec("8-bit", (0, 1)),
        **{name: getattr(options, name) for name in names},
        supervised=options.objective == "supervised",
        standardise=options.objective == "contractive",
        code_prior=options.code_prior if options.objective == "sliced_wasserstein" else None,
    )


@torch.no_grad()
def codes_of(pipeline: AutoencoderPipeline, source: DataSource) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Codes of the training set, of a stream those of its first rows, and their classes: (N, D), (N,) or None."""
    codes, labels = [], []
    limit = STREAMED_ROWS if isinstance(source.train, StreamSplit) else None
    for batch in batches_in_order(source.train, 500, limit):
        codes.append(pipeline.encode(source.as_input(batch)).cpu())
        labels.append(batch.get("class_labels"))
    return torch.cat(codes), None if labels[0] is None else torch.cat(labels)


@torch.no_grad()
def standardise(autoencoder: AutoencoderModel, source: DataSource) -> None:
    """Mean 0 and variance 1 for the codes of the training set: the averaged weights have other moments than the last."""
    norm, autoencoder.norm = autoencoder.norm, torch.nn.Identity()
    codes, _ = codes_of(AutoencoderPipeline(autoencoder), source)
    autoencoder.norm = norm
    norm.running_mean.copy_(codes.mean(0))
    norm.running_var.copy_(codes.var(0))


def fit_prior(pipeline: AutoencoderPipeline, source: DataSource, options: AutoencoderOptions):
    """The density of the codes that --prior asks for; None for none.

    Raises:
        UsageError: it cannot be fitted to these codes.
    """
    if options.prior == "none":
        return None
    codes, labels = codes_of(pipeline, source)
    if options.prior == "kde":
        codes, labels = random_subset(codes, labels, options.prior_points, options.seed)
    classes = class_arguments(source, labels, "--prior_by_class") if options.prior_by_class else {}
    try:
        if options.prior == "kde":
            return KDEModel.fit(codes, "held_out", **classes)
        return GaussianMixtureModel.fit(codes, options.prior_components, **classes, seed=options.seed)
    except ValueError as error:
        raise UsageError(f"--prior {options.prior}: {error}") from None


def picture(pipeline: AutoencoderPipeline, source: DataSource) -> bytes:
    """Samples, by class where the prior knows them; without one, what becomes of held-out rows."""
    return samples_or_reconstructions(
        pipeline, source, pipeline.prior is not None and pipeline.prior.config.conditional
    )


def main(argv: list[str] | None = None) -> None:
    options = parse(AutoencoderOptions, argv, __doc__)
    draws = options.prior != "none" or options.objective == "sliced_wasserstein"
    run, source, model = start(DECLARATION if draws else WITHOUT_PRIOR, "autoencoder", options, build_model)

    def finished(autoencoder: AutoencoderModel) -> AutoencoderPipeline:
        if autoencoder.config.standardise:
            standardise(autoencoder, source)
        pipeline = AutoencoderPipeline(autoencoder, fit_prior(AutoencoderPipeline(autoencoder), source, options))
        run.draw_samples(picture(pipeline, source))
        return pipeline

    train(run, source, model, make_loss(options), AutoencoderPipeline, picture, make_final=finished)


if __name__ == "__main__":
    command_line(main)
