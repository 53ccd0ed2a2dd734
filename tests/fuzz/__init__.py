"""Fuzz: what comes from outside, made up by machines that look for what breaks."""
