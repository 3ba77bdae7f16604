"""The templates of the reports and of the model card, and the one environment that renders them."""
