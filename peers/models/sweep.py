"""What the sweep remembers from one time to the next."""

from django.db import models


class SweepMark(models.Model):
    """How far a chore that looks at a part each time has come. The only rows here that are edited: they tell of no
    access."""

    name = models.CharField(max_length=20, primary_key=True)
    seen = models.PositiveBigIntegerField(default=0, help_text="The last id that it looked at; 0 before the first.")

    def __str__(self) -> str:
        return self.name
