"""What a Jetson or a PC says about itself: readings, the parsers of them, and what is wrong with them."""
