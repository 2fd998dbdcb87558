"""The grammar of the Almanac's world: one file per theme, joined in `grammar`."""
