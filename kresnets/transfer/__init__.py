"""Fine-tuning: freezing, the optimizer surgery behind the callbacks, the recipe and the run that follows it."""
