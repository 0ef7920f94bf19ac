"""What is public: the names of `gapless` and of each room. A name that comes or goes is changed here on purpose."""

import ast
from importlib import import_module
from pathlib import Path

import pytest

import gapless

SOURCE = Path(gapless.__file__).parent
VERBS = """
    audit caption close compare demo embed evaluate evaluate_captions export index report serve train train_captioner
"""
ROOMS = {
    "auditing": """
        AuditReport share_in_train
    """,
    "captioning": """
        CalibratedCaptions CaptionScores CaptionSettings Captioner Captions ExportedCaptioner GenerationSettings
        TrainedCaptioner calibrate_captions caption evaluate_captions export_captioner load_captioner
        read_captions train_captioner
    """,
    "closing": """
        AdapterSettings CLOSING_METHODS ClosedGap ClosingMethod ClosingPairs ClosingSettings FittedMethod
        close_gap
    """,
    "core": """
        Registry Result
    """,
    "embeddings": """
        EmbeddingSet EmbeddingsWriter read_arrays read_embeddings read_rows
    """,
    "images": """
        load_image thumbnail verify_image
    """,
    "inference": """
        Embedded Source embed_dataset model_batches write_embeddings
    """,
    "interop": """
        GapEvaluator GapMetric GapMetrics from_dataset from_faiss from_lance read_projector to_dataset to_faiss
        to_lance write_projector
    """,
    "losses": """
        METHODS GapClosingLoss GapClosingSettings GapLossTerms Loss Method Schedule Terms align_true_pairs
        cached_embeddings centroid_uniformity info_nce split_batch symmetric_info_nce
    """,
    "manifest": """
        BuildOptions Manifest build_manifest split_manifest
    """,
    "metrics": """
        FIGURES FigureEntry PairInputs entry_of measure_difference
    """,
    "modalities": """
        MODALITIES AudioInput ImageInput Modality TableInput TextInput VectorInput VolumeInput WaveformInput
        build_modality
    """,
    "models": """
        Exported GaplessConfig GaplessModel fingerprint_of load_model
    """,
    "pages": """
        Documentation documentation json_for_page modality_mark modality_style page_colour render_page
    """,
    "phantom": """
        Figure articles draw_figure draw_waveform write_caption
    """,
    "search": """
        Collection Deleted ExportedRows Found Hit Indexed Searcher delete export_collection index search
    """,
    "server": """
        Served create_app
    """,
    "signals": """
        FileRefused Signal read_audio read_waveform
    """,
    "study": """
        Comparison Demo Measurement Report measure_embeddings write_map write_report
    """,
    "tables": """
        LineCount TextOptions check_columns columns_of open_text read_lines
    """,
    "training": """
        Evaluation RECIPES Recipe Run TrainedRun train_run
    """,
    "volumes": """
        Volume read_volume
    """,
}
LIGHT = ("GapClosingLoss", "GaplessModel", "measure")


def test_the_names_of_the_package():
    assert sorted(gapless.__all__) == sorted([*LIGHT, *VERBS.split()])


@pytest.mark.parametrize("room", ROOMS)
def test_the_names_of_a_room(room):
    module = import_module(f"gapless.{room}")
    assert sorted(module.__all__) == sorted(ROOMS[room].split())


@pytest.mark.parametrize("room", ["", *ROOMS])
def test_every_name_is_there_and_no_module_hides_it(room):
    module = import_module(f"gapless.{room}".rstrip("."))
    modules = {path.stem for path in (SOURCE / room).iterdir()}
    assert set(module.__all__) & modules == set()
    assert module.__doc__
    for name in module.__all__:
        assert getattr(module, name) is not None


@pytest.mark.parametrize("room", ROOMS)
def test_a_checker_of_types_sees_the_names_that_are_loaded_late(room):
    """The names under TYPE_CHECKING are those of the table that Python itself looks into, with the same homes."""
    tree = ast.parse((SOURCE / room / "__init__.py").read_text())
    imported = {
        alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    (call,) = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert imported == ast.literal_eval(call.args[1])
    assert imported.keys() == set(ROOMS[room].split())


@pytest.mark.parametrize("verb", VERBS.split())
def test_every_call_says_what_it_takes_and_gives_and_shows_a_use(verb):
    function = getattr(gapless, verb)
    text = function.__doc__ or ""
    assert "Args:" in text or "Args and errors" in text
    assert "return" in function.__annotations__
    assert ">>>" in text or verb == "demo"
