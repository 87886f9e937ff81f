"""Reports: a measurement record as tables for people and as JSON for programs, and what is in a file."""
