"""Plugins: what is installed, what it may do, and the loader in front of it. Free of torch until used."""
