"""Models folder: published versions, candidates, and which version is live."""
