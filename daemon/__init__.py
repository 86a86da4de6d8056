"""The shell: command line, configuration, wiring, loop, checkpoint, triggers, schedule and trainer supervisor."""
