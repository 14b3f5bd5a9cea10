"""Train a made-up density of striped images.

python -m training.guessing.stripes
"""

from dataclasses import dataclass

import torch
from pipelines.guessing.modeling_stripes import StripesModel
from pipelines.guessing.pipeline_stripes import StripesPipeline

from training.data.images import DataOptions
from training.data.source import DataSource
from training.declaration import DRAW_IMAGES, Declaration
from training.loops.run import start
from training.loops.run_options import RunOptions
from training.loops.single import train
from training.options import command_line, option, parse
from training.pictures import image_grid

DECLARATION = Declaration(
    family="stripes",
    branch="guessing",
    title="Made-up stripes",
    example=DRAW_IMAGES,
    measures=("likelihood", "cost", "kept_rows"),
)


@dataclass
class StripesOptions(DataOptions, RunOptions):
    output_dir: str = option("runs/stripes-digits", "folder that the run is written to", may_change_on_resume=True)
    max_steps: int = option(100, "number of optimizer steps of the run", least=1)


def picture(pipeline: StripesPipeline, source: DataSource) -> bytes:
    """64 samples."""
    return image_grid(pipeline(64, generator=torch.Generator().manual_seed(0), output_type="np").images, 8)


def main(argv: list[str] | None = None) -> None:
    options = parse(StripesOptions, argv, __doc__)
    run, source, model = start(
        DECLARATION, "stripes", options, lambda options, source: StripesModel(source.spec("binary"))
    )

    def loss(model, batch: dict, step: int) -> dict:
        return {"loss": -model(batch["x"]).mean()}

    train(run, source, model, loss, StripesPipeline, picture)


if __name__ == "__main__":
    command_line(main)
