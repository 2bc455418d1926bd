"""One training loop, its stages, and what turns their results into a bundle."""
