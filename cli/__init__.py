"""The captionfleet command."""
