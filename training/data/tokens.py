"""Tokens: tokenizers, and splits of windows of tokens."""

from array import array
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import Dataset

from training.components import load_component
from training.data.documents import decoded_rows, text_of
from training.data.splits import Batch, StreamSplit
from training.options import UsageError

END = "<|endoftext|>"
UNKNOWN = "\ufffd"  # the letter that stands for any letter which is in no vocabulary


def train_tokenizer(texts: list[str], kind: str, vocab_size: int, context_length: int, unknown: bool = False):
    """A `PreTrainedTokenizerFast` for these texts.

    Args:
        kind: "bpe", of bytes (Radford et al., 2019), or "characters": those of the texts, in order.
        vocab_size: of bpe, with the end-of-text token; fewer where the texts have no more pairs.
        unknown: of characters, whether others are read as `UNKNOWN`; without it they are an error.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    if kind == "characters":
        letters = sorted(set().union(*texts, UNKNOWN if unknown else ""))
        # else the unknown is deliberately in no vocabulary: a letter that was never read is an error, and not a token
        word = UNKNOWN if unknown else "<|unknown|>"
        made = Tokenizer(models.WordLevel({c: i for i, c in enumerate(letters)}, unk_token=word))
        made.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        made.decoder = decoders.Fuse()
    else:
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - 1, min_frequency=2, show_progress=False,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        )  # fmt: skip
        made.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token=END, pad_token=END, padding_side="left", model_max_length=context_length,
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def encode(tokenizer, texts: list[str], separated: bool) -> array:
    """Documents as one row of tokens, the end-of-text token before, between and after them where they are separated.

    Raises:
        UsageError: a character that the vocabulary lacks.
    """
    row = array("i", [tokenizer.eos_token_id] if separated else [])  # four bytes a token, where a list has more than 40
    for first in range(0, len(texts), 1_000):
        some = texts[first : first + 1_000]
        try:
            found = tokenizer(
                some, add_special_tokens=False, split_special_tokens=True, return_attention_mask=False, verbose=False
            )
        except Exception as error:
            if "[UNK]" not in str(error):
                raise
            known = tokenizer.get_vocab()
            letter = next((c for text in some for c in text if c not in known), "")
            raise UsageError(
                f"{letter!r} is in a text, but not in the tokenizer's vocabulary of characters; a --tokenizer of bpe "
                "knows every character"
            ) from None
        for ids in found["input_ids"]:
            row.extend(ids)
            if separated:
                row.append(tokenizer.eos_token_id)
    return row


class TokenSplit(Dataset):
    """Windows of `context_length + 1` of the tokens (N,), one beginning at each multiple of `stride`."""

    def __init__(self, tokens: Tensor, context_length: int, stride: int):
        self.tokens, self.stride, self.window = tokens, stride, torch.arange(context_length + 1)

    def __len__(self) -> int:
        return max(0, (len(self.tokens) - len(self.window)) // self.stride + 1)

    def __getitems__(self, indices) -> Batch:
        begins = torch.as_tensor(indices) * self.stride
        return {"tokens": self.tokens[begins[:, None] + self.window].long()}


class TokenStream(StreamSplit):
    """Windows packed from streamed documents that `keep` accepts; a shuffled window of documents, cut by process.

    Args:
        rows: of a streamed set.
        column: that holds the text.
        encode: text -> a list of tokens.
        keep: whether a text belongs to this split.
    """

    def __init__(self, rows, column: str, encode, keep, context_length: int):
        super().__init__(rows, None, keep)
        self.column, self.encode, self.context_length = column, encode, context_length

    def __iter__(self) -> Iterator[Batch]:
        buffer: list[int] = []
        size = self.context_length + 1
        for row in decoded_rows(self.rows):
            text = text_of(row[self.column], "a row", self.column)
            if not text or not self.keep(text):
                continue
            buffer += self.encode(text)
            while len(buffer) >= size:
                yield {"tokens": torch.tensor(buffer[:size])}
                del buffer[: size - 1]  # the last token is the next window's first: it has only been a target


def load_tokenizer(source: str):
    """Of a run, a checkpoint or a Hub repository.

    Raises:
        UsageError: there is none.
    """
    from transformers import AutoTokenizer

    tokenizer = load_component(source, None, AutoTokenizer)
    if tokenizer.eos_token_id is None:
        raise UsageError(f"--init_from {source}: its tokenizer has no end-of-text token")
    return tokenizer
