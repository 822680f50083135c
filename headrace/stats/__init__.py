"""Pure statistics: `intervals` for what was measured once, `evalues` for what is looked at all the time."""
