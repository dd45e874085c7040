"""Procedural places with exact truth: what the small model learns from, and the example clips."""
