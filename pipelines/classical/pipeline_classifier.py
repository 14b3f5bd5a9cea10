"""A classifier behind the interface of the other families: class probabilities, and features of images."""

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.image_processor import VaeImageProcessor
from torch import Tensor


class ClassifierPipeline(DiffusionPipeline):
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
        self.data_spec = classifier.config.data_spec
        channels = self.data_spec["shape"][0]
        # vae_scale_factor=1: the default of 8 would resize 28x28 to 24x24
        self.image_processor = VaeImageProcessor(
            vae_scale_factor=1,
            do_resize=False,
            do_normalize=False,
            do_convert_grayscale=channels == 1,
            do_convert_rgb=channels == 3,
        )

    def __call__(self, x, batch_size: int = 500) -> Tensor:
        """The same as `classify`."""
        return self.classify(x, batch_size)

    @torch.no_grad()
    def classify(self, x, batch_size: int = 500) -> Tensor:
        """Class probabilities p(y|x): (B, num_classes), float32.

        Args:
            x: (B, C, H, W) in [0, 1], a tensor or an array, or a list of PIL images.
            batch_size: images that go through the network at once.

        Raises:
            ValueError: x has another shape, type or range, or holds NaN; the message says which.
        """
        return self._in_batches(x, batch_size, lambda part: self.classifier(part).logits.softmax(1))

    @torch.no_grad()
    def features(self, x, batch_size: int = 500) -> Tensor:
        """The last hidden layer: (B, feature_dim), float32. Arguments and errors as of `classify`."""
        return self._in_batches(x, batch_size, lambda part: self.classifier.features(part).float())

    def log_prob(self, x, **_):
        """There is none.

        Raises:
            NotImplementedError: always; the message says why.
        """
        raise NotImplementedError(
            "a classifier models p(y|x), not p(x); its class probabilities are classify(x), a log p(y|x) their logarithm"
        )

    elbo = log_prob

    def _in_batches(self, x, batch_size: int, call) -> Tensor:
        x = self._check_x(x)
        low, high = self.data_spec["range"]
        return torch.cat([call((low + (high - low) * part).to(self.device)) for part in x.split(batch_size)])

    def _check_x(self, x) -> Tensor:
        """x as float32 (B, C, H, W) in [0, 1]."""
        shape = tuple(self.data_spec["shape"])
        if hasattr(x, "convert"):
            x = [x]
        if isinstance(x, list) and x and all(hasattr(image, "convert") for image in x):
            sizes = {image.size for image in x}
            if sizes != {shape[:0:-1]}:
                raise ValueError(f"x holds images of {sizes} (width, height); this model takes {shape[:0:-1]}")
            x = self.image_processor.preprocess(x)
        if isinstance(x, np.ndarray):
            x = torch.from_numpy(x)
        if not isinstance(x, Tensor):
            raise ValueError(f"x is a {type(x).__name__}; it must be a tensor, an array or PIL images")
        if not x.is_floating_point():
            raise ValueError(f"x has dtype {x.dtype}; it must be floating point, for 8-bit pixels x / 255")
        if x.ndim != 4 or tuple(x.shape[1:]) != shape or len(x) == 0:
            raise ValueError(f"x has shape {tuple(x.shape)}; this model takes (B, {', '.join(map(str, shape))})")
        x = x.float()
        if not x.isfinite().all():
            raise ValueError("x holds NaN or infinite values; all must be finite")
        if x.min() < 0 or x.max() > 1:
            raise ValueError(f"x has values from {x.min():.4g} to {x.max():.4g}; they must lie in [0, 1]")
        return x
