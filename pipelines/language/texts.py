"""Text and tokens: encoding that names what the vocabulary lacks, tokens as a person reads them, prompts."""

from collections.abc import Sequence


def _byte_letters() -> dict[str, int]:
    """The letters by which byte-level tokenizers write bytes (Radford et al., 2019): printable ones stand for
    themselves, the others for letters from 256 on."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}


class Texts:
    """A mixin of a pipeline with a `tokenizer` and a `bos_token_id`, which may be None."""

    def encode(self, text: str, name: str = "prompt") -> list[int]:
        """A text's tokens, the beginning-of-text token before them where the model has one.

        Raises:
            ValueError: not a text, nothing to begin with, or a character that the vocabulary lacks.
        """
        ids = self._ids(text, name)
        if self.bos_token_id is not None:
            return [self.bos_token_id, *ids]
        if not ids:
            raise ValueError(f"{name} is empty; this model has no token that begins a text, so give at least one")
        return ids

    def _ids(self, text: str, name: str) -> list[int]:
        if not isinstance(text, str):
            raise ValueError(f"{name} is a {type(text).__name__}; it must be a text")

        def encoded(part: str) -> list[int] | None:
            """None where the vocabulary lacks something: then tokenizers raises its own kind, or puts "unknown"."""
            try:
                # a text that spells a special token out is no special token
                ids = self.tokenizer(part, add_special_tokens=False, split_special_tokens=True, verbose=False)[
                    "input_ids"
                ]
            except Exception as error:
                if "[UNK]" not in str(error):
                    raise
                return None
            return None if self.tokenizer.unk_token_id in ids else ids

        ids = encoded(text)
        if ids is None:
            letter = next((c for c in text if encoded(c) is None), text)
            raise ValueError(
                f"{name} holds {letter!r}, which is not in this model's vocabulary of {len(self.tokenizer)} tokens"
            )
        return ids

    def decode(self, token_ids: Sequence[int]) -> str:
        return self.tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def token_text(self, token_id: int) -> str:
        """A token as a person reads it: its text, or the bytes of a part of a character as <E2>."""
        text = self.tokenizer.decode([token_id], clean_up_tokenization_spaces=False)
        if "\ufffd" not in text:
            return text
        raw = self._bytes(token_id)
        return text if None in raw else "".join(f"<{byte:02X}>" for byte in raw)

    def _bytes(self, token_id: int) -> list[int | None]:
        """Of a token of a byte-level tokenizer."""
        letters = _byte_letters()
        return [letters.get(c) for c in self.tokenizer.convert_ids_to_tokens(token_id)]

    def _num_bytes(self, token_id: int) -> int:
        text = self.tokenizer.decode([token_id], clean_up_tokenization_spaces=False)
        return len(self._bytes(token_id)) if "\ufffd" in text else len(text.encode())

    def writes(self, token_id: int) -> bool:
        """Whether a token is text by itself: neither a mark nor a part of a character."""
        return token_id not in self.tokenizer.all_special_ids and "\ufffd" not in self.tokenizer.decode([token_id])

    @staticmethod
    def build_prompt(
        question: str,
        examples: Sequence[tuple[str, ...]] = (),
        instruction: str = "",
        step_by_step: bool = False,
        template: tuple[str, str] = ("Q: ", "A: "),
    ) -> str:
        """A prompt that ends where the answer begins.

        No example makes it zero-shot, one one-shot, several few-shot (Brown et al., arXiv 2005.14165). An example of
        three parts (question, reasoning, answer) shows a chain of thought (Wei et al., arXiv 2201.11903);
        `step_by_step` asks for one without showing any (Kojima et al., arXiv 2205.11916).

        Args:
            examples: (question, answer) or (question, reasoning, answer).
            template: what stands before a question and before an answer.

        Raises:
            ValueError: an example of another length.
        """
        asks, answers = template
        blocks = [instruction] if instruction else []
        for example in examples:
            if len(example) not in (2, 3):
                raise ValueError(
                    f"examples holds {example!r}; each is (question, answer) or (question, reasoning, answer)"
                )
            reasoning = f"{example[1]} The answer is " if len(example) == 3 else ""
            stop = "." if reasoning else ""
            blocks.append(f"{asks}{example[0]}\n{answers}{reasoning}{example[-1]}{stop}")
        thought = "Let's think step by step." if step_by_step else ""
        blocks.append(f"{asks}{question}\n{answers}{thought}".rstrip(" "))
        return "\n\n".join(blocks)
