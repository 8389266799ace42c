"""What analysts have on the command line: asking the archive through the door, and pictures of what it answers."""
