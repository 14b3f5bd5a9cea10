"""What a denoiser's card shows of training it further: ten lines of Python, for the network that was trained."""

from training.data.source import DataSource
from training.loops.run_options import RunOptions


def training_example(options: RunOptions, source: DataSource, conditional: bool, patch: int) -> str:
    """Python that trains a loaded pipeline's network further: what it is given, and what it is to predict.

    Args:
        options: a denoiser's, with its `network`, `prediction_type`, `num_train_timesteps` and `label_dropout`.
        source: the data that it was trained on.
        conditional: whether the network is given the class.
        patch: side of the squares of pixels that the network sees as channels; 1 for none.
    """
    image, classes, shape = source.kind == "image", len(source.class_names), source.shape
    drawn = f"2 * torch.rand(32, {', '.join(map(str, shape))}) - 1" if image else f"torch.randn(32, {shape[0]})"
    noisy, output = "noising.add_noise(x, noise, t)", "predicted"
    if patch > 1:
        noisy, output = f"F.pixel_unshuffle({noisy}, {patch})", f"F.pixel_shuffle(predicted, {patch})"
    labels = []
    if conditional:
        labels = [
            f"    c = torch.randint({classes}, (32,))",
            f"    c[torch.rand(32) < {options.label_dropout:g}] = {classes}  # no class: what guidance compares with",
        ]
    elif options.network == "dit":
        labels = ["    c = torch.zeros(32, dtype=torch.long)"]
    given = ", class_labels=c" if labels else ""
    target = {"epsilon": "noise", "sample": "x"}.get(options.prediction_type, "noising.get_velocity(x, noise, t)")
    lines = [
        "import torch",
        "import torch.nn.functional as F",
        "from diffusers import DDPMScheduler",
        "",
        "network, noising = pipe.denoiser.train(), DDPMScheduler.from_config(pipe.scheduler.config)",
        "optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5)",
        f"for step in range(10):  # put your own {source.kind}s{', and their classes,' if conditional else ''} here",
        f"    x = {drawn}{'  # pixels in [-1, 1]' if image else ''}",
        f"    t, noise = torch.randint({options.num_train_timesteps}, (32,)), torch.randn_like(x)",
        *labels,
        f"    predicted = network({noisy}, t{given}, return_dict=False)[0]",
        f"    F.mse_loss({output}, {target}).backward()",
        "    optimizer.step()",
        "    optimizer.zero_grad()",
        "network.eval()",
    ]
    return "\n".join(lines)
