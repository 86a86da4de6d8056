"""The command dwcp-learner demo."""
