"""Events that subscribers receive: drift alerts, model announcements, dead letters."""
