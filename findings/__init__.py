"""The findings of the documentation, rebuilt from the small tables in docs/results/."""
