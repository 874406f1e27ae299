"""The learning rate over a job: warm-up, a plateau, a decay to zero (Hu et al. 2024, arXiv 2404.06395)."""

__all__ = ["share"]


def share(done: float, warmup: float, decay: float) -> float:
    """Share of the peak rate when `done` (0 to 1) of the job is over.

    It rises over the first `warmup`, and falls linearly over the last `decay`.

    >>> [share(x, 0.1, 0.5) for x in (0.05, 0.3, 0.75, 1.0)]
    [0.5, 1.0, 0.5, 0.0]
    """
    rise = done / warmup if warmup else 1.0
    fall = (1.0 - done) / decay if decay else 1.0
    return max(0.0, min(1.0, rise, fall))
