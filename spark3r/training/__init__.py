"""How the small model is trained: one visible loop over rendered clips."""
