"""Faults of this field, each as one replacement in one function of the source, and the tests that must notice.

Each was found in a well-known project, or is one character away from a formula.
"""

import ast
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
    """One fault: `after` in place of `before` in one function; `tests` must fail with it.

    Args:
        fault: what goes wrong, in words.
        file: the module, below `src/gapless`.
        function: the function, the method (`Class.method`) or the constant of the module that holds `before`.
        before: text that occurs exactly once in `function`.
        after: its replacement.
        tests: the test file that must notice.
    """

    fault: str
    file: str
    function: str
    before: str
    after: str
    tests: str

    def source(self) -> str:
        """The file with its fault.

        Raises:
            AssertionError: the function is gone, or does not hold `before` once: the mutant must be written anew.
        """
        text = (SOURCE / self.file).read_text(encoding="utf-8")
        node = named_node(ast.parse(text), self.function.split("."))
        assert node is not None, f"{self.fault}: {self.file} has no {self.function}"
        lines = text.splitlines(keepends=True)
        body = "".join(lines[node.lineno - 1 : node.end_lineno])
        count = body.count(self.before)
        assert count == 1, f"{self.fault}: {self.function} in {self.file} holds {self.before!r} {count} times, not once"
        lines[node.lineno - 1 : node.end_lineno] = [body.replace(self.before, self.after)]
        return "".join(lines)


def named_node(node: ast.Module | ast.ClassDef, path: list[str]) -> ast.stmt | None:
    """The function, method or constant of a dotted name, in a module or a class; None where there is none."""
    for child in node.body:
        if isinstance(child, ast.FunctionDef | ast.ClassDef) and child.name == path[0]:
            if len(path) == 1:
                return child
            return named_node(child, path[1:]) if isinstance(child, ast.ClassDef) else None
        if isinstance(child, ast.Assign) and len(path) == 1 and path[0] in {ast.unparse(one) for one in child.targets}:
            return child
    return None


MUTANTS = (
    # --- losses ---------------------------------------------------------------------------------------------------
    Mutant(
        "cached accumulation with other dropout the second time",
        "losses/engine/cached.py",
        "cached_embeddings",
        "micro_batch, use_reentrant=False)",
        "micro_batch, use_reentrant=False, preserve_rng_state=False)",
        CACHED,
    ),
    Mutant(
        "similarities in half precision",
        "core/geometry.py",
        "at_least_fp32",
        "return x if x.dtype in (torch.float32, torch.float64) else x.float()",
        "return x",
        LOSS,
    ),
    Mutant(
        "zero rows become NaN",
        "core/geometry.py",
        "unit_norm",
        "is_zero = norm_squared == 0",
        "is_zero = norm_squared < 0",
        GEOMETRY,
    ),
    Mutant(
        "uniformity of one row is accepted",
        "core/geometry.py",
        "log_mean_gaussian_kernel",
        "if num_rows < 2 or (can_read_values(points) and not num_pairs):",
        "if num_rows < 1:",
        GEOMETRY,
    ),
    Mutant(
        "the kernel underflows",
        "core/geometry.py",
        "log_mean_gaussian_kernel",
        "torch.logsumexp(exponents.masked_fill(same, -math.inf), dim=1)",
        "exponents.masked_fill(same, -math.inf).exp().sum(dim=1).log()",
        GEOMETRY,
    ),
    Mutant(
        "another width of the kernel",
        "core/geometry.py",
        "UNIFORMITY_SCALE",
        "UNIFORMITY_SCALE = 2.0",
        "UNIFORMITY_SCALE = 1.0",
        GEOMETRY,
    ),
    Mutant(
        "centroids are not normalised",
        "core/geometry.py",
        "pair_centroids",
        "return unit_norm(centroid) if normalise else centroid",
        "return centroid",
        LOSS,
    ),
    Mutant(
        "identical captions are pushed apart",
        "core/geometry.py",
        "log_mean_gaussian_kernel",
        "index = torch.arange(num_rows, device=points.device) if positives is None else positives",
        "index = torch.arange(num_rows, device=points.device)",
        GEOMETRY,
    ),
    Mutant(
        "duplicate captions are negatives",
        "losses/contrastive.py",
        "_cross_entropy",
        "of_positives = torch.logsumexp(logits.masked_fill(is_negative, -math.inf), dim=1)",
        "of_positives = logits.diagonal()",
        LOSS,
    ),
    Mutant(
        "one direction of the contrast alone",
        "losses/contrastive.py",
        "symmetric_info_nce",
        "return (_cross_entropy(logits, positives) + _cross_entropy(logits.T, positives)) / 2",
        "return _cross_entropy(logits, positives)",
        LOSS,
    ),
    Mutant(
        "modalities are summed, not averaged",
        "losses/gap_closing.py",
        "mean_of",
        "return torch.stack(list(terms)).mean()",
        "return torch.stack(list(terms)).sum()",
        LOSS,
    ),
    Mutant(
        "the temperature multiplies",
        "losses/learned_temperature.py",
        "WithTemperature.__init__",
        "torch.tensor(-math.log(temperature)",
        "torch.tensor(math.log(temperature)",
        LOSS,
    ),
    Mutant(
        "the exponential is clamped, not the parameter",
        "losses/learned_temperature.py",
        "WithTemperature.clamp_logit_scale",
        "self.logit_scale.clamp_(max=math.log(MAX_LOGIT_SCALE))",
        "self.logit_scale.clamp_(max=MAX_LOGIT_SCALE)",
        LOSS,
    ),
    Mutant(
        "a learnable temperature that never trains",
        "losses/learned_temperature.py",
        "WithTemperature.__init__",
        "self.logit_scale = nn.Parameter(log_scale)",
        "self.logit_scale = nn.Parameter(log_scale, requires_grad=False)",
        LOSS,
    ),
    Mutant(
        "the temperature in half precision",
        "losses/precision.py",
        "KeptInFp32._apply",
        "if tensor.dtype in (torch.float16, torch.bfloat16):",
        "if tensor.dtype == torch.int8:",
        LOSS,
    ),
    Mutant(
        "a schedule that runs backwards",
        "losses/schedules.py",
        "Schedule.__call__",
        "(high - low) * (progress - start)",
        "(high - low) * (end - progress)",
        LOSS,
    ),
    Mutant(
        "exponentials without a shift overflow",
        "losses/engine/tile_loops.py",
        "EXP_NEEDS_NO_SHIFT",
        "{torch.float32: 64.0,",
        "{torch.float32: 640.0,",
        TILED,
    ),
    Mutant(
        "weight decay on the temperature",
        "training/trainer.py",
        "RunTrainer.get_decay_parameter_names",
        'if not name.endswith("logit_scale")]',
        "]",
        RULES,
    ),
    # --- figures --------------------------------------------------------------------------------------------------
    Mutant(
        "strictly greater scores alone count",
        "metrics/retrieval.py",
        "hit_at_k",
        "return ((k - counts.above) / (counts.ties + 1)).clamp(0, 1)",
        "return (counts.above < k).double()",
        INVARIANCES,
    ),
    Mutant(
        "the last, uneven block is dropped",
        "core/geometry.py",
        "blocks",
        "for start in range(0, num_rows, size):",
        "for start in range(0, max(1, num_rows - size + 1), size):",
        AGREEMENT,
    ),
    Mutant(
        "ranks in half precision",
        "metrics/inputs.py",
        "_unit_rows",
        "rows = _present_rows(_block(value, part).to(dtype), present, part)",
        "rows = _present_rows(_block(value, part).bfloat16().to(dtype), present, part)",
        AGREEMENT,
    ),
    Mutant(
        "the sampling bias of the centroid distance stays",
        "metrics/gap.py",
        "centroid_distance",
        "bias = spread / (num_rows * (num_rows - 1))",
        "bias = 0.0",
        INVARIANCES,
    ),
    Mutant(
        "a true pair counts as a negative",
        "metrics/gap.py",
        "off_diagonal_cosine",
        "* num_rows**2 - float(pairs.sum())",
        "* num_rows**2",
        AGREEMENT,
    ),
    Mutant(
        "the random baseline is the model's own score",
        "metrics/grouping.py",
        "cluster_agreement",
        "float(score(truth, chance))",
        "float(score(truth, clusters))",
        GROUPING,
    ),
    Mutant(
        "probes split a patient",
        "metrics/grouping.py",
        "grouping",
        "folds = group_folds(used_groups, seed)[used_groups.index]",
        "folds = torch.arange(len(rows)) % 5",
        GROUPING,
    ),
    Mutant(
        "the bootstrap resamples rows",
        "metrics/measure.py",
        "_figures",
        "index = group_index(groups, num_rows)",
        "index = group_index(None, num_rows)",
        UNCERTAINTY,
    ),
    Mutant(
        "captions too short are not penalised",
        "captioning/metrics.py",
        "bleu_of",
        "torch.where(ratio < 1,",
        "torch.where(ratio < 0,",
        CAPTIONING,
    ),
    Mutant(
        "an evaluation draws one of several captions",
        "inference/pairs.py",
        "PairDataset.drawn",
        "if isinstance(texts, str) or self.training_seed is None or len(texts) == 1:",
        "if isinstance(texts, str) or len(texts) == 1:",
        BATCHES,
    ),
    # --- several processes: the slow ones ---------------------------------------------------------------------------
    Mutant(
        "embeddings gathered without a gradient",
        "losses/engine/gathered.py",
        "Ranks.gather",
        "_all_gather(x.contiguous(), 0",
        "_all_gather(x.detach().contiguous(), 0",
        GATHERED,
    ),
    Mutant(
        "uniformity of each rank's own batch",
        "losses/gap_closing.py",
        "GapClosingLoss._uniformity",
        "return gathered_centroid_uniformity(modalities, positives, self.normalise_centroids, ranks)",
        "return centroid_uniformity(modalities, positives, self.normalise_centroids)",
        GATHERED,
    ),
)
