"""What pages for a browser are made of: templates, styles, scripts, curves, thumbnails."""
