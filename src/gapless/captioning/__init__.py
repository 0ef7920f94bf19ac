"""Captions from the aligned space: a decoder on a trained aligner, generation, and what captions are worth."""

from typing import TYPE_CHECKING

from gapless.core.lazy import lazy_names

__all__ = [
    "CalibratedCaptions",
    "CaptionScores",
    "CaptionSettings",
    "Captioner",
    "Captions",
    "ExportedCaptioner",
    "GenerationSettings",
    "TrainedCaptioner",
    "calibrate_captions",
    "caption",
    "evaluate_captions",
    "export_captioner",
    "load_captioner",
    "read_captions",
    "train_captioner",
]

if TYPE_CHECKING:
    from gapless.captioning.calibrating import CalibratedCaptions, calibrate_captions
    from gapless.captioning.caption_files import read_captions
    from gapless.captioning.caption_images import Captions, caption
    from gapless.captioning.captioner import Captioner
    from gapless.captioning.evaluation import CaptionScores, evaluate_captions
    from gapless.captioning.export import ExportedCaptioner, export_captioner
    from gapless.captioning.generation import GenerationSettings
    from gapless.captioning.runs import TrainedCaptioner, load_captioner, train_captioner
    from gapless.captioning.settings import CaptionSettings

__getattr__ = lazy_names(
    __name__,
    {
        "CaptionScores": "gapless.captioning.evaluation",
        "CaptionSettings": "gapless.captioning.settings",
        "Captioner": "gapless.captioning.captioner",
        "Captions": "gapless.captioning.caption_images",
        "GenerationSettings": "gapless.captioning.generation",
        "TrainedCaptioner": "gapless.captioning.runs",
        "CalibratedCaptions": "gapless.captioning.calibrating",
        "calibrate_captions": "gapless.captioning.calibrating",
        "caption": "gapless.captioning.caption_images",
        "ExportedCaptioner": "gapless.captioning.export",
        "export_captioner": "gapless.captioning.export",
        "evaluate_captions": "gapless.captioning.evaluation",
        "load_captioner": "gapless.captioning.runs",
        "read_captions": "gapless.captioning.caption_files",
        "train_captioner": "gapless.captioning.runs",
    },
)
