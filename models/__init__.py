"""Pydantic models: what a telescope, a frame, a stack, a setting and a report are. Imports nothing of ours."""
