"""Every route prefix on one screen."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

from config.health import show_health

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/questions/", include("peers.admin.questions")),
    path("admin/", admin.site.urls),
    path("api/v1/", include("config.api")),
    path("healthz", show_health),
]
