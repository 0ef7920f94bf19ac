"""Scores of generated captions: the reference implementations of pycocoevalcap, assembled so that groups resample.

Corpus scores are functions of sums over rows: BLEU of n-gram counts, METEOR of match statistics, ROUGE-L and CIDEr of
values per row. A bootstrap draws groups and sums again; CIDEr's inverse document frequencies stay those of all
references. The PTB tokenizer and METEOR are Java programs in pycocoevalcap. Without Java METEOR is missing, and
`word_tokens` tokenises; `CaptionScorer.tokenizer` names the tokenizer.
"""

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import torch
from torch import Tensor

from gapless.core.errors import DataRefused, GaplessError, missing_extra
from gapless.metrics.inputs import check_embeddings, group_index
from gapless.metrics.retrieval import RECALL_AT, hit_at_k
from gapless.metrics.similarity import scan_pair
from gapless.metrics.uncertainty import Figure, GroupSums, mean_figure, ratio_figure, share_figure

PTB, WORDS = "ptb", "words"
MAX_N = 4
SMALL, TINY = 1e-9, 1e-15  # pycocoevalcap's own guards against a division by zero
MAX_TYPICAL = 2000
# Positions in METEOR's statistics of a row; where there are two, they are those of the caption and the reference.
LENGTHS, CHUNKS, MATCHED = [0, 1], 20, [21, 22]
NO_JAVA = "needs Java (a java on the PATH)"


def java() -> str | None:
    """The path of the `java` command, or None without one."""
    return shutil.which("java")


class CaptionScorer:
    """Scores systems against one set of references.

        with CaptionScorer(references, groups=patients) as scorer:
            figures = scorer.figures(captions)          # {"caption/BLEU-1": Figure, ...}
            intervals = bootstrap(figures, scorer.groups.num_groups)

    The bootstrap of METEOR asks its Java program, so it belongs inside the block.

    Args:
        references: per row, one or more captions.
        groups: what is resampled together; None makes every row its own group.
        names: of the rows, for messages; by default their numbers from 0.
        use_java: False never runs Java.

    Raises:
        DataRefused: rows without a reference, or references without a word; counted, the first ten named.
        UsageError: pycocoevalcap is not installed.
    """

    def __init__(
        self,
        references: Sequence[Sequence[str]],
        groups: Sequence[Any] | None = None,
        names: Sequence[str] | None = None,
        use_java: bool = True,
    ) -> None:
        self.java = java() if use_java else None
        self.tokenizer = PTB if self.java else WORDS
        self.missing = {} if self.java else {"caption/METEOR": NO_JAVA}
        index = group_index(groups, len(references))
        self.groups = GroupSums(index, int(index.max()) + 1 if len(index) else 0)
        self.references = self._tokenised_references(references, names)
        self._meteor: Any = None

    def __enter__(self) -> "CaptionScorer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._meteor is not None:
            process = self._meteor.meteor_p
            for stream in (process.stdin, process.stdout, process.stderr):
                stream.close()
            process.kill()
            process.wait()
            self._meteor = None

    def _tokenised_references(
        self, references: Sequence[Sequence[str]], names: Sequence[str] | None
    ) -> list[list[str]]:
        flat = [text for texts in references for text in texts]
        tokens = iter(self.tokenise(flat))
        rows = [[next(tokens) for _ in texts] for texts in references]
        empty = [row for row, texts in enumerate(rows) if not texts or not all(texts)]
        if empty:
            first = ", ".join(str(names[row] if names else row) for row in empty[:10])
            raise DataRefused(
                f"{len(empty)} of {len(rows)} rows have no reference, or one without a word (row {first}); remove them"
            )
        if not rows:
            raise DataRefused("there are no references to score against")
        return rows

    def tokenise(self, captions: Sequence[str]) -> list[str]:
        """Lower-case tokens with a space between, punctuation removed."""
        captions = [" ".join(caption.split()) for caption in captions]  # the PTB tokenizer reads one caption a line
        return _ptb_tokens(captions, self.java) if self.java else [word_tokens(caption) for caption in captions]

    def figures(self, captions: Sequence[str], embeddings: Mapping[str, Any] | None = None) -> dict[str, Figure]:
        """Every score of a system that gives one caption per row.

        Args:
            captions: aligned with the references; an empty one scores 0.
            embeddings: {"caption": [row, dim], "image": [row, dim]}, for the retrieval of the image by its caption
                among the images of all rows.

        Returns:
            `caption/...` -> Figure. BLEU, METEOR, ROUGE-L, distinct, unique and recalls lie in [0, 1], CIDEr in
            [0, 10]; higher is better. `caption/length` counts tokens.
        """
        if len(captions) != len(self.references):
            raise ValueError(f"expected {len(self.references)} captions, one per row, got {len(captions)}")
        tokens = self.tokenise(captions)
        figures = {
            **self._bleu(tokens),
            "caption/ROUGE-L": mean_figure(self._rouge(tokens), self.groups),
            "caption/CIDEr": mean_figure(self._cider(tokens), self.groups),
            **_diversity(tokens, self.groups),
        }
        if self.java:
            figures["caption/METEOR"] = self._meteor_figure(tokens)
        if embeddings is not None:
            figures |= _retrieval_figures(embeddings["caption"], embeddings["image"], self.groups)
        return figures

    def _bleu(self, tokens: Sequence[str]) -> dict[str, Figure]:
        """BLEU-1 to 4 from sums over rows: lengths, lengths of the closest references, n-grams that match, n-grams."""
        scorer = _reference_package("bleu.bleu_scorer")
        rows = []
        for caption, references in zip(tokens, self.references, strict=True):
            counts = scorer.cook_test(caption, scorer.cook_refs(references), eff="closest")
            rows.append([counts["testlen"], counts["reflen"], *counts["correct"], *counts["guess"]])
        statistics = torch.tensor(rows, dtype=torch.float64)
        sums = self.groups.sum(statistics)

        def order(n: int) -> Figure:
            value = float(bleu_of(statistics.sum(dim=0, keepdim=True), n))
            return Figure(value, lambda draws: bleu_of(draws @ sums, n))

        return {f"caption/BLEU-{n}": order(n) for n in range(1, MAX_N + 1)}

    def _rouge(self, tokens: Sequence[str]) -> Tensor:
        scorer = _reference_package("rouge.rouge").Rouge()
        scores = [scorer.calc_score([one], several) for one, several in zip(tokens, self.references, strict=True)]
        return torch.tensor(scores, dtype=torch.float64)

    def _cider(self, tokens: Sequence[str]) -> Tensor:
        """[row] CIDEr values in [0, 10], with the document frequencies of all references."""
        scorer = _reference_package("cider.cider_scorer").CiderScorer()
        for caption, references in zip(tokens, self.references, strict=True):
            scorer.cook_append(caption, references)
        return torch.from_numpy(scorer.compute_score()[1]).double()

    def _meteor_figure(self, tokens: Sequence[str]) -> Figure:
        """METEOR from statistics that are summed over rows, as its program does for a corpus."""
        if self._meteor is None:
            self._meteor = _reference_package("meteor.meteor").Meteor()
        rows = [self._meteor._stat(one, several) for one, several in zip(tokens, self.references, strict=True)]
        try:
            statistics = torch.tensor([[float(number) for number in row.split()] for row in rows], dtype=torch.float64)
        except ValueError:
            raise GaplessError("METEOR's Java program gave no statistics; try java -version") from None
        # A caption that matches its reference in one chunk has no fragmentation, and METEOR does not count its chunk.
        whole = (statistics[:, CHUNKS] == 1) & (statistics[:, MATCHED] == statistics[:, LENGTHS]).all(dim=1)
        statistics[whole, CHUNKS] = 0
        sums = self.groups.sum(statistics)
        return Figure(
            float(self._meteor_of(statistics.sum(dim=0, keepdim=True))), lambda draws: self._meteor_of(draws @ sums)
        )

    def _meteor_of(self, statistics: Tensor) -> Tensor:
        """[replicate]: the program's score of each row of summed statistics."""
        process = self._meteor.meteor_p
        scores = []
        for row in statistics.tolist():
            process.stdin.write(f"EVAL ||| {' '.join(map(str, row))}\n".encode())
            process.stdin.flush()
            process.stdout.readline()  # the score of the segment; the next line is that of the corpus
            scores.append(float(process.stdout.readline()))
        return torch.tensor(scores, dtype=torch.float64)


def bleu_of(sums: Tensor, n: int) -> Tensor:
    """BLEU-n, in [0, 1], of [replicate, statistic] sums of what `CaptionScorer._bleu` counts."""
    length, reference, correct = sums[:, 0], sums[:, 1], sums[:, 2 : 2 + MAX_N]
    guess = sums[:, 2 + MAX_N :]
    precision = ((correct[:, :n] + TINY) / (guess[:, :n] + SMALL)).log().mean(dim=1).exp()
    ratio = (length + TINY) / (reference + SMALL)
    return precision * torch.where(ratio < 1, torch.exp(1 - 1 / ratio), torch.ones_like(ratio))


def _diversity(tokens: Sequence[str], groups: GroupSums) -> dict[str, Figure]:
    """How varied the captions are, which scores against references do not measure.

    `distinct-n` is the share of different n-grams among all n-grams, `unique` the share of different captions; neither
    is a sum over rows, so neither is resampled. `length` is the mean number of tokens.
    """
    words = [caption.split() for caption in tokens]
    figures = {}
    for n in (1, 2):
        grams = [tuple(row[start : start + n]) for row in words for start in range(len(row) - n + 1)]
        figures[f"caption/distinct-{n}"] = Figure(len(set(grams)) / len(grams) if grams else 0.0)
    lengths = torch.tensor([len(row) for row in words], dtype=torch.float64)
    return {
        **figures,
        "caption/unique": Figure(len(set(tokens)) / len(tokens)),
        "caption/length": mean_figure(lengths, groups),
        "caption/empty": ratio_figure((lengths == 0).double(), torch.ones_like(lengths), groups),
    }


def _retrieval_figures(captions: Any, images: Any, groups: GroupSums) -> dict[str, Figure]:
    """`caption/retrieval/R@K`: the share of captions whose own image is among the K nearest images.

    The gallery is the images of all rows; ties count at their expected rank.
    """
    rows = check_embeddings({"caption": captions, "image": images})
    counts = scan_pair(rows["caption"], rows["image"]).cross[0]
    return {f"caption/retrieval/R@{k}": share_figure(hit_at_k(counts, k), groups) for k in RECALL_AT}


def word_tokens(caption: str) -> str:
    """Lower-case words and numbers; clitics and abbreviations are not split as the PTB tokenizer does."""
    return " ".join(re.findall(r"\w+(?:[-'./]\w+)*", caption.lower()))


def _ptb_tokens(captions: Sequence[str], java_command: str) -> list[str]:
    """The tokens of pycocoevalcap's PTBTokenizer, whose Java program is run here through a pipe.

    Its Python wrapper writes files into its package, and to stderr.
    """
    package = _reference_package("tokenizer.ptbtokenizer")
    jar = Path(str(package.__file__)).parent / package.STANFORD_CORENLP_3_4_1_JAR
    command = [java_command, "-Dfile.encoding=UTF-8", "-Dstdout.encoding=UTF-8", "-cp", str(jar)]
    command += ["edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    text = "".join(f"{caption}\n" for caption in captions)
    done = subprocess.run(command, input=text.encode(), capture_output=True, check=False)
    lines = done.stdout.decode().split("\n")[:-1]
    if done.returncode or len(lines) != len(captions):
        messages = done.stderr.decode(errors="replace").strip().splitlines()
        raise GaplessError(
            f"the PTB tokenizer gave {len(lines)} lines for {len(captions)} captions "
            f"({messages[-1] if messages else 'no message'}); try java -version"
        )
    dropped = set(package.PUNCTUATIONS)
    return [" ".join(word for word in line.split(" ") if word and word not in dropped) for line in lines]


def _reference_package(module: str) -> ModuleType:
    from importlib import import_module

    try:
        return import_module(f"pycocoevalcap.{module}")
    except ImportError:
        raise missing_extra("pycocoevalcap", "caption") from None


def most_typical(captions: Sequence[str]) -> str:
    """The caption that shares most words with the others: a strong constant baseline.

    It has the greatest mean F1 of word sets, `2 |a & b| / (|a| + |b|)`, among at most 2,000 evenly spaced captions.

    Raises:
        DataRefused: no caption holds a word.
    """
    chosen = captions[:: -(-len(captions) // MAX_TYPICAL)]
    words = [set(word_tokens(caption).split()) for caption in chosen]
    vocabulary = {word: place for place, word in enumerate(sorted(set().union(*words)))}
    if not vocabulary:
        raise DataRefused("the training captions hold no word")
    rows = torch.zeros(len(words), len(vocabulary))
    for row, found in enumerate(words):
        rows[row, [vocabulary[word] for word in found]] = 1.0
    sizes = rows.sum(dim=1)
    scores = 2 * (rows @ rows.T) / (sizes[:, None] + sizes).clamp_min(1)
    return chosen[int(scores.mean(dim=1).argmax())]
