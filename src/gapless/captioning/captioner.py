"""The captioner: a language decoder that attends to the aligned embedding of a row, and to an image's patch tokens.

    model = Captioner.from_pretrained("runs/caption/model")
    ids = model.generate(prefix, num_beams=4)       # transformers' own generate; `generation.py` gives texts and scores

One directory holds the aligner, the decoder and the tokenizer. Research use, not for diagnosis.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils.generic import ModelOutput

from gapless.captioning.decoders import (
    build_decoder,
    check_positions,
    decoder_spec,
    load_pretrained_decoder,
    special_ids,
)
from gapless.captioning.prefix_cache import PrefixCache
from gapless.captioning.route import IMAGE, TEXT, Route, joined
from gapless.captioning.train_texts import TrainTexts
from gapless.captioning.vote import Vote
from gapless.core.errors import DataRefused, UsageError, did_you_mean
from gapless.core.files import read_object
from gapless.core.geometry import unit_norm
from gapless.losses.base import terms_of
from gapless.modalities.base import Modality
from gapless.modalities.image import ImageInput
from gapless.models.aligner import GaplessConfig, GaplessModel, load_tokenizer, text_modalities
from gapless.models.safe_loading import as_asked, loading, saved_tokenizer, whole_weights
from gapless.models.tokenizers import tokenizer_home, train_tokenizer

CAPTION_TOKENIZER = "caption"  # the name of its folder, beside those of the tokenizers of the modalities
IGNORED = -100


class CaptionerConfig(PretrainedConfig):
    """The configuration of a captioner.

    Args:
        aligner: the configuration of the aligner inside, as a dictionary.
        decoder: `model_type` and the arguments of that transformers configuration.
        num_slots: how many rows of the prefix the aligned embedding becomes.
        num_patches: patch tokens of an image; 0 attends to the embedding alone.
        patch_size: width of a patch token.
        max_tokens: longest caption, its start and end included.
        noise_std: standard deviation per dimension of the Gaussian noise that training adds to the embedding, which is
            normalised after it.
        trains_aligner: whether the aligner is trained too.
        sources: modality -> its weight in the embedding that a caption is made from.
        target: the modality of texts that is written.
    """

    model_type = "gapless-captioner"

    def __init__(
        self,
        aligner: Mapping[str, Any] | None = None,
        decoder: Mapping[str, Any] | None = None,
        num_slots: int = 4,
        num_patches: int = 0,
        patch_size: int = 0,
        max_tokens: int = 64,
        noise_std: float = 0.0,
        trains_aligner: bool = False,
        sources: Mapping[str, float] | None = None,
        target: str = TEXT,
        **kwargs: Any,
    ) -> None:
        self.aligner_spec = dict(aligner or kwargs.pop("aligner_spec", {}))
        self.decoder_spec = dict(decoder or kwargs.pop("decoder_spec", {}))
        self.num_slots = num_slots
        self.num_patches = num_patches
        self.patch_size = patch_size
        self.max_tokens = max_tokens
        self.noise_std = noise_std
        self.trains_aligner = trains_aligner
        route = Route(dict(sources or {IMAGE: 1.0}), target)
        if not route.is_usual:  # a captioner from the image to the text has the file that it always had
            self.sources, self.target = dict(route.sources), target
        super().__init__(**kwargs)

    @property
    def route(self) -> Route:
        """The sources and the target."""
        return Route.of_json({"from": getattr(self, "sources", None), "to": getattr(self, "target", None)})


@dataclass
class CaptionerOutput(ModelOutput):
    """What a captioner returns for a batch.

    Args:
        loss: scalar.
        terms: name -> scalar, unweighted, detached.
        per_row: [pair], the mean negative log-likelihood of a token; at least 0, lower is better.
    """

    loss: Tensor | None = None
    terms: dict[str, Tensor] | None = None
    per_row: Tensor | None = None


class Captioner(PreTrainedModel):
    """An aligner, and a decoder that attends to its embedding and patch tokens by cross-attention.

    Args:
        config: what the captioner is made of.
        aligner, decoder: ready parts in place of those that the configuration describes.

    Raises:
        UsageError: a part is missing, or the decoder cannot be built or is too short.
    """

    config_class = CaptionerConfig
    base_model_prefix = "captioner"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True

    def __init__(
        self, config: CaptionerConfig, aligner: GaplessModel | None = None, decoder: PreTrainedModel | None = None
    ) -> None:
        super().__init__(config)
        if not config.aligner_spec or not config.decoder_spec:
            raise UsageError("a captioner needs an aligner and a decoder")
        self.aligner: Any = aligner or GaplessModel(GaplessConfig(**config.aligner_spec))
        self.decoder: Any = decoder or build_decoder(config.decoder_spec)
        check_positions(self.decoder, config.max_tokens)
        self.gap_weight = 1.0
        self.tokenizer: Any = None
        self.train_texts: TrainTexts | None = None
        self.vote: Vote | None = None
        self.route = config.route
        embeddings: Any = self.decoder.get_input_embeddings()
        width = int(embeddings.embedding_dim)
        size = int(self.aligner.config.embedding_dim)
        self.slots = nn.Linear(size, config.num_slots * width)
        self.slot_norm = nn.LayerNorm(width)
        if config.num_patches:
            self.patches = nn.Sequential(
                nn.LayerNorm(config.patch_size), nn.Linear(config.patch_size, width), nn.LayerNorm(width)
            )
            self.places = nn.Parameter(torch.zeros(config.num_patches, width))
        self.aligner.requires_grad_(config.trains_aligner)
        self.post_init()  # type: ignore[no-untyped-call]

    def _init_weights(self, module: nn.Module) -> None:
        """Every module initialises itself when it is built; transformers must not do it again."""

    def train(self, mode: bool = True) -> "Captioner":
        """Set the mode of the captioner; a frozen aligner stays in evaluation mode."""
        super().train(mode)
        if not self.config.trains_aligner:
            self.aligner.train(False)
        return self

    def features(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """What `prefix` takes: embeddings, [pair, dim], and patch tokens, [pair, patch, size], or None without patches.

        Args:
            inputs: of the encoder of the only source, as `Modality.collate` gives them.

        Raises:
            UsageError: the captioner has several sources; see `joined_features`.
        """
        if len(self.route.sources) > 1:
            raise UsageError(f"this captioner joins {self.route.names}; give the inputs of each to joined_features")
        (source,) = self.route.sources
        with torch.set_grad_enabled(self.aligner_learns()):
            if self.config.num_patches:
                embedding, tokens = self.aligner.embed_with_tokens(source, inputs)
                return embedding, tokens
            return self.aligner.embed(source, inputs), None

    def joined_features(
        self, batch: Mapping[str, Mapping[str, Tensor]], present: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """`features` of rows whose sources are joined by the normalised weighted mean of their embeddings.

        Args:
            batch: source -> the encoder's inputs, of the rows that have it; a source that no row has may be left out.
            present: source -> [row] bool, whether a row has it; None: every row has every source of the batch.
        """
        if len(self.route.sources) == 1:
            return self.features(next(iter(batch[name] for name in self.route.sources)))
        return joined(self.source_embeddings(batch, present), self.route.sources), None

    def source_embeddings(
        self, batch: Mapping[str, Mapping[str, Tensor]], present: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Source -> [row, dim] unit-norm rows, zero where a row lacks it; arguments as in `joined_features`."""
        with torch.set_grad_enabled(self.aligner_learns()):
            if present is None:
                return {name: self.aligner.embed(name, batch[name]) for name in self.route.sources if name in batch}
            masks = {name: present[name] for name in self.route.sources if name in present}
            embeddings: dict[str, Tensor] = self.aligner.embed_present(batch, masks)
            return embeddings

    def aligner_learns(self) -> bool:
        """Whether the aligner is trained, and gradients are recorded."""
        return torch.is_grad_enabled() and bool(self.config.trains_aligner)

    def prefix(self, embedding: Tensor, tokens: Tensor | None = None) -> Tensor:
        """The rows that the decoder attends to.

        Args:
            embedding: [pair, dim] unit-norm rows, of the sources or, for a decoder trained on text alone, of texts.
            tokens: [pair, patch, size], when the captioner attends to patches.

        Returns:
            [pair, slot and patch, width].

        Raises:
            UsageError: the captioner attends to patches, and there are none.
        """
        if self.training and self.config.noise_std:
            embedding = unit_norm(embedding + self.config.noise_std * torch.randn_like(embedding))
        rows: Tensor = self.slot_norm(self.slots(embedding).unflatten(1, (self.config.num_slots, -1)))
        if not self.config.num_patches:
            return rows
        if tokens is None:
            raise UsageError("this captioner attends to patch tokens, and none were given")
        return torch.cat([rows, self.patches(tokens) + self.places], dim=1)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        batch: Mapping[str, Mapping[str, Tensor]] | None = None,
        embedding: Tensor | None = None,
        tokens: Tensor | None = None,
        positives: Tensor | Mapping[str, Tensor] | None = None,
        present: Mapping[str, Tensor] | None = None,
    ) -> CaptionerOutput:
        """Teacher-forced loss of captions.

        Args:
            input_ids: [pair, token], start and end included.
            attention_mask: [pair, token], 0 on padding.
            batch: the encoders' inputs by modality; with texts and an aligner that learns, its loss is added.
            embedding: ready embeddings in place of a batch.
            tokens: ready patch tokens in place of a batch.
            positives: [pair] integers; rows that share one are positives of each other in the aligner's loss. Or
                modality -> such integers.
            present: modality -> [pair] bool, whether a row has it; None: every row has everything.
        """
        rows: dict[str, Tensor] = {}
        if embedding is None:
            assert batch is not None
            if len(self.route.sources) == 1:
                embedding, tokens = self.joined_features(batch)
                rows = dict.fromkeys(self.route.sources, embedding)
            else:
                rows = self.source_embeddings(batch, present)
                embedding = joined(rows, self.route.sources)
        losses, is_token = self.token_losses(self.prefix(embedding, tokens), input_ids, attention_mask)
        caption = losses.sum() / is_token.sum()
        per_row = losses.detach().sum(dim=1) / is_token.sum(dim=1)
        target = self.route.target
        if batch is None or target not in batch or self.aligner.loss is None:
            return CaptionerOutput(loss=caption, terms={"caption": caption.detach()}, per_row=per_row)
        rows[target] = self.aligner.embed(target, batch[target])
        gap = terms_of(self.aligner.loss, rows, present, positives)
        total = caption + self.gap_weight * gap["total"]
        terms = {**gap, "caption": caption, "total": total}
        return CaptionerOutput(loss=total, terms={name: term.detach() for name, term in terms.items()}, per_row=per_row)

    def token_losses(self, prefix: Tensor, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Negative log-likelihood of every token after the start.

        Args:
            prefix: [pair, slot and patch, width], of `prefix`.
            input_ids, attention_mask: [pair, token], as `encode_captions` gives them.

        Returns:
            [pair, token - 1] losses, 0 on padding; and a mask of the same shape, False on padding.
        """
        logits = self.decoder(
            input_ids=input_ids[:, :-1],
            attention_mask=attention_mask[:, :-1],
            encoder_hidden_states=prefix,
            use_cache=False,
        ).logits
        is_token = attention_mask[:, 1:] != 0
        targets = input_ids[:, 1:].masked_fill(~is_token, IGNORED)
        # Flattened to one row per token: cross entropy over [pair, vocabulary, token] takes several times as long.
        losses = nn.functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none")
        return losses.view(targets.shape), is_token

    @torch.no_grad()
    def generate(self, prefix: Tensor, **options: Any) -> Any:
        """`transformers`' generate of the decoder, with its cache, from what `prefix` gave.

        Args:
            prefix: [pair, slot and patch, width].
            options: as `GenerationMixin.generate` takes them: `num_beams`, `do_sample`, `top_p`, ...

        Returns:
            Token ids, [pair, token], or an output object with `return_dict_in_generate=True`.
        """
        ids = self.special_ids()
        start = torch.full((len(prefix), 1), ids["bos_token_id"], device=prefix.device)
        return self.decoder.generate(
            input_ids=start,
            attention_mask=torch.ones_like(start),
            encoder_hidden_states=prefix,
            past_key_values=PrefixCache(self.config.max_tokens),
            **{"max_length": self.config.max_tokens, **ids, **options},
        )

    def special_ids(self) -> dict[str, int]:
        """The ids of start, end and padding of the caption tokenizer, by `generate`'s names."""
        return special_ids(self.tokenizer)

    def encode_captions(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """Captions as `input_ids` and `attention_mask`, [pair, token]: start, tokens, end, then padding.

        A caption that does not fit into `max_tokens` is cut and has no end token: one would teach the decoder to stop
        in the middle of a sentence.
        """
        return self.padded(self.caption_ids(captions))

    def caption_ids(self, captions: Sequence[str]) -> list[Tensor]:
        """The [token] ids of each caption, as `encode_captions` pads them to one length."""
        ids = self.special_ids()
        room = self.config.max_tokens - 1  # beside the start
        ended = [[*row, ids["eos_token_id"]] for row in self.tokens_of(captions, room)]
        return [torch.tensor([ids["bos_token_id"], *row[:room]]) for row in ended]

    def padded(self, rows: Sequence[Tensor]) -> dict[str, Tensor]:
        """`input_ids` and `attention_mask`, [pair, token], of what `caption_ids` gives."""
        pad = nn.utils.rnn.pad_sequence
        return {
            "input_ids": pad(list(rows), batch_first=True, padding_value=self.special_ids()["pad_token_id"]),
            "attention_mask": pad([torch.ones_like(row) for row in rows], batch_first=True),
        }

    def tokens_of(self, captions: Sequence[str], limit: int) -> list[list[int]]:
        """The first `limit` tokens of captions, without start and end.

        The text of a special token in a caption is split like any text: an end token inside a caption would teach the
        decoder to stop there.
        """
        tokens: list[list[int]] = self.tokenizer(
            list(captions), add_special_tokens=False, split_special_tokens=True, truncation=True, max_length=limit
        )["input_ids"]
        return tokens

    def num_cut(self, captions: Sequence[str]) -> int:
        """How many of these captions are longer than `max_tokens`, so that `encode_captions` cuts them."""
        room = self.config.max_tokens - 2
        return sum(len(row) > room for row in self.tokens_of(captions, room + 1))

    def preprocessor(self, modality: str) -> Modality[Any]:
        """What turns the raw inputs of a modality into its encoder's tensors."""
        modality_kind: Modality[Any] = self.aligner.preprocessor(modality)
        return modality_kind

    def save_pretrained(self, save_directory: str | PathLike[Any], *args: Any, **kwargs: Any) -> None:
        """Write weights, configuration and all tokenizers into a directory; arguments as in transformers."""
        # Training writes into the aligner's configuration what the weights of its loss followed.
        self.config.aligner_spec = {**self.config.aligner_spec, "loss": self.aligner.config.loss}
        super().save_pretrained(save_directory, *args, **kwargs)
        if kwargs.get("is_main_process", True):
            if self.train_texts is not None:
                self.train_texts.write(Path(save_directory))
            if self.vote is not None:
                self.vote.write(Path(save_directory))
            tokenizers = {**self.aligner.tokenizers, CAPTION_TOKENIZER: self.tokenizer}
            for name, tokenizer in tokenizers.items():
                if hasattr(tokenizer, "save_pretrained"):
                    tokenizer.save_pretrained(tokenizer_home(Path(save_directory), name))

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, pretrained_model_name_or_path: str | PathLike[Any], *args: Any, **kwargs: Any
    ) -> "Captioner":
        """Load a directory that `save_pretrained` wrote.

        Returns:
            The model; with `output_loading_info=True`, the model and that information, as transformers does.

        Raises:
            UsageError: a directory that holds no captioner. DataRefused: one that lacks a part, or some of the weights.
        """
        directory = Path(pretrained_model_name_or_path)
        _check_captioner(directory)
        with loading(directory):
            _check_description(directory)
            loaded: tuple[Captioner, Any] = whole_weights(super().from_pretrained, directory, *args, **kwargs)
            model, info = loaded
            for modality in text_modalities(model.aligner.config):
                model.aligner.tokenizers[modality] = load_tokenizer(model.aligner.config, directory, modality)
            model.tokenizer = saved_tokenizer(tokenizer_home(directory, CAPTION_TOKENIZER))
            model.train_texts = TrainTexts.read(directory)
            model.vote = Vote.read(directory)
        model.aligner.to(memory_format=torch.channels_last)  # in this format convolutions take two thirds of the time
        return as_asked(model, info, kwargs)


def _check_captioner(directory: Path) -> None:
    """Raise UsageError for a directory without a captioner, DataRefused for one that lacks a part."""
    if not (directory / "config.json").exists():
        raise UsageError(f"{directory} is not a model: it lacks config.json")
    kind = read_object(directory / "config.json").get("model_type")
    if kind != CaptionerConfig.model_type:
        raise UsageError(
            f"{directory} is a model without a captioner (model type {kind!r}); train one with 'gapless caption train'"
        )
    home = tokenizer_home("", CAPTION_TOKENIZER)
    missing = [] if any(directory.glob("model*.safetensors")) else ["model.safetensors"]
    missing += [str(home)] if not (directory / home / "tokenizer_config.json").exists() else []
    if missing:
        raise DataRefused(f"{directory} is a partial model: it lacks {', '.join(missing)}")


def _check_description(directory: Path) -> None:
    """Raise DataRefused for values that no captioner was saved with, which would fail only when it captions."""
    config = CaptionerConfig.from_pretrained(directory)
    for name, kinds in (("max_tokens", int), ("noise_std", int | float)):
        if not isinstance(getattr(config, name), kinds):
            raise DataRefused(f"{directory} is a damaged model: {name} is {getattr(config, name)!r}")
    try:
        with torch.device("meta"):  # checks the shapes without memory for the weights
            check_positions(build_decoder(config.decoder_spec), config.max_tokens)
    except UsageError as error:
        raise DataRefused(f"{directory} is a damaged model: {error}") from None


def assemble_captioner(
    aligner: GaplessModel,
    decoder: Mapping[str, Any],
    captions: Iterable[str],
    *,
    use_patches: bool,
    max_tokens: int,
    vocab_size: int,
    route: Route | None = None,
    **options: Any,
) -> Captioner:
    """A new captioner around an aligner.

    The tokenizer is that of a pretrained decoder, else that of the aligner's texts if it can decode (the target's
    first), else a new one that is trained on the captions.

    Args:
        decoder: `pretrained` (a directory or hub name) alone, or values of a configuration as in `decoder_spec`.
        captions: of the training rows.
        use_patches: attend to the patch tokens of an image that is the only source; ignored for other sources.
        vocab_size: of a tokenizer that is trained here.
        route: the sources and the target; by default from the image to the text.
        options: further fields of `CaptionerConfig`.

    Raises:
        UsageError: an aligner without a source, a decoder that is unknown or cannot be built.
    """
    route = route or Route()
    check_sources(route, aligner)
    module = None
    described = {name: value for name, value in decoder.items() if name != "pretrained"}
    if decoder.get("pretrained"):
        further = sorted(described.keys() - {"model_type"})  # the settings have a model type by default
        if further:
            raise UsageError(f"a pretrained decoder takes no further arguments, got {', '.join(further)}")
        spec, module, tokenizer = load_pretrained_decoder(str(decoder["pretrained"]))
    else:
        known = [aligner.tokenizers.get(route.target), *aligner.tokenizers.values()]
        tokenizer = next((each for each in known if hasattr(each, "batch_decode")), None)
        tokenizer = tokenizer or train_tokenizer(captions, vocab_size, max_tokens)
        spec = decoder_spec(described, tokenizer, max_tokens)
    image = image_source(route, aligner)
    patches = _probe_patches(aligner, image) if use_patches and image is not None else (0, 0)
    config = CaptionerConfig(
        aligner=aligner.config.to_dict(),
        decoder=spec,
        num_patches=patches[0],
        patch_size=patches[1],
        max_tokens=max_tokens,
        sources=route.sources,
        target=route.target,
        **options,
    )
    model = Captioner(config, aligner, module)
    model.tokenizer = tokenizer
    return model


def check_sources(route: Route, aligner: GaplessModel) -> None:
    """Raise UsageError for a model that does not embed the sources of a captioner."""
    takes = ", ".join(aligner.modalities)
    if route.is_usual and (IMAGE not in aligner.modalities or image_source(route, aligner) is None):
        raise UsageError(f"a captioner needs a model that takes images; this one takes {takes}")
    for name in route.sources:
        if name not in aligner.modalities:
            near = did_you_mean(name, aligner.modalities)
            raise UsageError(f"--from names {name!r}, which the model does not embed{near} (it takes {takes})")


def image_source(route: Route, aligner: GaplessModel) -> str | None:
    """The only source, where it is of images."""
    names = [name for name in route.sources if name in aligner.modalities]
    is_image = len(route.sources) == 1 and all(isinstance(aligner.specs[name].input, ImageInput) for name in names)
    return names[0] if names and is_image else None


@torch.no_grad()
def _probe_patches(aligner: GaplessModel, modality: str) -> tuple[int, int]:
    """(number, width) of the patch tokens of the image encoder, from encoding a black image."""
    preprocessor = aligner.preprocessor(modality)
    spec = aligner.specs[modality].input
    assert isinstance(spec, ImageInput)
    size = spec.size
    black = preprocessor.collate([preprocessor.prepare(np.zeros((size, size), dtype=np.uint8))])
    was_training = aligner.training
    aligner.train(False)
    _, tokens = aligner.embed_with_tokens(modality, {name: value.to(aligner.device) for name, value in black.items()})
    aligner.train(was_training)
    return tokens.shape[1], tokens.shape[2]
