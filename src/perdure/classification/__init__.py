"""The same methods on a vision transformer: class-incremental image classification."""

from typing import TYPE_CHECKING

from perdure.lazily import lazily

if TYPE_CHECKING:
    from perdure.classification.classifier import ContinualClassifier
    from perdure.classification.registry import CLASSIFIERS
    from perdure.classification.run import ClassificationRun, run_classification
    from perdure.classification.settings import FitSettings
    from perdure.hosts.vision.backbone import Backbone

__all__ = [
    "CLASSIFIERS",
    "Backbone",
    "ClassificationRun",
    "ContinualClassifier",
    "FitSettings",
    "run_classification",
]

__getattr__ = lazily(
    __name__,
    {
        "CLASSIFIERS": "perdure.classification.registry",
        "Backbone": "perdure.hosts.vision.backbone",
        "ClassificationRun": "perdure.classification.run",
        "ContinualClassifier": "perdure.classification.classifier",
        "FitSettings": "perdure.classification.settings",
        "run_classification": "perdure.classification.run",
    },
)
