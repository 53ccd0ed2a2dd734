"""Gate-space serving against merged weights: the same requests through both; see `__main__`."""
