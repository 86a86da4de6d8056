"""Published version: its documents, proof, signature and predictors."""
