"""Reconstruction networks: one trunk, families as data."""
