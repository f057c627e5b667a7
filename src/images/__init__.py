"""Sources of adversarial images: attacks on models, and saved files."""
