"""What each way of quantising costs the demonstration model, and how fast it is at full width: docs/quantisation.md."""
