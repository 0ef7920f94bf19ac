"""Captions by consensus: of several candidates, the one that agrees best with the training texts near an image.

The candidates are what the decoder writes and the near texts themselves. Every near text votes for a candidate with its
agreement, weighted by a softmax of its cosine to the image. This is the choice of least expected loss (minimum Bayes
risk) where the near texts stand for what may be said of the image.

The agreement of two texts is a mean of two: by n-grams as CIDEr-D, which rewards rare n-grams, and by words as METEOR,
which rewards finding the words of the other text. `Vote.word_weight` is the weight of the second.

References: Kumar and Byrne, Minimum Bayes-risk decoding for statistical machine translation, HLT-NAACL 2004; Devlin et
al., arXiv 1505.04467 (consensus of the captions of near images); Vedantam et al., CIDEr, CVPR 2015; Banerjee and Lavie,
METEOR, 2005 (nine parts of recall, one of precision); Denkowski and Lavie, Meteor Universal, 2014.
"""

import math
from collections import Counter
from collections.abc import Sequence
from copy import copy
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_array, diags_array, hstack
from sklearn.feature_extraction.text import CountVectorizer
from torch import Tensor

from gapless.captioning.metrics import MAX_N, word_tokens
from gapless.captioning.vote import Vote
from gapless.core.captions import caption_number

COUNTS = (10, 30, 100, 300)
TEMPERATURES = (0.02, 0.05, 0.1, 0.2, 0.5)
WORD_WEIGHTS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5)
SIGMA = 6.0  # of the penalty on a difference of lengths, in words: that of CIDEr-D
RECALL_WEIGHT = 0.9  # of recall against precision: that of the first METEOR


class TextVectors(NamedTuple):
    """What texts are compared by.

    Args:
        ngrams: [text, n-gram] tf-idf; their scalar product is the mean over n of the cosines.
        words: [text, word] 0 or 1; a word's second occurrence is a column of its own, so that the scalar product
            counts the words that two texts share.
        lengths: [text] numbers of words.
    """

    ngrams: csr_array
    words: csr_array
    lengths: np.ndarray

    def of(self, places: Any) -> "TextVectors":
        """Those of some texts."""
        return TextVectors(self.ngrams[places], self.words[places], self.lengths[places])


class TextVectorizer:
    """Texts as vectors of their n-grams and words, with the document frequencies of some texts.

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
        self.occurrences: Any = CountVectorizer(analyzer=occurrences).fit(tokens) if self.counters else None

    def vectors(self, texts: Sequence[str]) -> TextVectors:
        """The vectors of any texts."""
        tokens = [word_tokens(text) for text in texts]
        lengths = np.array([len(text.split()) for text in tokens], dtype=np.float64)
        empty = csr_array((len(texts), 0))
        parts = [self._ngrams(tokens, lengths, n) for n in range(1, len(self.counters) + 1)]
        words = empty if self.occurrences is None else self.occurrences.transform(tokens)
        return TextVectors(csr_array(hstack(parts)) if parts else empty, csr_array(words, dtype=np.float64), lengths)

    def _ngrams(self, tokens: Sequence[str], lengths: np.ndarray, n: int) -> csr_array:
        """[text, n-gram] tf-idf of one n, whose scalar products are cosines over MAX_N."""
        counts = csr_array(self.counters[n - 1].transform(tokens), dtype=np.float64)
        unknown = np.maximum(lengths - n + 1, 0) - counts.sum(axis=1)
        weighted = counts @ diags_array(self.weights[n - 1])
        squares = weighted.multiply(weighted).sum(axis=1) + unknown * self.unknown**2
        scale = np.divide(1.0, np.sqrt(squares), out=np.zeros_like(squares), where=squares > 0)
        return csr_array(diags_array(scale / math.sqrt(MAX_N)) @ weighted)


def occurrences(tokens: str) -> list[str]:
    """Each word with its number among equal words: "the left the" becomes "the 1", "left 1", "the 2"."""
    seen: Counter[str] = Counter()
    numbered = []
    for word in tokens.split():
        seen[word] += 1
        numbered.append(f"{word} {seen[word]}")
    return numbered


def ngram_agreement(texts: TextVectors, others: TextVectors) -> np.ndarray:
    """[text, other] in [0, 1]: the cosines of n-grams, less for texts of other lengths; higher is more alike.

    Ten times this is CIDEr-D with these document frequencies, but for n-grams that a text repeats.
    """
    cosines = (texts.ngrams @ others.ngrams.T).toarray()
    return np.asarray(cosines * np.exp(-((texts.lengths[:, None] - others.lengths) ** 2) / (2 * SIGMA**2)))


def word_agreement(texts: TextVectors, others: TextVectors) -> np.ndarray:
    """[text, other] in [0, 1]: the words of the other that a text has, and few further ones; higher is more alike.

    The F-measure P R / (a P + (1 - a) R) with a = RECALL_WEIGHT, where P is the share of the words of the text that the
    other has, and R the share of the words of the other that the text has. This is METEOR with exact matches and
    without its penalty for scattered ones. It is not symmetric.
    """
    shared = (texts.words @ others.words.T).toarray()
    weighted = RECALL_WEIGHT * others.lengths + (1 - RECALL_WEIGHT) * texts.lengths[:, None]
    return np.asarray(np.divide(shared, weighted, out=np.zeros_like(shared), where=weighted > 0))


def agreement(texts: TextVectors, others: TextVectors, word_weight: float) -> np.ndarray:
    """[text, other] in [0, 1]: the mean of both agreements, with this weight of the one by words."""
    return mixed(ngram_agreement(texts, others), word_agreement(texts, others), word_weight)


def mixed(by_ngrams: np.ndarray, by_words: np.ndarray, word_weight: float) -> np.ndarray:
    """Their mean, with this weight of the second."""
    return (1 - word_weight) * by_ngrams + word_weight * by_words


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
        self.vectorizer = TextVectorizer(self.texts)
        self.vectors = self.vectorizer.vectors(self.texts)

    def with_vote(self, vote: Vote) -> "NearTexts":
        """The same texts with another vote."""
        other = copy(self)
        other.vote = vote
        return other

    def as_json(self) -> dict[str, Any]:
        """What `OUT.json` says of them."""
        vote = self.vote
        of_vote = {"count": vote.near_texts, "temperature": vote.temperature, "word_weight": vote.word_weight}
        return {"near_texts": of_vote}

    def near(self, rows: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """[row, near] places of the nearest texts, the nearest first, and their weights, which sum to 1.

        Args:
            rows: [row, dim] unit-norm.
        """
        places, cosines = self.nearest(rows, self.vote.near_texts)
        return places, (cosines / self.vote.temperature).softmax(dim=1).numpy()

    def nearest(self, rows: Tensor, count: int) -> tuple[np.ndarray, Tensor]:
        """[row, near] places of at most so many nearest texts, the nearest first, and their cosines."""
        nearest = (rows.float().cpu() @ self.embeddings.T).topk(min(count, len(self.texts)), dim=1)
        return nearest.indices.numpy(), nearest.values.double()

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
            voters = self.vectors.of(near)
            scores = [agreement(self.vectorizer.vectors(own), voters, self.vote.word_weight) @ weight] if own else []
            scores += [agreement(voters, voters, self.vote.word_weight) @ weight] if repeats else []
            best = int(np.concatenate(scores).argmax())
            is_own = best < len(own)
            chosen.append(Chosen(best, own[best]) if is_own else Chosen(None, self.texts[near[best - len(own)]]))
        return chosen


def chosen_vote(
    near: NearTexts, rows: Tensor, references: Sequence[str], groups: Sequence[str], chosen_on: str
) -> Vote:
    """The number of near texts, the temperature and the word weight whose chosen text agrees best with the references.

    The near texts alone are candidates. Agreement by n-grams and by words are averaged over rows, and their geometric
    mean is compared, so that a tenth more of either counts the same. Every group weighs the same; of equal settings the
    one with fewest texts wins.

    Args:
        rows: [row, dim] rows that were not trained on.
        references: the true text of each.
        groups: of each row.
        chosen_on: what the rows are.
    """
    truth, shares = near.vectorizer.vectors(references), group_shares(groups)
    counts = [count for count in COUNTS if count == COUNTS[0] or count <= len(near.texts)]
    means = np.zeros((len(counts), len(TEMPERATURES), len(WORD_WEIGHTS), 2))
    for row, share in enumerate(shares):
        means += share * _agreements_reached(near, rows[[row]], truth.of([row]), counts)
    reached = np.sqrt(means.prod(axis=3)).flatten()
    settings = product(counts, TEMPERATURES, WORD_WEIGHTS)
    votes = [
        Vote(count, temperature, round(float(one), 6), chosen_on, word_weight)
        for (count, temperature, word_weight), one in zip(settings, reached, strict=True)
    ]
    return max(votes, key=lambda vote: vote.agreement or 0.0)


def group_shares(groups: Sequence[str]) -> list[float]:
    """The weight of each row in a mean in which every group weighs the same; they sum to 1."""
    sizes = Counter(groups)
    return [1 / (len(sizes) * sizes[group]) for group in groups]


def _agreements_reached(near: NearTexts, row: Tensor, truth: TextVectors, counts: Sequence[int]) -> np.ndarray:
    """[count, temperature, word weight, 2]: how well the text chosen for a row agrees with its truth, by n-grams and by
    words. The nearest of the most texts are those of fewer, so that each pair is compared once.

    Args:
        row: [1, dim]. truth: of the one true text. counts: of texts that vote, ascending.
    """
    places, cosines = near.nearest(row, counts[-1])
    voters = near.vectors.of(places[0])
    by_ngrams, by_words = ngram_agreement(voters, voters), word_agreement(voters, voters)
    right = np.concatenate([ngram_agreement(voters, truth), word_agreement(voters, truth)], axis=1)
    reached = []
    for count in counts:
        weights = np.stack([(cosines[0, :count] / one).softmax(dim=0).numpy() for one in TEMPERATURES], axis=1)
        of_ngrams, of_words = by_ngrams[:count, :count] @ weights, by_words[:count, :count] @ weights
        votes = np.stack([mixed(of_ngrams, of_words, word_weight) for word_weight in WORD_WEIGHTS], axis=2)
        reached.append(right[votes.argmax(axis=0)])
    return np.stack(reached)
