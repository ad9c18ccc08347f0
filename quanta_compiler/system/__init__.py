"""Files, folders and packages of the machine that runs this."""
