"""Features that are computed once and stored."""
