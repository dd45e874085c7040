"""Attention kernels and fused elementwise work, for the networks and the plug-in alike."""

from spark3r.kernels.dispatch import attend, forced_kernel, torch_kernel
from spark3r.kernels.parts import attend_with_lse, merge_parts
from spark3r.kernels.record import recording

__all__ = ["attend", "attend_with_lse", "forced_kernel", "merge_parts", "recording", "torch_kernel"]
