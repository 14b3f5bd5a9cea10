"""Train a denoising diffusion model: the network learns to tell the noise in an image, and so the image in the noise.

    python -m training.diffusion.ddpm                                                # digits, under a minute
    python -m training.diffusion.ddpm --dataset ring --network mlp --output_dir runs/ddpm-ring
    accelerate launch -m training.diffusion.ddpm --config training/diffusion/ddpm-mnist.yaml

The loss is the squared error of the prediction (eps, x_0 or v), a mean over dimensions, at timesteps that are spread
evenly over each batch (arXiv 2107.00630, appendix I). `--loss_weighting min_snr` is arXiv 2303.09556, equation 8.
"""

from dataclasses import dataclass, replace

import torch
from diffusers import DDPMScheduler, DiTTransformer2DModel, DPMSolverMultistepScheduler, UNet2DModel
from torch import Tensor, nn

from pipelines.diffusion.denoiser import keep_labels, run_denoiser
from pipelines.diffusion.modeling_ddpm import MLPDenoiser
from pipelines.diffusion.pipeline_ddpm import DenoisingDiffusionPipeline
from training.data.images import DataOptions
from training.data.source import DataSource, rows_to_show
from training.declaration import DRAW_IMAGES, DRAW_POINTS, Declaration
from training.denoising import training_example
from training.loops.run import start
from training.loops.run_options import RunOptions
from training.loops.single import train
from training.options import UsageError, command_line, option, parse, with_default
from training.pictures import image_grid, scatter

DECLARATION = Declaration(
    family="ddpm",
    branch="diffusion",
    title="Denoising diffusion",
    example=DRAW_IMAGES,
    points_example=DRAW_POINTS,
    measures=("likelihood", "samples", "cost", "kept_rows"),
    paper="https://arxiv.org/abs/2006.11239",
    class_arguments="class_labels=[0, 1], guidance_scale=1.5, num_inference_steps=20",
)
BETA_SCHEDULES = {"linear": "linear", "cosine": "squaredcos_cap_v2"}  # as diffusers calls them
NETWORKS, PREDICTIONS = ("unet", "dit", "mlp"), ("epsilon", "sample", "v_prediction")
HEAD = 32  # channels of an attention head
NORM_GROUPS = 8  # channels are normalised in this many groups


@dataclass
class DDPMOptions(DataOptions, RunOptions):
    output_dir: str = with_default(RunOptions, "output_dir", "runs/ddpm-digits")
    max_steps: int = with_default(RunOptions, "max_steps", 500)
    batch_size: int = with_default(RunOptions, "batch_size", 64)
    learning_rate: float = with_default(RunOptions, "learning_rate", 4e-3)
    ema_decay: float = with_default(RunOptions, "ema_decay", 0.99)
    max_grad_norm: float = with_default(RunOptions, "max_grad_norm", 1.0)
    network: str = option("unet", "kind of the denoiser: unet and dit take images, mlp takes vectors", choices=NETWORKS)
    width: list[int] = option((32, 64), "channels at each level of a unet, or the one width of a dit or mlp", least=8)
    num_blocks: int = option(1, "residual blocks at each level of a unet, or blocks in all of a dit or mlp", least=1)
    attention_levels: int = option(0, "number of a unet's lowest levels that have self-attention", least=0)
    patch_size: int = option(1, "side in pixels of the squares that enter the network as one", least=1)
    dropout: float = option(0.0, "dropout probability inside the blocks of a unet or dit", least=0.0, most=0.9)
    conditional: bool = option(True, "give the class to the network, where the data have classes")
    label_dropout: float = option(0.1, "share of samples whose class is hidden, for guidance", above=0.0, below=1.0)
    prediction_type: str = option("v_prediction", "what the network predicts: noise, x_0 or v", choices=PREDICTIONS)
    beta_schedule: str = option(
        "cosine", "how the variance of the noise grows over timesteps", choices=tuple(BETA_SCHEDULES)
    )
    zero_terminal_snr: bool = option(False, "rescale the noise schedule so that the last timestep is pure noise")
    num_train_timesteps: int = option(1_000, "number of timesteps of the noise schedule, T", least=2)
    loss_weighting: str = option(
        "simple",
        "weight of each timestep's error: equal (simple), or by its signal-to-noise ratio",
        choices=("simple", "min_snr"),
    )
    snr_gamma: float = option(5.0, "signal-to-noise ratio (SNR) at which min_snr clips the weight", above=0.0)
    guidance_scale: float = option(1.0, "guidance when a call gives none", least=0.0, may_change_on_resume=True)
    num_inference_steps: int = option(
        20, "steps of sampling when a call gives none", least=1, may_change_on_resume=True
    )

    def __post_init__(self):
        super().__post_init__()
        if self.zero_terminal_snr and self.prediction_type == "epsilon":
            raise UsageError(
                "--prediction_type is 'epsilon', but with --zero_terminal_snr x_0 cannot be computed from pure noise; "
                "it must be v_prediction or sample"
            )
        if self.num_inference_steps > self.num_train_timesteps:
            raise UsageError(
                f"--num_inference_steps is {self.num_inference_steps}; it must be at most --num_train_timesteps, "
                f"{self.num_train_timesteps}"
            )
        if self.network != "unet" and len(self.width) != 1:
            raise UsageError(f"--width is {self.width}; a {self.network} has one width")
        if self.attention_levels > len(self.width):
            raise UsageError(f"--attention_levels is {self.attention_levels}; --width names {len(self.width)} levels")


def is_conditional(options: DDPMOptions, source: DataSource) -> bool:
    """Whether the network is given the class: where that is asked for, and the data have classes."""
    return options.conditional and bool(source.class_names)


def build_model(options: DDPMOptions, source: DataSource) -> nn.Module:
    """The denoiser: diffusers' own for images."""
    # classes and, last, "no class"
    rows = len(source.class_names) + 1 if is_conditional(options, source) else None
    if (options.network == "mlp") != (source.kind == "vector"):
        right = "mlp" if source.kind == "vector" else "unet or dit"
        raise UsageError(
            f"--network is {options.network}, but --dataset {options.dataset} holds {source.kind}s; it must be {right}"
        )
    if options.network == "mlp":
        return MLPDenoiser(source.shape[0], options.width[0], options.num_blocks, rows)
    channels, height, side = source.shape
    if height != side:
        raise UsageError(f"--dataset {options.dataset}: images of {side}x{height}; give --resolution to make squares")
    if side % options.patch_size:
        raise UsageError(f"--patch_size is {options.patch_size}; it must divide the images' side, {side}")
    if options.network == "dit":
        if options.width[0] % HEAD:
            raise UsageError(f"--width is {options.width[0]}; that of a dit must be a multiple of {HEAD}")
        model = DiTTransformer2DModel(
            num_attention_heads=options.width[0] // HEAD,
            attention_head_dim=HEAD,
            in_channels=channels,
            out_channels=channels,
            num_layers=options.num_blocks,
            dropout=options.dropout,
            sample_size=side,
            patch_size=options.patch_size,
            num_embeds_ada_norm=rows - 1 if rows else 1,
        )
        return keep_labels(model)
    side, levels = side // options.patch_size, len(options.width)
    if side % 2 ** (levels - 1):
        raise UsageError(
            f"--width names {levels} levels; images of {side} (after --patch_size) cannot be halved so often"
        )
    odd = [w for w in options.width if w % NORM_GROUPS]
    if odd:
        raise UsageError(f"--width is {odd[0]}; that of a unet must be a multiple of {NORM_GROUPS}")
    attention = [levels - i <= options.attention_levels for i in range(levels)]
    return UNet2DModel(
        sample_size=side,
        in_channels=channels * options.patch_size**2,
        out_channels=channels * options.patch_size**2,
        layers_per_block=options.num_blocks,
        block_out_channels=options.width,
        down_block_types=["AttnDownBlock2D" if a else "DownBlock2D" for a in attention],
        up_block_types=["AttnUpBlock2D" if a else "UpBlock2D" for a in attention[::-1]],
        attention_head_dim=HEAD if attention[-1] else None,
        add_attention=options.attention_levels > 0,
        norm_num_groups=NORM_GROUPS,
        dropout=options.dropout,
        num_class_embeds=rows,
    )


def build_scheduler(options: DDPMOptions) -> DDPMScheduler:
    """The forward process, and ancestral sampling."""
    return DDPMScheduler(
        num_train_timesteps=options.num_train_timesteps,
        beta_start=1e-4,  # said, since another scheduler made from this one puts its own default for what is not
        beta_end=0.02,
        beta_schedule=BETA_SCHEDULES[options.beta_schedule],
        rescale_betas_zero_snr=options.zero_terminal_snr,
        prediction_type=options.prediction_type,
        timestep_spacing="trailing",
    )


def spread_timesteps(count: int, num_timesteps: int, device) -> Tensor:
    """`count` timesteps in equal distances from a common random start: (count,) int64, each uniform by itself."""
    u = (torch.arange(count, device=device) + torch.rand((), device=device)) / count
    return (u * num_timesteps).long().clamp(max=num_timesteps - 1)


def loss_weight(snr: Tensor, prediction_type: str, weighting: str, gamma: float) -> Tensor:
    """The factor on the squared error at timesteps of this signal-to-noise ratio: (B,) -> (B,).

    min_snr weighs the error of x_0 by min(SNR, gamma), whatever the network predicts: the error of eps is SNR times,
    that of v SNR + 1 times that of x_0 (arXiv 2303.09556, section 3.4).
    """
    if weighting == "simple":
        return torch.ones_like(snr)
    clipped = snr.clamp(max=gamma)
    return {"epsilon": clipped / snr, "sample": clipped, "v_prediction": clipped / (snr + 1)}[prediction_type]


def picture(pipeline: DenoisingDiffusionPipeline, source: DataSource) -> bytes:
    """64 samples; a conditional model shows its classes column by column."""
    classes = pipeline.data_spec["num_classes"] if pipeline.config.conditional else 0
    columns = min(classes, 10) or 8
    count = 8 * columns if source.kind == "image" else 2_000
    labels = [i % (columns if source.kind == "image" else classes) for i in range(count)] if classes else None
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    if source.kind == "vector":
        samples = pipeline(count, labels, generator=generator, output_type="np").samples
        return scatter(samples, source.as_input(rows_to_show(source, count)).numpy())
    return image_grid(pipeline(count, labels, generator=generator, output_type="np").images, columns)


def main(argv: list[str] | None = None) -> None:
    options = parse(DDPMOptions, argv, __doc__)
    run, source, model = start(DECLARATION, "denoiser", options, build_model)
    scheduler = build_scheduler(options)
    snr = scheduler.alphas_cumprod / (1 - scheduler.alphas_cumprod)
    conditional = is_conditional(options, source)
    patch = options.patch_size if options.network == "unet" else 1  # a DiT cuts its own patches
    null = len(source.class_names) if conditional else 0
    example = training_example(options, source, conditional, patch)
    run.declaration = replace(run.declaration, training_example=example)

    def loss(model, batch: dict[str, Tensor], step: int) -> dict:
        x = batch["x"]
        timesteps, noise = spread_timesteps(len(x), options.num_train_timesteps, x.device), torch.randn_like(x)
        labels = batch["class_labels"] if conditional else None
        if conditional and torch.is_grad_enabled():  # validation is given the class
            hidden = torch.rand(len(x), device=x.device) < options.label_dropout
            labels = torch.where(hidden, null, labels)
        elif options.network == "dit" and not conditional:
            labels = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        target = {"epsilon": noise, "sample": x}.get(options.prediction_type)
        if target is None:
            target = scheduler.get_velocity(x, noise, timesteps)
        output = run_denoiser(model, scheduler.add_noise(x, noise, timesteps), timesteps, labels, patch)
        weight = loss_weight(
            snr.to(x.device)[timesteps], options.prediction_type, options.loss_weighting, options.snr_gamma
        )
        return {"loss": (weight * (output - target).square().flatten(1).mean(1)).mean()}

    spec = source.spec("8-bit", (-1, 1))
    sampler = DPMSolverMultistepScheduler.from_config(scheduler.config)

    def make_pipeline(denoiser: nn.Module) -> DenoisingDiffusionPipeline:
        return DenoisingDiffusionPipeline(
            denoiser,
            sampler,
            data_spec=spec,
            conditional=conditional,
            patch_size=patch,
            guidance_scale=options.guidance_scale,
            num_inference_steps=options.num_inference_steps,
        )

    train(run, source, model, loss, make_pipeline, picture, spec=spec)


if __name__ == "__main__":
    command_line(main)
