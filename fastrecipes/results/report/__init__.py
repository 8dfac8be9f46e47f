"""One run told whole: numbers, plots and a page."""
