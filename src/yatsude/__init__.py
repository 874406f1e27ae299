"""yatsude (八手): from raw Japanese text to a mixture-of-experts model that people talk to."""

__version__ = "0.1.0"
