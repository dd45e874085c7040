"""How far a reconstruction is from the truth, or from another reconstruction."""

from spark3r.metrics.confidence import ConfidenceCurve, confidence_curve
from spark3r.metrics.scores import Scores, evaluate, guess, guess_scores

__all__ = ["Scores", "evaluate", "guess", "guess_scores", "ConfidenceCurve", "confidence_curve"]
