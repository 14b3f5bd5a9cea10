"""The options of every run: the recipes' dataclasses begin with one of these."""

import dataclasses
import os
from typing import ClassVar

from training.options import check_repo_id, option


@dataclasses.dataclass
class CommonOptions:
    """What every run is told, trained by steps or fitted at once."""

    GROUP: ClassVar[str] = "run"

    output_dir: str = option("runs/run", "folder that this run writes into", may_change_on_resume=True)
    resume: bool = option(False, "go on with the run in --output_dir", may_change_on_resume=True)
    overwrite: bool = option(False, "discard the run in --output_dir and start anew", may_change_on_resume=True)
    seed: int = option(
        0, "seed of the initial weights, of the order of the data and of all noise", least=0, most=2**32 - 1
    )
    report_to: str = option(
        "none",
        "also send the figures to this experiment tracker",
        choices=("none", "tensorboard", "trackio", "wandb"),
        may_change_on_resume=True,
        group="logging",
    )
    push_to_hub: str | None = option(
        None, "publish the finished run to this repository of the Hub, like user/name", may_change_on_resume=True
    )

    def __post_init__(self):
        if self.push_to_hub is not None:
            check_repo_id(self.push_to_hub, "--push_to_hub")


@dataclasses.dataclass
class RunOptions(CommonOptions):
    """How to train by steps; the options of such a recipe begin with these and with `DataOptions`.

    `precision_of_launcher` is not empty where the precision is what `accelerate launch` was configured to.
    """

    GROUP: ClassVar[str] = "training"

    init_from: str | None = option(None, "start from the weights of this run, checkpoint or Hub repository")
    max_steps: int = option(1_000, "number of optimizer steps to train for", least=1)
    batch_size: int = option(128, "number of samples that each process takes at once", least=1)
    gradient_accumulation_steps: int = option(1, "number of batches that one optimizer step averages over", least=1)
    learning_rate: float = option(1e-3, "the highest learning rate, reached at the end of the warm-up", above=0.0)
    lr_scheduler: str = option(
        "cosine", "how the learning rate goes on after the warm-up", choices=("constant", "linear", "cosine")
    )
    lr_warmup_steps: int = option(100, "number of steps in which the learning rate rises from zero", least=0)
    weight_decay: float = option(0.0, "weight decay of the AdamW optimizer; biases and norms have none", least=0.0)
    adam_beta2: float = option(0.99, "decay of the squared gradients' moving average in AdamW", least=0.0, below=1.0)
    max_grad_norm: float = option(100.0, "clip gradients to this norm; 0 leaves them as they are", least=0.0)
    ema_decay: float = option(
        0.999,
        "decay of the moving average of the weights, which is what is exported; 0 exports the last weights",
        least=0.0,
        most=1.0,
    )
    mixed_precision: str | None = option(
        None,
        "number format in which the networks compute; by default what accelerate launch is configured to, or no",
        choices=("no", "bf16", "fp16"),
    )
    dataloader_workers: int = option(
        0,
        "number of processes that decode images, for data sets larger than memory",
        least=0,
        may_change_on_resume=True,
    )
    log_every: int = option(
        50, "steps between two lines of the log", least=1, may_change_on_resume=True, group="logging"
    )
    eval_every: int = option(500, "steps between two validations of the averaged weights", least=1, group="logging")
    save_every: int = option(500, "steps between two checkpoints of the run", least=1, may_change_on_resume=True)
    sample_every: int = option(
        500, "steps between two pictures of samples", least=1, may_change_on_resume=True, group="logging"
    )
    keep_checkpoints: int = option(
        2, "number of checkpoints that are kept, beside the best one", least=1, may_change_on_resume=True
    )
    export: str = option(
        "best",
        "weights of the finished pipeline: the averaged ones of the best validation, or the last averaged ones",
        choices=("best", "last"),
        may_change_on_resume=True,
    )

    def __post_init__(self):
        super().__post_init__()
        launcher = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
        self.precision_of_launcher = "" if self.mixed_precision is not None else launcher.removeprefix("no")
        if self.mixed_precision is None:
            self.mixed_precision = launcher
