"""Pages for a browser, and the server that shows them on this machine."""
