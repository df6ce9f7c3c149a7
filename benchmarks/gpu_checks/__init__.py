"""What ``gpu_check.py`` runs on a GPU: a module a check, each in a process of its own."""
