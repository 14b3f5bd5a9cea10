"""A made-up reward model: one number a text, higher for the better of two."""

import torch
from torch import Tensor
from transformers import Pipeline


class PreferencePipeline(Pipeline):
    """A network with one output, and its tokenizer. It has no distribution over texts.

    Load it with `transformers.pipeline(model=REPO, trust_remote_code=True)`.
    """

    _load_tokenizer = True
    likelihood = "none"

    @property
    def calls(self) -> frozenset[str]:
        """What this pipeline answers."""
        return frozenset({"reward"})

    @torch.no_grad()
    def reward(self, texts: list[str]) -> Tensor:
        """How good each text is: (B,), without a unit."""
        inputs = self.tokenizer(texts, return_tensors="pt", padding=True)
        return self.model(input_ids=inputs["input_ids"].to(self.model.device)).logits[:, 0].float()

    def _sanitize_parameters(self, **kwargs):
        return {}, {}, {}

    def preprocess(self, inputs):
        return inputs

    def _forward(self, inputs):
        return {"reward": self.reward([inputs])[0].item()}

    def postprocess(self, outputs):
        return outputs
