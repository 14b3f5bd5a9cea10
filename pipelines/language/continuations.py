"""Whole continuations of prompts, with the arguments that transformers' users know."""

from collections.abc import Callable, Sequence

import torch
from transformers.generation.streamers import BaseStreamer

from pipelines.checks import check_count, check_generators

Generators = torch.Generator | Sequence[torch.Generator] | None


class Continuations:
    """A mixin of a language model's pipeline: its call. The pipeline has `stream`, `encode` and `decode`."""

    def __call__(
        self,
        prompts: str | Sequence[str],
        max_new_tokens: int = 100,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        num_beams: int = 1,
        generator: Generators = None,
        stop_strings: str | Sequence[str] | None = None,
        overflow: str = "slide",
        callback_on_step_end: Callable | None = None,
        do_sample: bool | None = None,
        num_return_sequences: int | None = None,
        return_full_text: bool = True,
        batch_size: int | None = None,
        streamer: BaseStreamer | None = None,
    ) -> dict | list:
        """Continue one or several prompts, as `stream` does.

        Args:
            num_beams: above 1, transformers' beam search: the likeliest text it finds, nothing drawn. It must fit into the
                context: beams do not slide.
            callback_on_step_end: called as (pipe, step, TokenStep).
            do_sample: False takes the likeliest token each time, as temperature 0 does; True draws.
            num_return_sequences: so many continuations of each prompt, in a list.
            return_full_text: False leaves the prompt out of generated_text.
            batch_size: prompts that are continued together; all where it is not given, here or to `pipeline`.
            streamer: of transformers, such as TextStreamer; for one prompt.

        Returns:
            For each prompt a dict (a list of them with num_return_sequences), several as a list:
                generated_text: the prompt and what follows;
                continuation: what follows;
                token_ids, log_probs: of it, nats;
                finish_reason: "length", "end_of_text" or "stop_string".

        Raises:
            ValueError: as `stream`; beams or a streamer together with what only sampling knows.
        """
        texts, is_one, count = self._listed(prompts), isinstance(prompts, str), num_return_sequences
        for name, value in (("do_sample", do_sample), ("return_full_text", return_full_text)):
            if not isinstance(value, bool) and (name, value) != ("do_sample", None):
                raise ValueError(f"{name} is {value!r:.100}; it must be True or False")
        if do_sample is not None:
            if do_sample and (num_beams != 1 or temperature == 0):
                why = "temperature 0 takes" if num_beams == 1 else f"num_beams {num_beams} searches for"
                raise ValueError(f"do_sample is True, but {why} the likeliest; leave one of them out")
            if not do_sample and temperature not in (0, 1):
                raise ValueError(f"do_sample is False, but temperature is {temperature}; leave one of them out")
            temperature = temperature if do_sample or num_beams != 1 else 0.0
        if count is not None:
            texts = [text for text in texts for _ in range(check_count("num_return_sequences", count))]
        if streamer is not None and (not hasattr(streamer, "put") or len(texts) > 1):
            got = f"{len(texts)} texts" if hasattr(streamer, "put") else f"a {type(streamer).__name__}"
            raise ValueError(f"streamer got {got}; it must be one of transformers' streamers, for one text")
        size = self._batch_size if batch_size is None else batch_size
        size = len(texts) if size is None else check_count("batch_size", size)
        parts = [texts[first : first + size] for first in range(0, len(texts), size)]
        if check_count("num_beams", num_beams) > 1:
            for name, value, unused in (
                ("temperature", temperature, 1.0), ("top_k", top_k, None), ("top_p", top_p, None),
                ("min_p", min_p, None), ("generator", generator, None), ("stop_strings", stop_strings, None),
                ("callback_on_step_end", callback_on_step_end, None), ("streamer", streamer, None),
            ):  # fmt: skip
                if value != unused:
                    raise ValueError(f"{name} is {value}; with num_beams above 1 nothing is drawn or streamed")
            self._check_overflow(0, 0, overflow)
            found = [self._beam(text, check_count("max_new_tokens", max_new_tokens), num_beams) for text in texts]
        else:
            check_generators(generator, len(texts), "prompts")
            found = []
            for number, part in enumerate(parts):
                of_part = generator[number * size :][: len(part)] if isinstance(generator, Sequence) else generator
                steps = self.stream(
                    part, max_new_tokens, temperature, top_k, top_p, min_p, of_part, stop_strings, overflow
                )
                found += self._to_the_end(part, steps, callback_on_step_end, streamer)
        results = []
        for text, (ids, values, why) in zip(texts, found, strict=True):
            more = self.decode(ids)
            results.append({
                "generated_text": text + more if return_full_text else more, "continuation": more, "token_ids": ids,
                "log_probs": values, "finish_reason": why,
            })  # fmt: skip
        if count is not None:
            results = [results[first : first + count] for first in range(0, len(results), count)]
        return results[0] if is_one else results

    def _to_the_end(self, texts: list[str], steps, callback: Callable | None, streamer: BaseStreamer | None) -> list:
        """Of each text (its new tokens, their log probabilities, why it ended)."""
        if streamer is not None:
            streamer.put(torch.tensor([self.encode(texts[0])]))
        log_probs: list[list[float]] = [[] for _ in texts]
        for last in steps:
            for row, value in zip(log_probs, last.log_probs, strict=True):
                row.append(value)
            if streamer is not None:
                streamer.put(torch.tensor(last.token_ids))
            if callback is not None:
                callback(self, last.step, last)
        if streamer is not None:
            streamer.end()
        return [
            (ids, row[: len(ids)], why or "length")
            for ids, row, why in zip(last._written, log_probs, last.ended, strict=True)
        ]

    def _beam(self, prompt: str, max_new_tokens: int, num_beams: int) -> tuple[list[int], list[float], str]:
        ids = self.encode(prompt)
        if len(ids) + max_new_tokens > self.context_length:
            raise ValueError(
                f"the text has {len(ids)} tokens and {max_new_tokens} more are asked for; beams do not slide, and this "
                f"model sees {self.context_length} at once"
            )
        given = torch.tensor([ids], device=self.device)
        with torch.inference_mode():
            out = self.model.generate(
                input_ids=given, attention_mask=torch.ones_like(given), num_beams=num_beams, do_sample=False,
                length_penalty=0.0,  # probabilities of texts of different lengths are compared as they are
                max_new_tokens=max_new_tokens, max_length=None, pad_token_id=self.tokenizer.pad_token_id,
                bos_token_id=self.bos_token_id, eos_token_id=list(self.eos_token_ids) or None,
            )[0].tolist()  # fmt: skip
        new = out[len(ids) :]
        end = next((i for i, token in enumerate(new) if token in self.eos_token_ids), None)
        new = new if end is None else new[: end + 1]  # what follows is padding
        values = self.token_log_probs([*ids, *new], self.context_length)[len(ids) - 1 :].tolist()
        return new, values, "length" if end is None else "end_of_text"

    @staticmethod
    def _listed(prompts: str | Sequence[str]) -> list[str]:
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        if not prompts:
            raise ValueError("prompts is empty; give at least one")
        return prompts
