"""One format's documents into another's; pure. What cannot be carried is reported, never silently lost."""
