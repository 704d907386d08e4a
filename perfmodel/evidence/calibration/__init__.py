"""An engine's figures from measured steps."""
