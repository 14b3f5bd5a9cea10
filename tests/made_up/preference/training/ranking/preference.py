"""Train a made-up reward model on pairs of texts.

    python -m training.ranking.preference

The loss is -log sigmoid(r(chosen) - r(rejected)).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from pipelines.ranking.pipeline_preference import PreferencePipeline
from training.data.counted_pairs import LENGTH, load_pairs, tokenizer
from transformers import GPT2Config, GPT2ForSequenceClassification

from training.declaration import Declaration
from training.loops.run import start
from training.loops.run_options import RunOptions
from training.loops.single import train
from training.options import command_line, option, parse
from training.pictures import image_grid

DECLARATION = Declaration(
    family="preference",
    branch="ranking",
    title="Made-up preferences",
    example='better, worse = pipe.reward(["one two three", "one"])',
    measures=("pair_accuracy", "kept_rows"),
    layout="transformers",
    unit="pair",
    task="text-classification",
)


@dataclass
class PreferenceOptions(RunOptions):
    output_dir: str = option("runs/preference-counts", "folder that the run is written to", may_change_on_resume=True)
    dataset: str = option("counts", "name of the made-up set of pairs")


def build_model(options: PreferenceOptions, source) -> GPT2ForSequenceClassification:
    words = tokenizer()
    return GPT2ForSequenceClassification(
        GPT2Config(vocab_size=len(words), n_positions=LENGTH, n_embd=16, n_layer=1, n_head=2, num_labels=1,
                   pad_token_id=words.pad_token_id)
    )  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    options = parse(PreferenceOptions, argv, __doc__)
    run, source, model = start(DECLARATION, None, options, build_model, load_pairs)

    def loss(model, batch: dict, step: int) -> dict:
        chosen, rejected = (model(input_ids=batch[name]).logits[:, 0] for name in ("chosen_ids", "rejected_ids"))
        return {"loss": -F.logsigmoid(chosen - rejected).mean(), "margin": (chosen - rejected).mean()}

    def make_pipeline(model) -> PreferencePipeline:
        model.config.custom_pipelines = {
            "reward": {
                "impl": "pipeline_preference.PreferencePipeline",
                "pt": ["AutoModelForSequenceClassification"],
                "type": "text",
            }
        }
        return PreferencePipeline(model=model, tokenizer=tokenizer(), device=model.device)

    def picture(pipeline, source) -> bytes:
        """The rewards of held-out pairs as gray levels: better texts in the upper row."""
        batch = source.test.__getitems__(range(16))
        rows = [pipeline.reward(pipeline.tokenizer.batch_decode(value)) for value in batch.values()]
        levels = torch.stack(rows).sigmoid().view(-1, 1, 1, 1).expand(-1, 8, 8, 1)
        return image_grid(levels.cpu().numpy(), 16)

    train(run, source, model, loss, make_pipeline, picture, spec={"kind": "text", "support": "tokens"})


if __name__ == "__main__":
    command_line(main)
