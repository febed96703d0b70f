"""The converters' command lines: flags and help, no logic."""
