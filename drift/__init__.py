"""River detectors on forecast residuals, the region quorum and the incident: pure, without files or clock."""
