"""Measuring the method: time, work and memory of models under schedules, and quality against the factors."""
