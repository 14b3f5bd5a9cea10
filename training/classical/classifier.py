"""Train a classifier p(y|x) by maximum likelihood.

    python -m training.classical.classifier                                          # digits, under a minute
    python -m training.classical.classifier --config training/classical/classifier-mnist.yaml

The loss is -log p(y|x) in nats. Images are shifted, turned and scaled at random, within the bounds given.

`--tangents AUTOENCODER` adds Tangent Prop (Simard et al., NeurIPS 1991): the squared derivatives of the logits along the
leading tangents of a contractive autoencoder, its encoder's account of the ways in which an image can change and stay of
its class (Rifai et al., "The Manifold Tangent Classifier", NeurIPS 2011).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.autoencoders.modeling_autoencoder import AutoencoderModel
from pipelines.autoencoders.pipeline_autoencoder import AutoencoderPipeline
from pipelines.classical.modeling_classifier import ARCHITECTURES, ClassifierModel
from pipelines.classical.pipeline_classifier import ClassifierPipeline
from training.components import load_component
from training.data.batches import batches_in_order, num_rows
from training.data.images import DataOptions
from training.data.source import DataSource, rows_to_show
from training.declaration import SOME_IMAGES, Declaration
from training.loops.run import start
from training.loops.run_options import RunOptions
from training.loops.single import train
from training.options import UsageError, command_line, option, parse, with_default
from training.pictures import image_grid

DECLARATION = Declaration(
    family="classifier",
    branch="classical",
    title="Classifier",
    example=f"{SOME_IMAGES}\nprobabilities = pipe.classify(images)  # (2, classes)",
    measures=("classification", "kept_rows"),
    task="image-classification",
)
SHOWN = 64  # images of samples.png
LOOKED_THROUGH = 2_000  # validation images among which the hardest are found


@dataclass
class ClassifierOptions(DataOptions, RunOptions):
    output_dir: str = with_default(RunOptions, "output_dir", "runs/classifier-digits")
    max_steps: int = with_default(RunOptions, "max_steps", 1_500)
    architecture: str = option(
        "residual",
        "residual blocks and strides, or plain 5x5 convolutions with max pooling (LeNet)",
        choices=tuple(ARCHITECTURES),
    )
    width: int = option(32, "channels of the network at half resolution", least=1)
    num_blocks: int = option(1, "number of residual blocks at each resolution; residual only", least=0)
    num_levels: int = option(2, "number of times that the network halves the image", least=1, most=6)
    feature_dim: int = option(128, "number of units of the last hidden layer, whose values are the features", least=1)
    dropout: float = option(0.2, "dropout probability on the last hidden layer", least=0.0, most=0.9)
    shift: float = option(0.5, "augmentation: move each image by up to this many pixels", least=0.0)
    rotation: float = option(5.0, "augmentation: turn each image by up to this many degrees", least=0.0, most=180.0)
    zoom: float = option(0.05, "augmentation: scale each image by up to this share of its size", least=0.0, most=0.9)
    tangents: str | None = option(
        None, "run or checkpoint of an autoencoder, along whose tangents the class should not change (Tangent Prop)"
    )
    num_tangents: int = option(8, "number of tangents of each image that are used", least=1)
    tangent_weight: float = option(0.01, "weight of the squared derivatives along the tangents in the loss", least=0.0)
    tangent_images: int = option(32, "number of images of each batch whose tangents are used", least=1)


def augment(x: Tensor, shift: float, rotation: float, zoom: float) -> Tensor:
    """Each image of x (B, C, H, W) moved, turned and scaled by amounts of its own, uniform within the bounds."""
    if not (shift or rotation or zoom):
        return x
    u = 2 * torch.rand(4, len(x), device=x.device) - 1
    angle = u[0] * rotation * torch.pi / 180
    scale = 1 + zoom * u[1]
    height, width = x.shape[2:]
    rows = [
        torch.stack([scale * angle.cos(), -scale * angle.sin(), 2 * shift / width * u[2]], 1),
        torch.stack([scale * angle.sin(), scale * angle.cos(), 2 * shift / height * u[3]], 1),
    ]
    where = F.affine_grid(torch.stack(rows, 1), list(x.shape), align_corners=False)
    return F.grid_sample(x, where, padding_mode="border", align_corners=False)


def load_autoencoder(options: ClassifierOptions, source: DataSource) -> AutoencoderPipeline:
    """The autoencoder that --tangents names.

    Raises:
        UsageError: it is none, takes other images, or has fewer tangents.
    """
    autoencoder = load_component(options.tangents, "autoencoder", AutoencoderModel, "--tangents")
    shape, most = autoencoder.config.data_spec["shape"], autoencoder.config.latent_dim
    if list(shape) != list(source.shape):
        raise UsageError(f"--tangents {options.tangents}: takes images of {shape}, the data has {list(source.shape)}")
    if options.num_tangents > most:
        raise UsageError(f"--num_tangents is {options.num_tangents}; the autoencoder has {most} at most")
    return AutoencoderPipeline(autoencoder.eval().requires_grad_(False))


def tangent_penalty(logits: Tensor, x: Tensor, tangents: Tensor) -> Tensor:
    """sum over classes and tangents of (d logit / d x . v)^2, the mean over images: a scalar.

    Unbiased, from one backward pass: E_u (u^T J v)^2 = ||J v||^2 for standard normal u over the classes.

    Args:
        logits: (B, classes), computed from x with gradients on.
        x: (B, *shape).
        tangents: (b, k, *shape) of the first b of them.
    """
    (gradient,) = torch.autograd.grad(
        logits[: len(tangents)], x, torch.randn_like(logits[: len(tangents)]), create_graph=True
    )
    gradient = gradient[: len(tangents)]
    along = (gradient.flatten(1)[:, None] * tangents.flatten(2)).sum(2)  # (B, k)
    return along.square().sum(1).mean()


def build_model(options: ClassifierOptions, source: DataSource) -> ClassifierModel:
    """A classifier with random weights, of pixels in [-1, 1]."""
    names = ("width", "num_blocks", "num_levels", "feature_dim", "dropout", "architecture")
    return ClassifierModel(source.spec("8-bit", (-1, 1)), **{name: getattr(options, name) for name in names})


def picture(pipeline: ClassifierPipeline, source: DataSource) -> bytes:
    """The validation images to whose class the model gives the least probability, the hardest first."""
    batch = rows_to_show(source, LOOKED_THROUGH, first="validation")
    x, labels = source.as_input(batch), batch["class_labels"]
    given = pipeline.classify(x).gather(1, labels[:, None].to(pipeline.device))[:, 0]
    hardest = x[given.argsort()[:SHOWN].cpu()]
    return image_grid(hardest.permute(0, 2, 3, 1).numpy(), 8)


def inspect(pipeline: ClassifierPipeline, source: DataSource) -> tuple[dict, list[str]]:
    """Accuracy on the validation split."""
    right = count = 0
    for batch in batches_in_order(source.validation, 500, 10_000):
        right += int((pipeline.classify(source.as_input(batch)).argmax(1).cpu() == batch["class_labels"]).sum())
        count += num_rows(batch)
    return ({"validation_accuracy": right / count} if count else {}), []


def main(argv: list[str] | None = None) -> None:
    options = parse(ClassifierOptions, argv, __doc__)
    run, source, model = start(DECLARATION, "classifier", options, build_model)
    autoencoder = None if options.tangents is None else load_autoencoder(options, source).to(run.accelerator.device)
    low, high = model.config.data_spec["range"]

    def loss(model, batch: dict[str, Tensor], step: int) -> dict:
        x, class_labels = batch["x"], batch["class_labels"]
        if torch.is_grad_enabled():  # images are measured as they are
            x = augment(x, options.shift, options.rotation, options.zoom)
        if autoencoder is None or not torch.is_grad_enabled():
            return {"loss": model(x, class_labels, return_dict=False)[0]}
        tangents = autoencoder.tangents(
            (x[: options.tangent_images] - low) / (high - low), options.num_tangents
        ).tangents
        nats, logits = model(x.requires_grad_(), class_labels, return_dict=False)
        penalty = tangent_penalty(logits, x, tangents)
        return {"loss": nats + options.tangent_weight * penalty, "class_nats": nats, "tangent_penalty": penalty}

    train(run, source, model, loss, ClassifierPipeline, picture, inspect)


if __name__ == "__main__":
    command_line(main)
