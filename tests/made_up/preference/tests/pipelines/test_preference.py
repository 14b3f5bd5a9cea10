"""A made-up reward model, and what every pipeline owes."""

import torch
from pipelines.ranking.pipeline_preference import PreferencePipeline
from training.data.counted_pairs import LENGTH, tokenizer
from transformers import GPT2Config, GPT2ForSequenceClassification

from tests.contract import Instance


def make():
    torch.manual_seed(0)
    words = tokenizer()
    config = GPT2Config(vocab_size=len(words), n_positions=LENGTH, n_embd=16, n_layer=1, n_head=2, num_labels=1,
                        pad_token_id=words.pad_token_id)  # fmt: skip
    return PreferencePipeline(model=GPT2ForSequenceClassification(config).eval(), tokenizer=words, device="cpu")


INSTANCES = {"preference": Instance(PreferencePipeline, make, "none", frozenset({"reward"}))}


def test_a_reward_is_one_number_a_text():
    assert make().reward(["one", "two three"]).shape == (2,)
