"""The notebook side of ifog: ``%%bf`` cells and the ``%bf`` commands."""
