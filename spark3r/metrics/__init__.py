"""How far a reconstruction is from the truth, from another reconstruction, or from what its pictures show."""

from spark3r.metrics.confidence import ConfidenceCurve, confidence_curve
from spark3r.metrics.consistency import Consistency, Matches, consistency, match_features
from spark3r.metrics.points import alignment_to_truth, depth_difference, point_distances, scene_diagonal
from spark3r.metrics.scores import Scores, evaluate, trivial_baseline, trivial_scores

__all__ = [
    "ConfidenceCurve",
    "Consistency",
    "Matches",
    "Scores",
    "alignment_to_truth",
    "confidence_curve",
    "consistency",
    "depth_difference",
    "evaluate",
    "match_features",
    "point_distances",
    "scene_diagonal",
    "trivial_baseline",
    "trivial_scores",
]
