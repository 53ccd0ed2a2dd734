"""Core library: words, bytes and method of LoRA-Gen. Imported by every service, imports none."""

__version__ = "0.1.0"
