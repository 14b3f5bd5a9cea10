"""Train a coupling flow on points: an invertible network, so that log p(x) is exact.

    python -m training.flows.coupling                                              # two moons, about a minute
    python -m training.flows.coupling --dataset spiral --transform affine --output_dir runs/affine
    python -m training.flows.coupling --config training/flows/coupling-2d.yaml

The loss is the mean of -log p(x), nats.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pipelines.flows.modeling_coupling import TRANSFORMS, CouplingFlowModel
from pipelines.flows.pipeline_coupling import CouplingFlowPipeline
from training.data.images import DataOptions
from training.data.source import DataSource, rows_to_show
from training.declaration import DRAW_POINTS, Declaration
from training.loops.run import start
from training.loops.run_options import RunOptions
from training.loops.single import train
from training.options import UsageError, command_line, option, parse, with_default
from training.pictures import scatter

DECLARATION = Declaration(
    family="coupling",
    branch="flows",
    title="Coupling flow",
    example=f"{DRAW_POINTS}\nprint(pipe.log_prob(points))  # nats, exact",
    measures=("likelihood", "cost", "kept_rows"),
    unit="point",
    task="other",
    paper="https://arxiv.org/abs/1906.04032",
)
ROWS_TO_SCALE = 20_000  # of the training rows, from which the flow takes their mean and standard deviation


@dataclass
class CouplingOptions(DataOptions, RunOptions):
    output_dir: str = with_default(RunOptions, "output_dir", "runs/coupling-moons")
    dataset: str = with_default(DataOptions, "dataset", "moons")
    max_steps: int = with_default(RunOptions, "max_steps", 3_000)
    batch_size: int = with_default(RunOptions, "batch_size", 512)
    learning_rate: float = with_default(RunOptions, "learning_rate", 5e-3)
    max_grad_norm: float = with_default(RunOptions, "max_grad_norm", 10.0)
    transform: str = option("spline", "what a layer does to the half of x that it moves", choices=TRANSFORMS)
    num_blocks: int = option(4, "number of invertible layers, one on top of another", least=1, most=1_000)
    width: int = option(96, "hidden units of the network in each layer", least=1)
    num_bins: int = option(8, "number of bins of each spline", least=2, most=256)
    bound: float = option(
        4.0, "splines are the identity beyond this many standard deviations of the data", above=0.0, most=1_000.0
    )
    elementwise: bool = option(True, "move each number of the half that a layer sees, too, by a transform of its own")
    conditional: bool = option(False, "tell each layer the class, for p(x|c)")


def build_model(options: CouplingOptions, source: DataSource) -> CouplingFlowModel:
    """The flow, with the scale of the training rows."""
    if source.kind != "vector":
        raise UsageError(f"--dataset {options.dataset} holds {source.kind}s; a coupling flow takes vectors, like moons")
    if options.conditional and not source.class_names:
        raise UsageError(f"--conditional is true, but --dataset {options.dataset} has no classes")
    names = ("transform", "num_blocks", "width", "num_bins", "bound", "conditional", "elementwise")
    flow = CouplingFlowModel(source.spec("real"), **{name: getattr(options, name) for name in names})
    flow.set_scale(source.as_input(rows_to_show(source, ROWS_TO_SCALE, first="train")))
    return flow


def picture(pipeline: CouplingFlowPipeline, source: DataSource) -> bytes:
    """Samples beside points of the data."""
    samples = pipeline(2_000, generator=torch.Generator().manual_seed(0), output_type="np").samples
    return scatter(samples, source.as_input(rows_to_show(source, 2_000)).numpy())


def main(argv: list[str] | None = None) -> None:
    options = parse(CouplingOptions, argv, __doc__)
    run, source, model = start(DECLARATION, "flow", options, build_model)

    def loss(model, batch: dict[str, Tensor], step: int) -> dict:
        return {"loss": -model(batch["x"], batch["class_labels"] if options.conditional else None).log_prob.mean()}

    train(run, source, model, loss, CouplingFlowPipeline, picture)


if __name__ == "__main__":
    command_line(main)
