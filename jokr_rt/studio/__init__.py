"""The studio: a page in the browser to watch, steer and edit the motion. Nothing else imports aiohttp."""
