"""Faults of this field, each as one replacement in one file of the source, and the tests that must notice.

Each was found in a well-known project, or is one character away from a formula.
"""

from dataclasses import dataclass
from pathlib import Path

import gapless

SOURCE = Path(gapless.__file__).parent
GEOMETRY, LOSS = "tests/core/test_core_geometry.py", "tests/losses/test_losses_gap_closing.py"
TILED, CACHED = "tests/losses/test_losses_tiled.py", "tests/losses/test_losses_cached.py"
GATHERED = "tests/losses/test_losses_gathered.py"
AGREEMENT, INVARIANCES = "tests/metrics/test_metrics_agreement.py", "tests/metrics/test_metrics_invariances.py"
GROUPING, UNCERTAINTY = "tests/metrics/test_metrics_grouping.py", "tests/metrics/test_metrics_uncertainty.py"
CAPTIONING = "tests/captioning/test_captioning_scores.py"
BATCHES, RULES = "tests/inference/test_inference_batches.py", "tests/training/test_training_rules.py"


@dataclass(frozen=True)
class Mutant:
    """`before` stands exactly once in `file`, below `src/gapless`; with `after` in its place, `tests` must fail."""

    fault: str
    file: str
    before: str
    after: str
    tests: str

    def source(self) -> str:
        """The file with its fault.

        Raises:
            AssertionError: the source has moved on, and the fault must be written anew.
        """
        text = (SOURCE / self.file).read_text()
        assert text.count(self.before) == 1, f"{self.fault}: {text.count(self.before)} places in {self.file}"
        return text.replace(self.before, self.after)


MUTANTS = (
    # --- losses ---------------------------------------------------------------------------------------------------
    Mutant(
        "cached accumulation with other dropout the second time",
        "losses/engine/cached.py",
        "micro_batch, use_reentrant=False)",
        "micro_batch, use_reentrant=False, preserve_rng_state=False)",
        CACHED,
    ),
    Mutant(
        "similarities in half precision",
        "core/geometry.py",
        "return x if x.dtype in (torch.float32, torch.float64) else x.float()",
        "return x",
        LOSS,
    ),
    Mutant(
        "zero rows become NaN",
        "core/geometry.py",
        "is_zero = norm_squared == 0",
        "is_zero = norm_squared < 0",
        GEOMETRY,
    ),
    Mutant(
        "uniformity of one row is accepted",
        "core/geometry.py",
        "if num_rows < 2 or (can_read_values(points) and not num_pairs):",
        "if num_rows < 1:",
        GEOMETRY,
    ),
    Mutant(
        "the kernel underflows",
        "core/geometry.py",
        "torch.logsumexp(exponents.masked_fill(same, -math.inf), dim=1)",
        "exponents.masked_fill(same, -math.inf).exp().sum(dim=1).log()",
        GEOMETRY,
    ),
    Mutant(
        "another width of the kernel", "core/geometry.py", "UNIFORMITY_SCALE = 2.0", "UNIFORMITY_SCALE = 1.0", GEOMETRY
    ),
    Mutant(
        "centroids are not normalised",
        "core/geometry.py",
        "return unit_norm(centroid) if normalise else centroid",
        "return centroid",
        LOSS,
    ),
    Mutant(
        "identical captions are pushed apart",
        "core/geometry.py",
        "index = torch.arange(num_rows, device=points.device) if positives is None else positives",
        "index = torch.arange(num_rows, device=points.device)",
        GEOMETRY,
    ),
    Mutant(
        "duplicate captions are negatives",
        "losses/contrastive.py",
        "of_positives = torch.logsumexp(logits.masked_fill(is_negative, -math.inf), dim=1)",
        "of_positives = logits.diagonal()",
        LOSS,
    ),
    Mutant(
        "one direction of the contrast alone",
        "losses/contrastive.py",
        "return (_cross_entropy(logits, positives) + _cross_entropy(logits.T, positives)) / 2",
        "return _cross_entropy(logits, positives)",
        LOSS,
    ),
    Mutant(
        "modalities are summed, not averaged",
        "losses/gap_closing.py",
        "return torch.stack(list(terms)).mean()",
        "return torch.stack(list(terms)).sum()",
        LOSS,
    ),
    Mutant(
        "the temperature multiplies",
        "losses/gap_closing.py",
        "torch.tensor(-math.log(temperature)",
        "torch.tensor(math.log(temperature)",
        LOSS,
    ),
    Mutant(
        "the exponential is clamped, not the parameter",
        "losses/gap_closing.py",
        "self.logit_scale.clamp_(max=math.log(MAX_LOGIT_SCALE))",
        "self.logit_scale.clamp_(max=MAX_LOGIT_SCALE)",
        LOSS,
    ),
    Mutant(
        "a learnable temperature that never trains",
        "losses/gap_closing.py",
        "self.logit_scale = nn.Parameter(log_scale)",
        "self.logit_scale = nn.Parameter(log_scale, requires_grad=False)",
        LOSS,
    ),
    Mutant(
        "the temperature in half precision",
        "losses/gap_closing.py",
        "if self.logit_scale.dtype in (torch.float16, torch.bfloat16):",
        "if self.logit_scale.dtype == torch.int8:",
        LOSS,
    ),
    Mutant(
        "a schedule that runs backwards",
        "losses/schedules.py",
        "(high - low) * (progress - start)",
        "(high - low) * (end - progress)",
        LOSS,
    ),
    Mutant(
        "exponentials without a shift overflow",
        "losses/engine/tile_loops.py",
        "{torch.float32: 64.0,",
        "{torch.float32: 640.0,",
        TILED,
    ),
    Mutant(
        "weight decay on the temperature",
        "training/trainer.py",
        'if not name.endswith("logit_scale")]',
        "]",
        RULES,
    ),
    # --- figures --------------------------------------------------------------------------------------------------
    Mutant(
        "strictly greater scores alone count",
        "metrics/retrieval.py",
        "return ((k - counts.above) / (counts.ties + 1)).clamp(0, 1)",
        "return (counts.above < k).double()",
        INVARIANCES,
    ),
    Mutant(
        "the last, uneven block is dropped",
        "core/geometry.py",
        "for start in range(0, num_rows, size):",
        "for start in range(0, max(1, num_rows - size + 1), size):",
        AGREEMENT,
    ),
    Mutant(
        "ranks in half precision",
        "metrics/inputs.py",
        "rows = _block(value, part).to(dtype)",
        "rows = _block(value, part).bfloat16().to(dtype)",
        AGREEMENT,
    ),
    Mutant(
        "the sampling bias of the centroid distance stays",
        "metrics/gap.py",
        "bias = spread / (num_rows * (num_rows - 1))",
        "bias = 0.0",
        INVARIANCES,
    ),
    Mutant(
        "a true pair counts as a negative",
        "metrics/gap.py",
        "* num_rows**2 - float(pairs.sum())",
        "* num_rows**2",
        AGREEMENT,
    ),
    Mutant(
        "the random baseline is the model's own score",
        "metrics/grouping.py",
        "float(score(truth, chance))",
        "float(score(truth, clusters))",
        GROUPING,
    ),
    Mutant(
        "probes split a patient",
        "metrics/grouping.py",
        "folds = group_folds(kept, seed)[kept.index]",
        "folds = torch.arange(len(rows)) % 5",
        GROUPING,
    ),
    Mutant(
        "the bootstrap resamples rows",
        "metrics/measure.py",
        "index = group_index(groups, num_rows)",
        "index = group_index(None, num_rows)",
        UNCERTAINTY,
    ),
    Mutant(
        "captions too short are not penalised",
        "captioning/metrics.py",
        "torch.where(ratio < 1,",
        "torch.where(ratio < 0,",
        CAPTIONING,
    ),
    Mutant(
        "an evaluation draws one of several captions",
        "inference/pairs.py",
        "if self.training_seed is None or len(captions) == 1:",
        "if len(captions) == 1:",
        BATCHES,
    ),
    # --- several processes: the slow ones ---------------------------------------------------------------------------
    Mutant(
        "embeddings gathered without a gradient",
        "losses/engine/gathered.py",
        "_all_gather(x.contiguous(), 0",
        "_all_gather(x.detach().contiguous(), 0",
        GATHERED,
    ),
    Mutant(
        "uniformity of each rank's own batch",
        "losses/gap_closing.py",
        "return gathered_centroid_uniformity(modalities, positives, self.normalise_centroids, ranks)",
        "return centroid_uniformity(modalities, positives, self.normalise_centroids)",
        GATHERED,
    ),
)
