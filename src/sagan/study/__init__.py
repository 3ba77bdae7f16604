"""The paper's experiments: variants of one configuration, trained alike, measured alike, and the report of it."""
