"""From a captioner's prefix to texts with scores: greedy, beam search or sampling, through transformers' `generate`."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from gapless.captioning.vote import TEMPERATURE, Vote
from gapless.core.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from gapless.captioning.captioner import Captioner

NOTICE = "Research use, not for diagnosis."
# Beyond these limits generation fails, or its scores are NaN.
LIMITS = {
    "num_beams": (1, 64),
    "length_penalty": (-10, 10),
    "temperature": (0.01, 100),
}


@dataclass(frozen=True)
class GenerationSettings:
    """How a caption is chosen.

    Args:
        method: greedy, beam or sample.
        num_beams: of beam search; memory grows with it. Where near texts vote, also how many samples they choose from.
        length_penalty: of beam search; above 1 prefers longer captions.
        temperature: of sampling, from 0.01 to 100; near 0 it is greedy.
        top_p: sampling draws from the likeliest tokens that hold this much probability.
        no_repeat_ngram_size: no run of so many tokens occurs twice; 0 is off.
        seed: of sampling.
        near_texts: how many training texts near a row vote on its caption, which is a beam, a sample or one of them; 0
            is none. By default as many as training chose (near_texts of `caption train`), else none.
        near_temperature: of the softmax of their cosines; lower listens to the nearest alone. By default that of
            training, else 0.2.
        repeat_texts: whether a caption may be a near text, word for word.
    """

    method: str = "beam"
    num_beams: int = 4
    length_penalty: float = 1.0
    temperature: float = 1.0
    top_p: float = 0.9
    no_repeat_ngram_size: int = 0
    seed: int = 0
    near_texts: int | None = None
    near_temperature: float | None = None
    repeat_texts: bool = True

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise unknown_name("generation method", self.method, METHODS)
        for name, (low, high) in LIMITS.items():
            if not low <= getattr(self, name) <= high:
                raise UsageError(f"{name} must be from {low} to {high}, got {getattr(self, name)}")
        Vote(self.near_texts or 0, TEMPERATURE if self.near_temperature is None else self.near_temperature)
        if not 0 < self.top_p <= 1 or self.no_repeat_ngram_size < 0:
            raise UsageError(
                f"top_p is in (0, 1] and no_repeat_ngram_size at least 0; got {self.top_p}, {self.no_repeat_ngram_size}"
            )


METHODS: dict[str, Callable[[GenerationSettings], dict[str, Any]]] = {
    "greedy": lambda settings: {"do_sample": False, "num_beams": 1},
    "beam": lambda settings: {
        "do_sample": False,
        "num_beams": settings.num_beams,
        "length_penalty": settings.length_penalty,
    },
    "sample": lambda settings: {
        "do_sample": True,
        "num_beams": 1,
        "temperature": float(settings.temperature),  # transformers takes no whole number
        "top_p": settings.top_p,
        "top_k": 0,
    },
}


class Caption(NamedTuple):
    """A generated text; `score` is the mean log-probability of its tokens, its end included: at most 0."""

    text: str
    score: float


def with_new_settings(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that a file holds, with those that came after it was written, at the values that change nothing."""
    return {**asdict(GenerationSettings()), **stored}


def options_of(settings: GenerationSettings) -> dict[str, Any]:
    """The arguments of transformers' `generate`."""
    options = METHODS[settings.method](settings)
    return options | ({"no_repeat_ngram_size": settings.no_repeat_ngram_size} if settings.no_repeat_ngram_size else {})


def captions_from(model: "Captioner", prefix: Tensor, settings: GenerationSettings, key: str = "") -> list[Caption]:
    """Generate a caption for each row of a batch; near texts take no part (see `consensus`).

    Args:
        prefix: [pair, slot and patch, width], of `Captioner.prefix`.
        settings: how a caption is chosen.
        key: sampling draws from (seed, key), so that the same batch gets the same captions again.
    """
    return [candidates[0] for candidates in candidates_from(model, prefix, settings, key)]


@torch.inference_mode()
def candidates_from(
    model: "Captioner", prefix: Tensor, settings: GenerationSettings, key: str = "", count: int = 1
) -> list[list[Caption]]:
    """Generate several captions for each row of a batch, the best one first; arguments as in `captions_from`.

    Args:
        count: how many; more than one are beams, or drawn, in the order of the draw.
    """
    options = options_of(settings) | ({"num_return_sequences": count} if count > 1 else {})
    with torch.random.fork_rng(enabled=options["do_sample"]):
        if options["do_sample"]:
            digest = hashlib.blake2b(f"{settings.seed}/{key}".encode(), digest_size=8).digest()
            torch.manual_seed(int.from_bytes(digest, "little") >> 1)
        ids, is_token, losses = generated(model, prefix, options)
    scores = -losses.sum(dim=1) / is_token.sum(dim=1)
    texts = model.tokenizer.batch_decode(ids, skip_special_tokens=True)
    captions = [Caption(" ".join(text.split()), score) for text, score in zip(texts, scores.tolist(), strict=True)]
    return [captions[start : start + count] for start in range(0, len(captions), count)]


@torch.inference_mode()
def scores_of(model: "Captioner", prefix: Tensor, texts: Sequence[str]) -> list[float]:
    """The mean log-probability of the tokens of given texts, as `Caption.score`; a text that is too long is cut.

    Args:
        prefix: [text, slot and patch, width].
    """
    encoded = {name: value.to(prefix.device) for name, value in model.encode_captions(texts).items()}
    losses, is_token = model.token_losses(prefix, **encoded)
    scores: list[float] = (-losses.sum(dim=1) / is_token.sum(dim=1)).tolist()
    return scores


def generated(model: "Captioner", prefix: Tensor, options: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Generate token ids and their negative log-likelihoods.

    Returns:
        [pair, token] ids, with `num_return_sequences` so many rows for each pair; [pair, token - 1], which ids after
        the start are before or at the end token; and [pair, token - 1], the negative log-likelihoods of those, 0 for
        the others.
    """
    end = model.special_ids()["eos_token_id"]
    if options["num_beams"] > 1:  # beams change rows at every step, so that the best ones are scored by another pass
        ids = model.generate(prefix, **options)
        repeated = prefix.repeat_interleave(len(ids) // len(prefix), dim=0)
        losses, is_token = model.token_losses(repeated, ids, up_to_end(ids, end))
        return ids, is_token, losses
    with TokenScores(model.decoder) as seen:
        ids = model.generate(prefix, **options)
    is_token = up_to_end(ids, end)[:, 1:] != 0
    return ids, is_token, (-seen.of(ids)).masked_fill(~is_token, 0.0)


class TokenScores:
    """Collects the log-probabilities of tokens while `generate` chooses them, without another pass of the decoder.

    Each call of the decoder gets the token that was chosen from its last logits. The probability is that of the logits
    before any filter of sampling. Only the column of the chosen token is kept, not the logits of all steps.
    """

    def __init__(self, decoder: Any) -> None:
        self.decoder = decoder
        self.columns: list[Tensor] = []
        self.last: Tensor | None = None

    def __enter__(self) -> "TokenScores":
        self.handle = self.decoder.register_forward_hook(self.see, with_kwargs=True)
        return self

    def __exit__(self, *raised: object) -> None:
        self.handle.remove()

    def see(self, module: Any, args: Any, kwargs: Mapping[str, Any], output: Any) -> None:
        """The hook of the decoder: record the chosen token's log-probability, and keep the new logits' ones."""
        self.keep(kwargs["input_ids"][:, -1:])
        self.last = output.logits[:, -1].float().log_softmax(dim=-1)

    def keep(self, chosen: Tensor) -> None:
        """Add the column of the chosen tokens, [pair, 1] ids."""
        if self.last is not None:
            self.columns.append(self.last.gather(1, chosen))

    def of(self, ids: Tensor) -> Tensor:
        """[pair, token - 1] log-probabilities of the tokens after the start; those after the end have no meaning."""
        self.keep(ids[:, -1:])
        return torch.cat(self.columns, dim=1)


def up_to_end(ids: Tensor, end: int) -> Tensor:
    """[pair, token] mask: 1 from the start to the first end token after it, else 0.

    The start may be the same token as the end or the padding.
    """
    is_end = ids[:, 1:] == end
    after = is_end.cumsum(dim=1) - is_end.long()
    return torch.cat([torch.ones_like(ids[:, :1]), (after == 0).long()], dim=1)
