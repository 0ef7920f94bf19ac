"""Captions that the training texts near a row vote on: `consensus.py` with a captioner and its data."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gapless.captioning.bridge import first_texts, nearest_cosine, noise_of_cosine
from gapless.captioning.captioner import Captioner
from gapless.captioning.consensus import NearTexts, chosen_vote
from gapless.captioning.data import feature_batches, sources_of
from gapless.captioning.generation import Caption, GenerationSettings, candidates_from, scores_of
from gapless.captioning.route import Route, texts_of, usable_rows
from gapless.captioning.trust import check_embeds_texts, texts_at_hand
from gapless.captioning.vote import TEMPERATURE, WORD_WEIGHT, Vote
from gapless.core.errors import DataRefused
from gapless.core.geometry import unit_norm
from gapless.manifest.manifest import Manifest


def near_texts_of(model: Captioner, settings: GenerationSettings, manifest: Manifest | None) -> NearTexts | None:
    """The training texts that vote on captions; None where none do.

    Args:
        settings: what they leave open is as the captioner was trained.
        manifest: the user's data, or None for image files.

    Raises:
        UsageError: no training texts at hand.
    """
    learnt = model.vote or Vote(0, TEMPERATURE, word_weight=WORD_WEIGHT)
    count = learnt.near_texts if settings.near_texts is None else settings.near_texts
    if not count:
        return None
    temperature = learnt.temperature if settings.near_temperature is None else settings.near_temperature
    texts = texts_at_hand(model, manifest, "near_texts")
    vote = Vote(count, temperature, word_weight=learnt.word_weight)
    return NearTexts(texts, model.aligner.encode(model.route.target, texts), vote)


@torch.inference_mode()
def captions_by_vote(
    model: Captioner, prefix: Tensor, embedding: Tensor, settings: GenerationSettings, near: NearTexts, key: str = ""
) -> list[Caption]:
    """A caption for each row: of the beams or samples and, where they may be repeated, the near texts, the chosen one.

    Args:
        prefix, key: as in `generation.captions_from`.
        embedding: [pair, dim], what the captions are made from.
    """
    count = 1 if settings.method == "greedy" else settings.num_beams
    candidates = candidates_from(model, prefix, settings, key, count)
    chosen = near.choose([[one.text for one in row] for row in candidates], embedding, settings.repeat_texts)
    repeated = [row for row, one in enumerate(chosen) if one.candidate is None]
    scores = dict(zip(repeated, _scores(model, prefix, [chosen[row].text for row in repeated], repeated), strict=True))
    return [
        Caption(one.text, scores[row]) if one.candidate is None else candidates[row][one.candidate]
        for row, one in enumerate(chosen)
    ]


def _scores(model: Captioner, prefix: Tensor, texts: Sequence[str], rows: Sequence[int]) -> list[float]:
    """The scores of texts for these rows of a prefix."""
    return scores_of(model, prefix[list(rows)], texts) if texts else []


def learnt_vote(model: Captioner, train: Manifest, held_back: Manifest) -> Vote:
    """The vote of near texts that suits held-back rows: their pairs or, where none has a source, their texts alone.

    A text alone stands for its image after noise that turns it by the angle between a train text and the nearest other
    one, so that it finds texts like itself.

    Raises:
        UsageError: the model does not embed texts. DataRefused: no rows are held back.
    """
    check_embeds_texts(model, "near_texts")
    if not len(held_back):
        raise DataRefused("--near_texts true is chosen on rows that are held back, and there are none; set --held_back")
    target = model.route.target
    texts = sorted({text for text in texts_of(train, target) if text.strip()})
    near = NearTexts(texts, model.aligner.encode(target, texts), Vote(0, TEMPERATURE))
    rows = _with_a_source(held_back, model.route)
    if len(rows):
        parts = feature_batches(model, sources_of(model, rows), batch_size=64)
        queries, chosen_on = torch.cat([embedding.cpu() for _, (embedding, _), _ in parts]), "held-back pairs"
    else:
        rows, chosen_on = held_back, "held-back texts"
        queries = turned_as_the_nearest(model.aligner.encode(target, first_texts(rows, target)), near.embeddings)
    return chosen_vote(near, queries, first_texts(rows, target), rows.table["group"].to_pylist(), chosen_on)


def _with_a_source(rows: Manifest, route: Route) -> Manifest:
    """The rows that have one of the sources; none where the manifest has not their modalities."""
    if not set(route.sources) <= set(rows.modalities):
        return Manifest(rows.path, rows.info, rows.table.slice(0, 0))
    return usable_rows(rows, route)[0]


def turned_as_the_nearest(rows: Tensor, texts: Tensor) -> Tensor:
    """Unit rows after noise that turns them by the angle between a text and the nearest other one, in the mean.

    The noise is the same in every call.

    Args:
        rows: [row, dim]. texts: [text, dim].
    """
    noise = torch.randn(rows.shape, generator=torch.Generator().manual_seed(0))
    return unit_norm(rows + noise_of_cosine(nearest_cosine(texts), rows.shape[1]) * noise)
