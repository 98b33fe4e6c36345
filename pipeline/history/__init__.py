"""Past runs: how they ended, their figures, their related models, and which versions are served."""
