from django.db import migrations, models
from django.db.models import Exists, OuterRef
from django.db.models.deletion import PROTECT
from django.utils import timezone


def end_what_was_passed_by(apps, schema_editor):
    """Until now a suspension of a peer ended in silence with it. Where another peer came after it and was let in,
    nobody is shut out today by what was forgotten; where none did, it holds from now on."""
    suspensions, peers = apps.get_model("peers", "Suspension"), apps.get_model("peers", "Peer")
    later = peers.objects.filter(
        device=OuterRef("peer__device"), server=OuterRef("peer__server"), issued_at__gt=OuterRef("peer__issued_at")
    )
    passed_by = suspensions.objects.filter(Exists(later), ended_at=None).exclude(peer__ended_at=None)
    ids = list(passed_by.values_list("pk", flat=True))
    suspensions.objects.filter(pk__in=ids).update(ended_at=timezone.now(), ended_by="Console")


class Migration(migrations.Migration):
    dependencies = [
        ("peers", "0009_another_end"),
    ]

    operations = [
        migrations.AddField(
            model_name="suspension",
            name="origin",
            field=models.ForeignKey(
                editable=False,
                help_text="The one that it goes on from, about another peer: that was decided then.",
                null=True,
                on_delete=PROTECT,
                related_name="+",
                to="peers.suspension",
            ),
        ),
        migrations.AlterField(
            model_name="suspension",
            name="ended_by",
            field=models.CharField(
                blank=True,
                default="",
                editable=False,
                help_text="Nobody where it goes on with another peer.",
                max_length=254,
            ),
        ),
        migrations.RunPython(end_what_was_passed_by, migrations.RunPython.noop),
    ]
