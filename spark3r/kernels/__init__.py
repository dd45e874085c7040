"""Attention kernels and fused elementwise work, for the networks and the plug-in alike."""

from spark3r.kernels.parts import attend_with_lse, merge_parts

__all__ = ["attend_with_lse", "merge_parts"]
