"""The options of every run: the recipes' dataclasses begin with one of these."""

import dataclasses

from training.options import check_repo_id, option


@dataclasses.dataclass
class CommonOptions:
    """What every run is told, trained by steps or fitted at once."""

    output_dir: str = option("runs/run", "the run folder", may_change_on_resume=True)
    resume: bool = option(False, "go on with the run in --output_dir", may_change_on_resume=True)
    overwrite: bool = option(False, "discard the run in --output_dir and start anew", may_change_on_resume=True)
    seed: int = option(0, "of weights, order and noise", least=0)
    report_to: str = option(
        "none",
        "a tracker of the figures",
        choices=("none", "tensorboard", "trackio", "wandb"),
        may_change_on_resume=True,
    )
    push_to_hub: str | None = option(
        None, "the repository of the Hub, user/name, to publish the finished run to", may_change_on_resume=True
    )

    def __post_init__(self):
        if self.push_to_hub is not None:
            check_repo_id(self.push_to_hub, "--push_to_hub")


@dataclasses.dataclass
class RunOptions(CommonOptions):
    """How to train by steps; the options of such a recipe begin with these and with `DataOptions`."""

    init_from: str | None = option(None, "a run, checkpoint or Hub repository whose weights to start from")
    max_steps: int = option(1_000, "optimizer steps", least=1)
    batch_size: int = option(128, "samples a process takes at once", least=1)
    gradient_accumulation_steps: int = option(1, "batches that one optimizer step averages over", least=1)
    learning_rate: float = option(1e-3, "at its highest", above=0.0)
    lr_scheduler: str = option("cosine", "after the warm-up", choices=("constant", "linear", "cosine"))
    lr_warmup_steps: int = option(100, "steps in which the learning rate rises from zero", least=0)
    weight_decay: float = option(0.0, "of AdamW", least=0.0)
    adam_beta2: float = option(0.99, "of AdamW", least=0.0, below=1.0)
    max_grad_norm: float = option(100.0, "gradients are clipped to this norm; 0 leaves them", least=0.0)
    ema_decay: float = option(
        0.999, "of the weight average that is exported; 0 exports the last weights", least=0.0, most=1.0
    )
    mixed_precision: str = option("no", "of the networks", choices=("no", "bf16", "fp16"))
    dataloader_workers: int = option(
        0, "processes that decode images, for sets larger than memory", least=0, may_change_on_resume=True
    )
    log_every: int = option(50, "steps between two lines of the log", least=1, may_change_on_resume=True)
    eval_every: int = option(500, "steps between two validations", least=1)
    save_every: int = option(500, "steps between two checkpoints", least=1, may_change_on_resume=True)
    sample_every: int = option(500, "steps between two sample grids", least=1, may_change_on_resume=True)
    keep_checkpoints: int = option(2, "how many are kept, beside the best", least=1, may_change_on_resume=True)
    export: str = option(
        "best", "which averaged weights the finished pipeline holds, by validation", choices=("best", "last")
    )
