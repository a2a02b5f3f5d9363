from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("peers", "0010_kept_out_on")]

    operations = [
        migrations.AlterField(
            model_name="peerstatus",
            name="let_in_at",
            field=models.DateTimeField(help_text="When its server was last seen to let it in.", null=True),
        ),
    ]
