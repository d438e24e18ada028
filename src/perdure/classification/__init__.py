"""The same methods on a vision transformer: class-incremental image classification."""

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
