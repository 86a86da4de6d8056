"""Report of a training: JSON document, charts and HTML page."""
