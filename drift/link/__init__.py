"""Link stage: from the residuals of one link to its alarms."""
