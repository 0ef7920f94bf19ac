"""Captions by consensus: of several candidates, the one that agrees best with the training texts near an image.

The candidates are what the decoder writes and the near texts themselves. Every near text votes for a candidate with its
agreement (`Ngrams.agreement`, a CIDEr with the document frequencies of the training texts), weighted by a softmax of
its cosine to the image. This is the choice of least expected loss (minimum Bayes risk) where the near texts stand for
what may be said of the image.
"""

import math
from collections.abc import Sequence
from copy import copy
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_array, diags_array, hstack
from sklearn.feature_extraction.text import CountVectorizer
from torch import Tensor

from gapless.captioning.metrics import MAX_N, word_tokens
from gapless.captioning.vote import Vote
from gapless.core.captions import caption_number
from gapless.core.geometry import blocks

COUNTS = (10, 30, 100, 300)
TEMPERATURES = (0.02, 0.05, 0.1, 0.2, 0.5)
SIGMA = 6.0  # of the penalty on a difference of lengths, in words: that of CIDEr-D
ROWS_AT_ONCE = 256


class Ngrams:
    """Texts as tf-idf vectors of their n-grams, with the document frequencies of some texts.

    Args:
        texts: those of the document frequencies.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        tokens = [word_tokens(text) for text in texts]
        self.counters: list[Any] = []
        self.weights: list[np.ndarray] = []
        self.unknown = math.log(max(len(texts), 1))  # the weight of an n-gram that stands in none of the texts
        for n in range(1, MAX_N + 1):
            counter = CountVectorizer(tokenizer=str.split, token_pattern=None, lowercase=False, ngram_range=(n, n))
            if not any(len(text.split()) >= n for text in tokens):
                break
            counts = counter.fit_transform(tokens)
            self.counters.append(counter)
            self.weights.append(np.log(len(texts) / np.bincount(counts.indices, minlength=counts.shape[1])))

    def vectors(self, texts: Sequence[str]) -> tuple[csr_array, np.ndarray]:
        """[text, n-gram] vectors, whose product is the mean over n of the cosines; and [text] numbers of words."""
        tokens = [word_tokens(text) for text in texts]
        lengths = np.array([len(text.split()) for text in tokens], dtype=np.float64)
        parts = []
        for n, (counter, weights) in enumerate(zip(self.counters, self.weights, strict=True), start=1):
            counts = csr_array(counter.transform(tokens), dtype=np.float64)
            unknown = np.maximum(lengths - n + 1, 0) - counts.sum(axis=1)
            weighted = counts @ diags_array(weights)
            squares = weighted.multiply(weighted).sum(axis=1) + unknown * self.unknown**2
            scale = np.divide(1.0, np.sqrt(squares), out=np.zeros_like(squares), where=squares > 0)
            parts.append(diags_array(scale / math.sqrt(MAX_N)) @ weighted)
        return csr_array(hstack(parts) if parts else (len(texts), 0)), lengths

    @staticmethod
    def agreement(texts: tuple[csr_array, np.ndarray], others: tuple[csr_array, np.ndarray]) -> np.ndarray:
        """[text, other] in [0, 1]: the scalar products, less for texts of other lengths; higher is more alike.

        Ten times this is CIDEr-D with these document frequencies, but for n-grams that a text repeats.

        Args:
            texts, others: of `vectors`.
        """
        cosines = (texts[0] @ others[0].T).toarray()
        return np.asarray(cosines * np.exp(-((texts[1][:, None] - others[1]) ** 2) / (2 * SIGMA**2)))


class Chosen(NamedTuple):
    """What was chosen for a row: the place of a candidate, or the text that is repeated."""

    candidate: int | None
    text: str


class NearTexts:
    """Training texts that vote on captions.

    Args:
        texts: with a word at least; the same ones are counted once.
        embeddings: [text, dim] unit-norm, in the space of the rows that are captioned.
        vote: how many of them vote, and how.
    """

    def __init__(self, texts: Sequence[str], embeddings: Tensor, vote: Vote) -> None:
        first: dict[int, int] = {}
        for place, text in enumerate(texts):
            first.setdefault(caption_number(text, ""), place)
        places = list(first.values())
        self.texts = [texts[place] for place in places]
        self.embeddings = embeddings[places].float().cpu()
        self.vote = vote
        self.ngrams = Ngrams(self.texts)
        self.vectors = self.ngrams.vectors(self.texts)

    def with_vote(self, vote: Vote) -> "NearTexts":
        """The same texts with another vote."""
        other = copy(self)
        other.vote = vote
        return other

    def as_json(self) -> dict[str, Any]:
        """What `OUT.json` says of them."""
        return {"near_texts": {"count": self.vote.near_texts, "temperature": self.vote.temperature}}

    def near(self, rows: Tensor, vote: Vote | None = None) -> tuple[np.ndarray, np.ndarray]:
        """[row, near] places of the nearest texts, the nearest first, and their weights, which sum to 1.

        Args:
            rows: [row, dim] unit-norm.
        """
        vote = vote or self.vote
        found = (rows.float().cpu() @ self.embeddings.T).topk(min(vote.near_texts, len(self.texts)), dim=1)
        return found.indices.numpy(), (found.values.double() / vote.temperature).softmax(dim=1).numpy()

    def part(self, places: np.ndarray) -> tuple[csr_array, np.ndarray]:
        """The vectors and lengths of some texts."""
        return self.vectors[0][places], self.vectors[1][places]

    def choose(self, candidates: Sequence[Sequence[str]], rows: Tensor, repeats: bool = True) -> list[Chosen]:
        """The candidate of each row that agrees best with its near texts; the first of equal ones.

        Args:
            candidates: of each row, at least one unless near texts may be repeated.
            rows: [row, dim] what the captions are made from.
            repeats: whether the near texts are candidates too.
        """
        places, weights = self.near(rows)
        chosen = []
        for own, near, weight in zip(candidates, places, weights, strict=True):
            voters = self.part(near)
            scores = [self.ngrams.agreement(self.ngrams.vectors(own), voters) @ weight] if own else []
            scores += [self.ngrams.agreement(voters, voters) @ weight] if repeats else []
            best = int(np.concatenate(scores).argmax())
            is_own = best < len(own)
            chosen.append(Chosen(best, own[best]) if is_own else Chosen(None, self.texts[near[best - len(own)]]))
        return chosen


def chosen_vote(
    near: NearTexts, rows: Tensor, references: Sequence[str], groups: Sequence[str], chosen_on: str
) -> Vote:
    """The number of near texts and the temperature whose chosen text agrees best with the references.

    The near texts alone are candidates. Every group weighs the same; of equal settings the one with fewest texts wins.

    Args:
        rows: [row, dim] rows that were not trained on.
        references: the true text of each.
        groups: of each row.
        chosen_on: what the rows are.
    """
    members: dict[str, list[int]] = {}
    for place, group in enumerate(groups):
        members.setdefault(group, []).append(place)
    truth = near.ngrams.vectors(references)
    found: list[Vote] = []
    for count in (count for count in COUNTS if count == COUNTS[0] or count <= len(near.texts)):
        values: dict[float, list[float]] = {temperature: [] for temperature in TEMPERATURES}
        for block in blocks(len(rows), ROWS_AT_ONCE):
            places, _ = near.near(rows[block], Vote(count, 1.0))
            for row, nearest in zip(range(len(rows))[block], places, strict=True):
                voters = near.part(nearest)
                between = near.ngrams.agreement(voters, voters)
                right = near.ngrams.agreement(voters, (truth[0][[row]], truth[1][[row]]))[:, 0]
                cosines = (near.embeddings[torch.from_numpy(nearest)] @ rows[row].float().cpu()).double()
                for temperature, into in values.items():
                    weights = (cosines / temperature).softmax(dim=0).numpy()
                    into.append(float(right[(between @ weights).argmax()]))
        for temperature, of_rows in values.items():
            mean = np.mean([np.mean([of_rows[place] for place in places]) for places in members.values()])
            found.append(Vote(count, temperature, round(float(mean), 6), chosen_on))
    return max(found, key=lambda vote: vote.agreement or 0.0)
