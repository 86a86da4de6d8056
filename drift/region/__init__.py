"""Region stage: from alarms of links to incidents of regions."""
