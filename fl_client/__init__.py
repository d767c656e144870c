"""The phone: raw events stay here; one room, egress, lets bytes out."""
