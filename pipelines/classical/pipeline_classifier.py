"""A classifier behind the interface of the other families: class probabilities, and features of images."""

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from pipelines.contract import Contract, NoDensity


class ClassifierPipeline(Contract, NoDensity, DiffusionPipeline):
    """p(y|x), and the features in which the quality of samples is measured.

    It has no distribution over x: it can neither draw images nor say how likely one is.

    Args:
        classifier: a `ClassifierModel`.
        auto_map: what the index of a published repository tells `diffusers.AutoModel`; of no use here.
    """

    model_cpu_offload_seq = "classifier"
    likelihood = "none"

    def __init__(self, classifier, auto_map: dict | None = None):
        super().__init__()
        self.register_modules(classifier=classifier)
        self._take_data_spec(classifier.config.data_spec)

    @property
    def refusals(self) -> dict[str, str]:
        """The calls that a classifier does not answer, and why."""
        reason = "a classifier models p(y|x), not p(x); its class probabilities are classify(x), a log p(y|x) their logarithm"
        return {"log_prob": reason, "elbo": reason}

    def __call__(self, x, batch_size: int = 500) -> Tensor:
        """The same as `classify`."""
        return self.classify(x, batch_size)

    @torch.no_grad()
    def classify(self, x, batch_size: int = 500) -> Tensor:
        """Class probabilities p(y|x): (B, num_classes), float32.

        Args:
            x: values in [0, 1]: a tensor (B, C, H, W), an array (B, H, W, C), a PIL image or a list of them.
            batch_size: images that go through the network at once.

        Raises:
            ValueError: x has another shape, type or range, or holds NaN; the message says which.
        """
        return self._in_batches(x, batch_size, lambda part: self.classifier(part).logits.softmax(1))

    @torch.no_grad()
    def features(self, x, batch_size: int = 500) -> Tensor:
        """The last hidden layer: (B, feature_dim), float32. Arguments and errors as of `classify`."""
        return self._in_batches(x, batch_size, lambda part: self.classifier.features(part).float())

    def _in_batches(self, x, batch_size: int, call) -> Tensor:
        self._check_count("batch_size", batch_size)
        x = self._check_x(x, move=False)  # a large set may not fit on the device
        return torch.cat([call(self._to_network(part.to(self._execution_device))) for part in x.split(batch_size)])
