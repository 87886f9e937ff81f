"""Networks of the ``transformers`` package, small and with random weights: what slimming must follow besides our own.

The package is needed by benchmarks only (``pip install transformers``); nothing is downloaded. Depths and widths are
below the published ones, so that every network is traced and timed in seconds; the operators are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from sparsepack.models.source import InputSpec


class Named(nn.Module):
    """A network called with one tensor under its own name for it, returning tensors rather than a record."""

    def __init__(self, network: nn.Module, argument: str, results: tuple[str, ...]) -> None:
        super().__init__()
        self.network, self.argument, self.results = network, argument, results

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the named fields of the network's result."""
        record = self.network(**{self.argument: x})
        fields = tuple(getattr(record, name) for name in self.results)
        return fields[0] if len(fields) == 1 else fields


def _named(kind: str, argument: str, *results: str, **configuration: Any) -> Callable[[], nn.Module]:
    """Return the builder of ``<family>For<task>`` with the configuration class ``<family>Config``."""

    def build() -> nn.Module:
        import transformers

        transformers.logging.set_verbosity_error()
        settings = getattr(transformers, f"{kind.split('For')[0].removesuffix('LMHeadModel')}Config")(**configuration)
        return Named(getattr(transformers, kind)(settings), argument, results or ("logits",))

    return build


def _detr() -> nn.Module:
    import transformers

    backbone = transformers.ResNetConfig(
        out_features=["stage4"], depths=[1, 1, 1, 1], hidden_sizes=[64, 128, 256, 512], embedding_size=64
    )
    sizes: dict[str, Any] = {"d_model": 64, "num_queries": 10, "num_labels": 5}
    for part in ("encoder", "decoder"):
        sizes |= {f"{part}_layers": 2, f"{part}_attention_heads": 4, f"{part}_ffn_dim": 256}
    sizes |= {"use_timm_backbone": False, "backbone": None, "use_pretrained_backbone": False}
    return _named("DetrForObjectDetection", _PIXELS, "logits", "pred_boxes", backbone_config=backbone, **sizes)()


def _whisper_encoder() -> nn.Module:
    import transformers
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    configuration = transformers.WhisperConfig(
        d_model=192, encoder_layers=3, encoder_attention_heads=6, encoder_ffn_dim=768, max_source_positions=50
    )
    return Named(WhisperEncoder(configuration), "input_features", ("last_hidden_state",))


def _images(kind: str, side: int, **configuration: Any) -> tuple[Callable[[], nn.Module], InputSpec]:
    task = "SemanticSegmentation" if kind == "Segformer" else "ImageClassification"
    return _named(f"{kind}For{task}", _PIXELS, num_labels=10, **configuration), InputSpec("input", (3, side, side))


_PIXELS, _TOKENS = "pixel_values", "input_ids"
_TEXT = InputSpec("input", (24,), "int64")
_STAGES: dict[str, Any] = {"hidden_sizes": [48, 96, 192, 384]}
_BODY: dict[str, Any] = {"hidden_size": 192, "num_attention_heads": 6, "intermediate_size": 768}
_VIT: dict[str, Any] = {**_BODY, "num_hidden_layers": 4, "image_size": 64}
_BERT: dict[str, Any] = {**_BODY, "num_hidden_layers": 4, "vocab_size": 500, "num_labels": 5}
_DISTIL: dict[str, Any] = {"dim": 192, "n_heads": 6, "hidden_dim": 768, "n_layers": 4, "vocab_size": 500}
_GPT: dict[str, Any] = {"n_embd": 192, "n_head": 6, "n_layer": 4, "vocab_size": 500, "use_cache": False}
_WAVE: dict[str, Any] = {**_BODY, "num_hidden_layers": 3, "vocab_size": 32, "conv_dim": (64,) * 7}
_NARROW: dict[str, Any] = {"width_coefficient": 1.0, "depth_coefficient": 1.0, "hidden_dim": 1280}
NETWORKS: dict[str, tuple[Callable[[], nn.Module], InputSpec]] = {
    "hf-resnet": _images("ResNet", 96),
    "hf-regnet": _images("RegNet", 96, groups_width=24, depths=[1, 2, 3, 1], **_STAGES),
    "hf-mobilenet-v1": _images("MobileNetV1", 96, image_size=96),
    "hf-mobilenet-v2": _images("MobileNetV2", 96, image_size=96),
    "hf-efficientnet": _images("EfficientNet", 96, image_size=96, **_NARROW),
    "hf-convnext": _images("ConvNext", 96, depths=[2, 2, 3, 2], **_STAGES),
    "hf-vit": _images("ViT", 64, **_VIT),
    "hf-deit": _images("DeiT", 64, **_VIT),
    "hf-swin": _images("Swin", 112, image_size=112, embed_dim=48, depths=[2, 2, 2], num_heads=[3, 6, 12]),
    "hf-segformer": _images("Segformer", 64, depths=[1, 1, 1, 1]),
    "hf-bert": (_named("BertForSequenceClassification", _TOKENS, **_BERT), _TEXT),
    "hf-distilbert": (_named("DistilBertForSequenceClassification", _TOKENS, num_labels=5, **_DISTIL), _TEXT),
    "hf-gpt2": (_named("GPT2LMHeadModel", _TOKENS, **_GPT), _TEXT),
    "hf-detr": (_detr, InputSpec("input", (3, 96, 96))),
    "hf-whisper-encoder": (_whisper_encoder, InputSpec("input", (80, 100))),
    "hf-wav2vec2": (_named("Wav2Vec2ForCTC", "input_values", **_WAVE), InputSpec("input", (4000,))),
}
