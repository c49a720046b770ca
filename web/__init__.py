"""The browser app, imported as ``streamdream_web`` and run as ``streamdream web``; see ``server/app.py``."""
