"""Pairs of made-up texts, the longer of which is better: {"chosen_ids", "rejected_ids"}, (B, T) each."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from training.data.source import Source
from training.data.splits import ArraySplit

WORDS, LENGTH, PAD = ("one", "two", "three", "four"), 6, "<|endoftext|>"


def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate((PAD, *WORDS))}, unk_token=PAD))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token=PAD, pad_token=PAD, model_max_length=LENGTH)


def pairs(count: int, seed: int) -> ArraySplit:
    generator = torch.Generator().manual_seed(seed)
    long, short = (torch.randint(1, len(WORDS) + 1, (count, LENGTH), generator=generator) for _ in range(2))
    short[:, LENGTH // 2 :] = 0
    return ArraySplit({"chosen_ids": long, "rejected_ids": short})


@dataclass
class PairSource(Source):
    reader: ClassVar[str] = "counted_pairs"
    held_out: str = "test pairs"


def load_pairs(options=None) -> PairSource:
    licence = "none, they are computed"
    return PairSource("counts", "counted words", pairs(400, 0), pairs(50, 1), pairs(50, 2), licence=licence)


def held_out(dataset: str, data_dir: str | None, trained: dict, same_set: bool) -> PairSource:
    return load_pairs()


def kept_rows(dataset: str) -> None:
    return None
