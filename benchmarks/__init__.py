"""Measurements of the limiter and the server beside their peers: `python -m benchmarks`."""
