"""What a person reads: results, plans, measurements and targets as tables."""
