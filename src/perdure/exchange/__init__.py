"""What banks give to other programs and take from them: files, and the hub."""
