"""Announcements to every peer that joined a topic, and which of those of others are let in."""
