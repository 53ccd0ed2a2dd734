"""Chaos: the whole product under load while its parts are killed, starved and changed."""
