handle = 1
