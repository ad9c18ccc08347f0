"""The families: their options and circuits."""
