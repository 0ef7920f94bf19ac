"""The aligner: an encoder and a head for each of N named modalities, into one shared space of unit-norm rows.

    model = GaplessModel.from_pretrained("runs/x/model")
    model.encode("text", ["chest radiograph, left effusion"])      # [1, 512], unit norm

One directory holds weights, configuration with the preprocessing, and tokenizers.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils.generic import ModelOutput

from gapless.core.errors import DataRefused, UsageError, unknown_name
from gapless.core.files import read_object
from gapless.core.geometry import unit_norm
from gapless.losses.base import takes_reference, terms_of
from gapless.losses.engine.cached import cached_embeddings, split_batch, split_present
from gapless.losses.saved import MissingLoss, build_loss
from gapless.modalities.base import MODALITIES, Modality, build_modality
from gapless.modalities.views import VIEWS, first_views, flat_views, mean_over_views
from gapless.models.encoders import build_encoder, load_pretrained_encoder
from gapless.models.heads import build_head
from gapless.models.modality_specs import modality_specs
from gapless.models.safe_loading import as_asked, loading, saved_tokenizer, whole_weights
from gapless.models.spec import ModalitySpec, with_encoder
from gapless.models.tokenizers import OpenClipTokenizer, tokenizer_home


class GaplessConfig(PretrainedConfig):
    """The configuration of a model: its modalities, the size of their space, and its loss.

    Args:
        modalities: name -> {"input": ..., "encoder": ..., "head": [...]}, the mappings of `spec.modality_spec`.
        embedding_dim: size of the shared space; None for separate encoders that have none yet.
        loss: what `losses.saved.describe_loss` gives: method, package, anchor, settings. Models of earlier versions
            hold keyword arguments of `GapClosingLoss` instead.
    """

    model_type = "gapless"

    def __init__(
        self,
        modalities: Mapping[str, Mapping[str, Any]] | None = None,
        embedding_dim: int | None = 512,
        loss: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.modalities = {name: with_encoder(name, spec) for name, spec in (modalities or {}).items()}
        self.embedding_dim = embedding_dim
        self.loss = dict(loss or {})
        super().__init__(**kwargs)

    def specs(self) -> dict[str, ModalitySpec]:
        """The modalities as typed specifications.

        Raises:
            UsageError: as `models.modality_specs.modality_specs`.
        """
        return modality_specs(self.modalities, self.loss.get("anchor"), self.embedding_dim)


@dataclass
class GaplessOutput(ModelOutput):
    """What a model returns for a batch.

    Args:
        loss: scalar; None without a loss.
        terms: name -> scalar, unweighted, detached; `total` is the loss.
        embeddings: modality -> [pair, embedding_dim] unit-norm rows; a row is zero where it lacks the modality.
    """

    loss: Tensor | None = None
    terms: dict[str, Tensor] | None = None
    embeddings: dict[str, Tensor] | None = None


class GaplessModel(PreTrainedModel):
    """The encoder and the head of every modality, and the loss that aligns them.

    Args:
        config: what the model is made of.
        encoders: modality -> an encoder that is built already; the others are built with fresh weights.

    Raises:
        UsageError: a configuration that does not fit; see `models.modality_specs.modality_specs`.
    """

    config_class = GaplessConfig
    base_model_prefix = "gapless"
    main_input_name = "batch"
    supports_gradient_checkpointing = True

    def __init__(self, config: GaplessConfig, encoders: Mapping[str, nn.Module] | None = None) -> None:
        super().__init__(config)
        self.specs = config.specs()
        self.encoders = nn.ModuleDict()
        self.heads = nn.ModuleDict()
        for name, spec in self.specs.items():
            encoder: Any = (encoders or {}).get(name) or build_encoder(spec.encoder)
            self.encoders[name] = encoder
            self.heads[name] = build_head(spec.head, encoder.output_size, config.embedding_dim)
        has_pairs = len(config.modalities) > 1 and config.embedding_dim is not None
        self.loss: nn.Module | None = build_loss(config.loss) if has_pairs else None
        if isinstance(self.loss, MissingLoss):
            self._keys_to_ignore_on_load_unexpected = [r"^loss\."]  # the file has weights of the loss
        self.tokenizers: dict[str, Any] = {}
        self.micro_batch_size: int | None = None  # pairs that training encodes at a time; see losses/engine/cached.py
        self.reference: tuple[GaplessModel, ...] = ()  # a tuple, so that it is no module of this one
        self.post_init()  # type: ignore[no-untyped-call]

    def _init_weights(self, module: nn.Module) -> None:
        """Every module initialises itself when it is built; transformers must not do it again."""

    @property
    def modalities(self) -> tuple[str, ...]:
        """The names of the modalities."""
        return tuple(self.config.modalities)

    def train(self, mode: bool = True) -> "GaplessModel":
        """Set the mode of the model; frozen encoders stay in evaluation mode, without dropout or running statistics."""
        super().train(mode)
        for name, spec in self.specs.items():
            if not spec.encoder.trainable:
                self.encoders[name].eval()
        return self

    def embed(self, modality: str, inputs: Mapping[str, Tensor]) -> Tensor:
        """Embed the preprocessed inputs of one modality.

        Args:
            inputs: keyword arguments of the encoder, as `Modality.collate` or `views.collate_rows` gives them. Of a row
                with several views the mean of the features goes to the head.

        Returns:
            [pair, embedding_dim] unit-norm fp32 rows, with a gradient where one is recorded.
        """
        return unit_norm(self.project(modality, inputs))

    def project(self, modality: str, inputs: Mapping[str, Tensor]) -> Tensor:
        """As `embed`, before the rows are normalised: [pair, embedding_dim], fp32."""
        flat, mask = flat_views(inputs)
        with torch.set_grad_enabled(self.encoder_learns(modality)):
            features = mean_over_views(self.encoders[modality](**flat), mask)
        projected: Tensor = self.heads[modality](features).float()
        return projected

    def embed_with_tokens(self, modality: str, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """As `embed`, and the features before pooling, [pair, token, size], from one pass of the encoder.

        Of a row with several views the tokens are those of the first one.

        Raises:
            UsageError: an encoder that gives no tokens (open_clip, vectors).
        """
        encoder: Any = self.encoders[modality]
        if not encoder.has_tokens:
            raise UsageError(
                f"the {modality} encoder ({self.specs[modality].encoder.kind}) gives no patch tokens; do without them"
            )
        if VIEWS in inputs:
            return self.embed(modality, inputs), self.embed_with_tokens(modality, first_views(inputs))[1]
        with torch.set_grad_enabled(self.encoder_learns(modality)):
            features, tokens = encoder.pooled_and_tokens(**inputs)
        return unit_norm(self.heads[modality](features).float()), tokens

    def encoder_learns(self, modality: str) -> bool:
        """Whether the encoder is trainable, and gradients are recorded."""
        return torch.is_grad_enabled() and self.specs[modality].encoder.trainable

    def embed_all(self, batch: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """`embed` of every modality of a batch."""
        return {name: self.embed(name, inputs) for name, inputs in batch.items()}

    def project_all(self, batch: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """`project` of every modality of a batch."""
        return {name: self.project(name, inputs) for name, inputs in batch.items()}

    def keep_reference(self) -> None:
        """Keep a copy of the encoders and heads as they are now, for a loss that compares with them.

        The copy is no part of the model: it has no gradient, is not saved, and stays as it is.
        """
        loss, self.loss, self.reference = self.loss, None, ()
        copy = deepcopy(self).requires_grad_(False)
        copy.train(False)
        self.loss, self.reference = loss, (copy,)

    @torch.no_grad()
    def reference_rows(self, batch: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """`project_all` of the model that `keep_reference` kept.

        Raises:
            UsageError: none was kept.
        """
        if not self.reference:
            raise UsageError(
                "the loss compares with the model that training starts from; call keep_reference() before training"
            )
        reference = self.reference[0].to(self.device)  # type: ignore[arg-type]
        parts = split_batch(batch, self.micro_batch_size) if self.micro_batch_size else [batch]
        rows = [reference.project_all(part) for part in parts]
        return {name: torch.cat([part[name] for part in rows]) for name in batch}

    def embed_present(
        self, batch: Mapping[str, Mapping[str, Tensor]], present: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """`embed` of rows that lack modalities: the encoders see the rows that have theirs, and no others.

        Args:
            batch: modality -> the inputs of its present rows; without the modalities that no row has.
            present: modality -> [row] bool.

        Returns:
            modality -> [row, embedding_dim], zero where a row lacks it.
        """
        return {name: self._scattered(name, batch.get(name), mask) for name, mask in present.items()}

    def _scattered(self, modality: str, inputs: Mapping[str, Tensor] | None, mask: Tensor) -> Tensor:
        """The embeddings of the present rows, at their places among all rows of the batch."""
        if inputs is None:
            return self._untouched(modality).expand(len(mask), self.config.embedding_dim)
        embedded = self.embed(modality, inputs)
        places = mask.nonzero().flatten().to(embedded.device)
        if len(embedded) != len(places):
            raise ValueError(f"{modality}: {len(places)} rows are present, got inputs of {len(embedded)} rows")
        return embedded.new_zeros(len(mask), embedded.shape[1]).index_copy(0, places, embedded)

    def _untouched(self, modality: str) -> Tensor:
        """A zero that depends on the weights of a modality that no row of the batch has.

        Their gradient is then zero instead of missing. DistributedDataParallel waits for a gradient of every weight on
        every rank; `find_unused_parameters` would search the graph for missing ones at every step, and cannot be
        combined with every form of gradient checkpointing.
        """
        if not torch.is_grad_enabled():
            return torch.zeros((), device=self.device)
        modules = [self.heads[modality], *([self.encoders[modality]] if self.encoder_learns(modality) else [])]
        weights = [weight for module in modules for weight in module.parameters() if weight.requires_grad]
        return sum(
            (weight.flatten()[:1].sum().float() * 0.0 for weight in weights), torch.zeros((), device=self.device)
        )

    def forward(
        self,
        batch: Mapping[str, Mapping[str, Tensor]],
        positives: Tensor | Mapping[str, Tensor] | None = None,
        return_loss: bool = True,
        present: Mapping[str, Tensor] | None = None,
        labels: Tensor | None = None,
    ) -> GaplessOutput:
        """Embeddings of a batch of pairs and, with `return_loss`, the loss on them.

        Args:
            batch: modality -> the encoder's inputs, rows aligned over the modalities; with `present`, the inputs of the
                rows that have the modality alone.
            positives: [pair] integers; rows that share one are positives of each other. Or modality -> such integers.
            present: modality -> [pair] bool, whether a row has it, for every modality of the batch. None: every row
                has everything.
            labels: [pair, label] floats, for a loss that compares the labels of rows.

        Raises:
            ValueError: the loss refuses the batch, such as one of rows that are not finite.
            UsageError: rows lack a modality, and the loss takes complete rows only.
        """
        if not return_loss or self.loss is None:
            return GaplessOutput(embeddings=self._embeddings(batch, present))
        further: dict[str, Mapping[str, Tensor]] = {}
        if takes_reference(self.loss) and present is None:
            further = {"raw": self._complete(self.project_all, batch), "reference": self.reference_rows(batch)}
            embeddings = {name: unit_norm(rows) for name, rows in further["raw"].items()}
        else:
            embeddings = self._embeddings(batch, present)
        terms = terms_of(self.loss, embeddings, present, positives, labels, **further)
        named = {name: value.detach() for name, value in terms.items()}
        return GaplessOutput(loss=terms["total"], terms=named, embeddings=embeddings)

    def _embeddings(
        self, batch: Mapping[str, Mapping[str, Tensor]], present: Mapping[str, Tensor] | None
    ) -> dict[str, Tensor]:
        """The embeddings of a batch, a micro-batch of rows at a time where training asks for that."""
        if present is None:
            return self._complete(self.embed_all, batch)
        if size := self._micro_batch():
            return cached_embeddings(lambda part: self.embed_present(*part), split_present(batch, present, size))
        return self.embed_present(batch, present)

    def _complete(self, rows_of: Callable[[Any], dict[str, Tensor]], batch: Any) -> dict[str, Tensor]:
        """What a function gives for a batch of complete rows, a micro-batch at a time where training asks for that."""
        size = self._micro_batch()
        return cached_embeddings(rows_of, split_batch(batch, size)) if size else rows_of(batch)

    def _micro_batch(self) -> int | None:
        return self.micro_batch_size if self.training else None

    @torch.no_grad()
    def encode(self, modality: str, batch: Sequence[Any] | np.ndarray | Tensor, batch_size: int = 64) -> Tensor:
        """Embed raw inputs of one modality.

        Args:
            modality: a name in `model.modalities`.
            batch: what the kind of the modality takes: texts; paths, bytes or arrays of images, waveforms, sounds and
                volumes; mappings of a table's fields; rows of numbers.
            batch_size: how many inputs are encoded at once.

        Returns:
            [len(batch), embedding_dim] unit-norm rows, on the CPU, fp32.

        Raises:
            UsageError: an unknown modality or nothing to embed. DataRefused: an input that cannot be read.
        """
        if isinstance(batch, str | bytes | Mapping | PathLike):
            what = "mapping" if isinstance(batch, Mapping) else "string" if isinstance(batch, str) else "input"
            raise UsageError(f"encode takes a list of inputs, got one {what}")
        if len(batch) == 0:
            raise UsageError("encode got an empty batch")
        preprocessor = self.preprocessor(modality)
        was_training = self.training
        self.train(False)
        rows = []
        for start in range(0, len(batch), batch_size):
            prepared = [preprocessor.prepare(raw) for raw in batch[start : start + batch_size]]
            rows.append(self.encode_prepared(modality, prepared))
        self.train(was_training)
        return torch.cat(rows)

    @torch.no_grad()
    def encode_prepared(self, modality: str, prepared: Sequence[Any]) -> Tensor:
        """Embed one batch of what `prepare` of the modality gave; the model must be in evaluation mode.

        Returns:
            [len(prepared), embedding_dim] unit-norm rows, on the CPU.
        """
        inputs = {key: value.to(self.device) for key, value in self.preprocessor(modality).collate(prepared).items()}
        return self.embed(modality, inputs).cpu()

    def preprocessor(self, modality: str) -> Modality[Any]:
        """What turns the raw inputs of a modality into its encoder's tensors."""
        if modality not in self.specs:
            raise unknown_name("modality", modality, self.modalities)
        return build_modality(self.specs[modality].input, self.tokenizers.get(modality))

    def save_pretrained(self, save_directory: str | PathLike[Any], *args: Any, **kwargs: Any) -> None:
        """Write weights, configuration and tokenizers into a directory; arguments as in transformers."""
        super().save_pretrained(save_directory, *args, **kwargs)
        if kwargs.get("is_main_process", True):
            for modality, tokenizer in self.tokenizers.items():
                if hasattr(tokenizer, "save_pretrained"):
                    tokenizer.save_pretrained(tokenizer_home(Path(save_directory), modality))

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, pretrained_model_name_or_path: str | PathLike[Any], *args: Any, **kwargs: Any
    ) -> "GaplessModel":
        """Load a directory that `save_pretrained` wrote, or a hub name.

        Returns:
            the model; with `output_loading_info=True`, the model and that information, as transformers does.

        Raises:
            DataRefused: a directory that lacks a part, or some of the weights; the message names it.
        """
        directory = Path(pretrained_model_name_or_path)
        with loading(pretrained_model_name_or_path):
            if directory.exists():
                _check_complete(directory)
            loaded: tuple[GaplessModel, Any] = whole_weights(
                super().from_pretrained, pretrained_model_name_or_path, *args, **kwargs
            )
            model, info = loaded
            assert isinstance(model.config, GaplessConfig)
            for modality in text_modalities(model.config):
                model.tokenizers[modality] = load_tokenizer(model.config, pretrained_model_name_or_path, modality)
        return as_asked(model, info, kwargs)


def text_modalities(config: PretrainedConfig) -> list[str]:
    """The modalities of a model, by its `GaplessConfig`, whose kind takes a tokenizer."""
    assert isinstance(config, GaplessConfig)
    return [name for name, spec in config.specs().items() if MODALITIES[spec.input.kind].takes_tokenizer]


def _has_own_tokenizer(config: GaplessConfig, modality: str) -> bool:
    """Whether the text encoder brings open_clip's tokenizer, which needs no file."""
    return bool(config.specs()[modality].input.tokenizer == "open_clip")


def load_tokenizer(config: GaplessConfig, source: str | PathLike[Any], modality: str) -> Any:
    """The tokenizer of a modality of texts, from a model directory or hub name."""
    if _has_own_tokenizer(config, modality):
        return OpenClipTokenizer(config.specs()[modality].input.max_length)
    if Path(source).exists():
        return saved_tokenizer(tokenizer_home(Path(source), modality))
    return saved_tokenizer(str(source), subfolder=str(tokenizer_home("", modality)))


def _check_complete(directory: Path) -> None:
    """Refuse a directory that lacks its configuration, weights or a tokenizer, and name what is missing."""
    if not (directory / "config.json").exists():
        raise DataRefused(f"{directory} is not a model: it lacks config.json")
    # Read from the file: transformers would load the aligner's part of a captioner's configuration, without weights.
    kind = read_object(directory / "config.json").get("model_type")
    config = GaplessConfig.from_pretrained(directory)
    if kind != GaplessConfig.model_type or not config.modalities:
        raise DataRefused(f"{directory} holds another kind of model ({kind}), not an aligner with its modalities")
    missing = [] if any(directory.glob("model*.safetensors")) else ["model.safetensors"]
    for modality in text_modalities(config):
        if not _has_own_tokenizer(config, modality):
            home = tokenizer_home("", modality)
            missing += [str(home / n) for n in ("tokenizer_config.json",) if not (directory / home / n).exists()]
    if missing:
        raise DataRefused(f"{directory} is a partial model: it lacks {', '.join(missing)}")


def assemble(config: GaplessConfig, tokenizers: Mapping[str, Any] | None = None) -> GaplessModel:
    """A new model; encoders with a `pretrained` entry get those weights, the others fresh ones.

    Args:
        config: its encoders' entries `pretrained` are replaced by the configuration that was found there.
        tokenizers: modality -> tokenizer of its texts.

    Raises:
        UsageError: a configuration that does not fit, or a `pretrained` directory without such a model.
        NeedsNetwork: a `pretrained` name that only the hub knows.
    """
    config.specs()  # refuses a wrong configuration before weights are read
    encoders = {}
    for described in config.modalities.values():
        described["encoder"] = dict(described["encoder"])
    for name, described in config.modalities.items():
        if described["encoder"].get("pretrained"):
            described["encoder"], encoders[name] = load_pretrained_encoder(described["encoder"])
    model = GaplessModel(config, encoders)
    model.tokenizers = dict(tokenizers or {})
    for name in text_modalities(config):
        if _has_own_tokenizer(config, name):
            model.tokenizers[name] = OpenClipTokenizer(model.specs[name].input.max_length)
    return model
