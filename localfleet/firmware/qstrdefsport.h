// There are none of our own: py/ wants the file.
