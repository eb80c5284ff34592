"""Providers of completions, one file each behind one port."""
