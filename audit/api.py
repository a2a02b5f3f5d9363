"""Events, to read. Whoever registers this narrows them to what the user may see."""

from rest_framework import mixins, serializers
from rest_framework.viewsets import GenericViewSet

from audit.models import Event


class EventSerializer(serializers.ModelSerializer[Event]):
    actor = serializers.CharField(source="actor_label")
    target = serializers.CharField(source="target_label")
    environment = serializers.CharField(source="environment_label")

    class Meta:
        model = Event
        fields = (
            *("id", "timestamp", "verb", "actor", "target", "environment", "reason", "changes"),
            *("origin", "origin_detail", "remote_addr", "act"),
        )


class EventViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, GenericViewSet[Event]):
    queryset = Event.objects.all()
    serializer_class = EventSerializer
    filterset_fields = ("verb", "environment_label", "origin", "actor_label")
