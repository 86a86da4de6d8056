"""Subcommands of dwcp-learner."""
