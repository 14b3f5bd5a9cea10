"""Train Glow: a flow on images, whose bound on log p(x) is close, and which maps each image to a code and back.

    python -m training.flows.glow                                                  # digits, about a minute
    python -m training.flows.glow --config training/flows/glow-mnist.yaml
    python -m training.flows.glow --dequantization variational --conditional true --output_dir runs/glow-by-class

The loss is -log p(y) + log q(y|x) at a place y within the levels of x, in bits/dim: an upper bound on -log p(x).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pipelines.flows.layers import MIXINGS
from pipelines.flows.modeling_glow import DEQUANTISATIONS, GlowModel
from pipelines.flows.pipeline_glow import GlowPipeline
from training.data.images import DataOptions
from training.data.source import DataSource, rows_to_show
from training.declaration import DRAW_IMAGES, Declaration
from training.loops.run import start
from training.loops.run_options import RunOptions
from training.loops.single import train
from training.options import UsageError, command_line, option, parse, with_default
from training.pictures import image_grid

DECLARATION = Declaration(
    family="glow",
    branch="flows",
    title="Glow",
    example=DRAW_IMAGES,
    measures=("likelihood", "samples", "cost", "kept_rows"),
    paper="https://arxiv.org/abs/1807.03039",
)
ROWS_TO_BEGIN = 512  # of the training rows, by which each actnorm is set


@dataclass
class GlowOptions(DataOptions, RunOptions):
    output_dir: str = with_default(RunOptions, "output_dir", "runs/glow-digits")
    max_steps: int = with_default(RunOptions, "max_steps", 1_500)
    batch_size: int = with_default(RunOptions, "batch_size", 64)
    learning_rate: float = with_default(RunOptions, "learning_rate", 2e-3)
    max_grad_norm: float = with_default(RunOptions, "max_grad_norm", 1.0)
    num_levels: int = option(2, "number of resolutions, each half of the one before", least=1, most=8)
    num_blocks: int = option(6, "number of steps (actnorm, 1x1 convolution, coupling) at each resolution", least=1)
    width: int = option(32, "channels inside the network of each coupling at the finest resolution", least=1)
    top_width: int = option(0, "channels at all other resolutions; 0 takes --width", least=0)
    depth: int = option(
        0, "gated residual blocks in the network of each coupling; 0 for Glow's three convolutions", least=0
    )
    mixing: str = option("lu", "how the 1x1 convolution is learned: by its LU decomposition or plain", choices=MIXINGS)
    dequantization: str = option(
        "uniform", "how a place within each pixel's level is drawn: uniform, or learned", choices=DEQUANTISATIONS
    )
    dequantizer_width: int = option(16, "channels inside the networks of a learned dequantization", least=1)
    dequantizer_blocks: int = option(4, "number of couplings of a learned dequantization", least=1)
    conditional: bool = option(False, "give the codes of the top a mean and a scale for each class, for p(x|c)")


def build_model(options: GlowOptions, source: DataSource) -> GlowModel:
    """The flow, each actnorm set by the first training rows."""
    if source.kind != "image":
        raise UsageError(f"--dataset {options.dataset} holds {source.kind}s; glow takes images")
    if options.conditional and not source.class_names:
        raise UsageError(f"--conditional is true, but --dataset {options.dataset} has no classes")
    names = ("num_levels", "num_blocks", "width", "depth", "mixing", "conditional")
    names += ("dequantization", "dequantizer_width", "dequantizer_blocks")
    given = {name: getattr(options, name) for name in names}
    flow = GlowModel(source.spec("8-bit", (0, 1)), top_width=options.top_width or None, **given)
    flow.initialise(source.as_input(rows_to_show(source, ROWS_TO_BEGIN, first="train")))
    return flow


def picture(pipeline: GlowPipeline, source: DataSource) -> bytes:
    """64 samples; a conditional flow shows its classes column by column."""
    columns = min(pipeline.num_classes, 10) or 8
    labels = [i % columns for i in range(8 * columns)] if pipeline.num_classes else None
    generator = torch.Generator().manual_seed(0)
    return image_grid(pipeline(8 * columns, labels, generator=generator, output_type="np").images, columns)


def main(argv: list[str] | None = None) -> None:
    options = parse(GlowOptions, argv, __doc__)
    run, source, model = start(DECLARATION, "flow", options, build_model)
    bits = 1 / (math.prod(source.shape) * math.log(2))

    def loss(model, batch: dict[str, Tensor], step: int) -> dict:
        out = model(batch["x"], batch["class_labels"] if options.conditional else None)
        terms = {"loss": -bits * out.log_prob.mean()}
        return {**terms, "log_q": bits * out.log_q.mean()} if options.dequantization == "variational" else terms

    train(run, source, model, loss, GlowPipeline, picture)


if __name__ == "__main__":
    command_line(main)
