"""The two-player loop: a discriminator that tells real x from made ones, a generator that it judges, in turn.

A recipe hands over five functions and nothing else, each half step on its own draw of z:
    discriminator_loss(generator, discriminator, batch, step) -> {"loss": scalar, other terms: scalars}
    generator_loss(generator, discriminator, batch, step) -> the same, of the generator
    make_pipeline(generator, discriminator) -> the pipeline to export
    picture(pipeline, source) -> PNG bytes for samples.png
    inspect(pipeline, source) -> ({figure: value}, [warnings]), asked each --eval_every steps

In its half step a player's opponent is held fixed: its parameters take no gradient. There is no loss that falls, so there
are no best weights: what is exported is the generator's average at the end, with the discriminator as it is.
"""

from collections.abc import Callable

import torch
from torch import nn

from training.data.batches import check_batch_size
from training.data.source import Source
from training.loops.run import Run
from training.loops.steps import next_batch, optimizer_step, run_steps
from training.loops.weights import WeightAverage, export_copy, learning_rate_at, make_optimizer
from training.options import UsageError

LOSSES = ("discriminator_loss", "generator_loss")


def train(
    run: Run,
    source: Source,
    generator: nn.Module,
    discriminator: nn.Module,
    discriminator_loss: Callable,
    generator_loss: Callable,
    make_pipeline: Callable,
    picture: Callable,
    inspect: Callable = lambda pipeline, source: ({}, []),
    curve: tuple[str, ...] = LOSSES,
) -> None:
    """Train both players on `source.train` and leave the finished pipeline in the run folder.

    The recipe's options have `n_critic`, the discriminator's steps for each of the generator's, `critic_learning_rate` (or
    None) and `adam_beta1` beside those of `RunOptions`. `curve` names the terms that curve.png shows.

    Raises:
        Stopped: a signal came, or a term of a loss was not finite.
        UsageError: the options and the data do not fit, or the folder cannot be written.
    """
    options, accelerator = run.options, run.accelerator
    check_batch_size(source.train, options.batch_size, run.world)  # before anything is written
    if run.sharding:
        raise UsageError("accelerate is configured to FSDP; two players are trained whole: configure it to MULTI_GPU")
    spec = generator.config.data_spec
    players = {"generator": generator, "discriminator": discriminator}
    rates = {"generator": options.learning_rate, "discriminator": options.critic_learning_rate or options.learning_rate}
    for player in players.values():
        player.to(accelerator.device)
    average = WeightAverage(generator, options.ema_decay)
    wrapped, optimizers = {}, {}
    for name, player in players.items():
        optimizer = make_optimizer(player, options, rates[name], options.adam_beta1)
        wrapped[name], optimizers[name] = accelerator.prepare(player, optimizer)
    parts = {**players, "average": average, **{f"{name}_optimizer": o for name, o in optimizers.items()}}
    if accelerator.scaler is not None:
        parts["scaler"] = accelerator.scaler
    parameters = {name: list(player.parameters()) for name, player in players.items()}
    config = {name: dict(player.config) for name, player in players.items()}
    step = run.begin(source, config, parts, sum(p.numel() for both in parameters.values() for p in both))

    def half_step(name: str, loss: Callable, step: int, batch: Callable) -> dict[str, torch.Tensor]:
        """One optimizer step of a player, against an opponent that stands still."""
        opponent = "discriminator" if name == "generator" else "generator"
        players[name].requires_grad_(True)
        players[opponent].requires_grad_(False)
        for group in optimizers[name].param_groups:
            group["lr"] = rates[name] * learning_rate_at(step, options)
        # the opponent is called bare: wrapped for several processes, it would wait for gradients that do not come
        seen = {name: wrapped[name], opponent: players[opponent]}

        def losses() -> dict:
            return loss(seen["generator"], seen["discriminator"], batch(), step)

        terms = optimizer_step(run, wrapped[name], optimizers[name], parameters[name], losses)
        return {f"{name}_{term}": value for term, value in terms.items()}

    def one_step(step: int, batches) -> dict[str, torch.Tensor]:
        terms: dict[str, torch.Tensor] = {}
        for _ in range(options.n_critic):
            last = [next_batch(run, source, batches, spec) for _ in range(options.gradient_accumulation_steps)]
            found = half_step("discriminator", discriminator_loss, step, iter(last).__next__)
            for term, value in found.items():
                terms[term] = terms.get(term, 0) + value / options.n_critic
        # the generator needs no data but its classes: those of the last batch do
        terms |= half_step("generator", generator_loss, step, iter(last).__next__)
        average.update()
        return terms

    def validate(step: int) -> None:
        if not run.is_main:
            return
        figures, warnings = inspect(make_pipeline(average.module, discriminator), source)
        discriminator.train()
        run.log(step, figures)
        for warning in warnings:
            run.warn(step, warning)
        run.draw_curve(curve)

    def draw() -> None:
        if run.is_main:
            run.draw_samples(picture(make_pipeline(average.module, discriminator), source))
            discriminator.train()

    per_step = options.gradient_accumulation_steps * options.n_critic
    step = run_steps(run, source, step, parts, per_step, one_step, validate, draw, headline=LOSSES)
    finished = export_copy(discriminator).requires_grad_(True)
    run.finish(step, lambda generator: make_pipeline(generator, finished), export_copy(average.module))
