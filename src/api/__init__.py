"""Python interface: data frames of predictions, charts, rankings and catalogue models."""
