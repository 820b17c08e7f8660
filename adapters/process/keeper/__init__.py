"""What runs apart from the provider: the zygote, and one keeper for each container's run.

All of it runs in a Python without site packages (`-I -S`) that starts in about 20 ms, so it imports
a few modules of the standard library and nothing else of this project. The provider itself uses
`files` and `tree` too.
"""
