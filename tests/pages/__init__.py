"""The pages: README and docs, whose commands are run and whose outputs are what is printed today."""
