"""All settings of the Console, from the environment, in fixed sections. Names start with MUSTER_."""

from pathlib import Path

from django.templatetags.static import static
from django.urls import reverse_lazy

from config.env import (
    env_address,
    env_bool,
    env_database,
    env_int,
    env_list,
    env_mail,
    env_secret,
    env_str,
    env_url,
    own_secret,
)

BASE_DIR = Path(__file__).resolve().parent.parent
DATA_DIR = Path(env_str("MUSTER_DATA", str(BASE_DIR / "data")))

# --- Safety -----------------------------------------------------------------------------------------------------

DEBUG = env_bool("MUSTER_DEBUG")
SECRET_KEY = env_secret("MUSTER_SECRET_KEY") or own_secret(DATA_DIR / "secret_key")
ALLOWED_HOSTS = env_list("MUSTER_ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]")
CSRF_TRUSTED_ORIGINS = env_list("MUSTER_TRUSTED_ORIGINS")
BEHIND_TLS = env_bool("MUSTER_TLS", default=True)
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = BEHIND_TLS
SECURE_SSL_REDIRECT = BEHIND_TLS
SECURE_REDIRECT_EXEMPT = [r"^healthz$"]
SECURE_HSTS_SECONDS = 31_536_000 if BEHIND_TLS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = BEHIND_TLS
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if env_bool("MUSTER_TRUST_PROXY") else None
SECURE_CONTENT_TYPE_NOSNIFF = True
X_FRAME_OPTIONS = "DENY"
DATA_UPLOAD_MAX_MEMORY_SIZE = 2 * 1024 * 1024
DATA_UPLOAD_MAX_NUMBER_FIELDS = 5000

# Two keyrings, neither of them SECRET_KEY: the web has `peers` and the public half of `nodes`, workers have all.
KEYRING_PEERS = Path(env_str("MUSTER_KEYRING_PEERS", str(DATA_DIR / "keyrings" / "peers")))
KEYRING_NODES = Path(env_str("MUSTER_KEYRING_NODES", str(DATA_DIR / "keyrings" / "nodes")))
KEYRING_NODES_PUBLIC = Path(env_str("MUSTER_KEYRING_NODES_PUBLIC", str(DATA_DIR / "keyrings" / "nodes.pub")))

# --- Parts ------------------------------------------------------------------------------------------------------

INSTALLED_APPS = [
    "unfold",
    "unfold.contrib.filters",
    "unfold.contrib.forms",
    "audit",
    "fleet",
    "peers",
    "nodes",
    "auditlog",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "django_filters",
    "drf_spectacular",
    "drf_spectacular_sidecar",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "audit.context.OriginMiddleware",
    "fleet.refusal.RefusalMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
DATABASES = {"default": env_database("MUSTER_DATABASE", f"sqlite:///{DATA_DIR / 'muster.sqlite3'}")}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- People -----------------------------------------------------------------------------------------------------

AUTH_USER_MODEL = "fleet.User"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]
LOGIN_URL = "admin:login"
LOGIN_REDIRECT_URL = "/admin/"

# --- Mail -------------------------------------------------------------------------------------------------------

# Unset, nobody gets mail: pages say it all.
_MAIL = env_mail("MUSTER_SMTP")
EMAIL_HOST, EMAIL_PORT = _MAIL.host, _MAIL.port
EMAIL_HOST_USER, EMAIL_HOST_PASSWORD = _MAIL.user, _MAIL.password
EMAIL_USE_TLS, EMAIL_USE_SSL = _MAIL.has_starttls, _MAIL.has_tls
EMAIL_TIMEOUT = 10
DEFAULT_FROM_EMAIL = env_address("MUSTER_MAIL_FROM", is_needed=bool(EMAIL_HOST))
CONSOLE_URL = env_url("MUSTER_URL")  # where people find the Console, for links in mail

# --- Ledger -----------------------------------------------------------------------------------------------------

AUDITLOG_LOGENTRY_MODEL = "audit.Event"
AUDITLOG_CID_GETTER = "audit.context.current_act"
AUDITLOG_MASK_CALLABLE = "audit.context.mask"
AUDITLOG_DISABLE_REMOTE_ADDR = True
# Fields that an Event may show; a secret, sealed or hashed, is in none of these lists.
RECORDED = {
    "fleet.User": "username email is_active is_staff is_superuser",
    "fleet.Environment": "name description address_rest time_zone warn_before idle_after suspends_idle needs_second",
    "fleet.Role": "user name environment ended_at",
    "fleet.ApiToken": "name user scope expires_at revoked_at",
    "fleet.Bastion": "name host ssh_port ssh_user host_key",
    "fleet.Server": "name environment host ssh_port ssh_user bastion host_key interface endpoint_host listen_port "
    "public_key ipv4_pool ipv6_pool dns mtu forward is_observe_only epoch enrolled_at",
    "fleet.Pool": "server name ipv4 ipv6 ended_at",
    "peers.Person": "name email kind user left_at",
    "peers.Device": "person name public_key revoked_at",
    "peers.Team": "name description ended_at",
    "peers.Membership": "person team until ended_at",
    "peers.Grant": "person team environment server networks hours pool begins_at until reason request ended_at",
    "peers.AccessRequest": "person environment server networks hours duration reason decision decision_reason",
    "peers.Peer": "device server expires_at ended_at end",
    "peers.Suspension": "person device peer reason ended_at",
    "peers.StaticAddress": "device server reason ended_at",
    "peers.RoutedNetwork": "device server network reason ended_at",
    "peers.Revocation": "label reason",
}
AUDITLOG_INCLUDE_TRACKING_MODELS = tuple(
    {"model": model, "include_fields": names.split()} for model, names in RECORDED.items()
)

# --- Language and time ------------------------------------------------------------------------------------------

LANGUAGE_CODE = "en-gb"
TIME_ZONE = env_str("MUSTER_TIME_ZONE", "UTC")
USE_TZ = True
USE_I18N = False
FORMAT_MODULE_PATH = "config.formats"

# --- Static files -----------------------------------------------------------------------------------------------

STATIC_URL = "/static/"
STATIC_ROOT = Path(env_str("MUSTER_STATIC", str(DATA_DIR / "static")))
STATIC_ROOT.mkdir(parents=True, exist_ok=True)  # whitenoise warns of a folder that is not there
STATICFILES_DIRS = [BASE_DIR / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
WHITENOISE_USE_FINDERS = True

# --- Pages ------------------------------------------------------------------------------------------------------


def _page(title: str, icon: str, model: str, **more: str) -> dict[str, object]:
    """One line of the sidebar."""
    permission = more.pop("permission", "nodes.dashboard.may_look")
    link = reverse_lazy(f"admin:{model}_changelist")
    return {"title": title, "icon": icon, "link": link, "permission": permission, **more}


def _question(title: str, icon: str, name: str) -> dict[str, object]:
    link = reverse_lazy(f"questions:{name}")
    return {"title": title, "icon": icon, "link": link, "permission": "nodes.dashboard.may_look"}


_ADMINISTRATORS = "nodes.dashboard.may_administer"
_OWN, _WAITING = "peers.admin.own.may_see_own", "peers.admin.requests.waiting"
UNFOLD = {
    "SITE_TITLE": "Muster",
    "SITE_HEADER": "Muster",
    "SITE_SUBHEADER": "WireGuard Console",
    "SITE_SYMBOL": "vpn_lock",
    "SITE_URL": None,
    "SHOW_HISTORY": False,
    "SHOW_VIEW_ON_SITE": False,
    "DASHBOARD_CALLBACK": "nodes.dashboard.show",
    "STYLES": [lambda request: static("muster/console.css")],
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": lambda request: static("muster/favicon.svg")}],
    "BORDER_RADIUS": "6px",
    "COLORS": {
        "primary": {
            "50": "oklch(97% .014 254.6)",
            "100": "oklch(93.2% .032 255.6)",
            "200": "oklch(88.2% .059 254.1)",
            "300": "oklch(80.9% .105 251.8)",
            "400": "oklch(70.7% .165 254.6)",
            "500": "oklch(62.3% .214 259.8)",
            "600": "oklch(54.6% .245 262.9)",
            "700": "oklch(48.8% .243 264.4)",
            "800": "oklch(42.4% .199 265.6)",
            "900": "oklch(37.9% .146 265.5)",
            "950": "oklch(28.2% .091 267.9)",
        }
    },
    "SIDEBAR": {
        "show_search": False,
        "navigation": [
            {
                "title": "Fleet",
                "items": [
                    {"title": "Overview", "icon": "dashboard", "link": reverse_lazy("admin:index")},
                    _page("Environments", "layers", "fleet_environment"),
                    _page("Servers", "dns", "fleet_server"),
                    _page("Bastions", "door_open", "fleet_bastion"),
                ],
            },
            {
                "title": "Access",
                "items": [
                    _page("People", "group", "peers_person"),
                    _page("Teams", "groups", "peers_team"),
                    _page("Memberships", "group_add", "peers_membership"),
                    _page("Devices", "devices", "peers_device"),
                    _page("Access requests", "approval", "peers_accessrequest", permission=_OWN, badge=_WAITING),
                    _page("Grants", "key", "peers_grant", permission=_OWN),
                    _page("Peers", "lan", "peers_peer", permission=_OWN),
                    _page("Suspensions", "pause_circle", "peers_suspension"),
                    _page("Revocations", "block", "peers_revocation"),
                ],
            },
            {
                "title": "Questions",
                "items": [
                    _question("Who has access", "fact_check", "access"),
                    _question("What one person has", "person_search", "person"),
                    _question("What reaches a network", "hub", "reach"),
                    _question("Where it was seen", "manage_search", "traces"),
                ],
            },
            {
                "title": "Addresses",
                "items": [
                    _page("Addresses", "pin", "fleet_addressrange"),
                    _page("Named pools", "lists", "fleet_pool"),
                    _page("Static addresses", "keep", "peers_staticaddress"),
                    _page("Routed networks", "route", "peers_routednetwork"),
                ],
            },
            {
                "title": "You",
                "items": [
                    {
                        "title": "My devices",
                        "icon": "phonelink_erase",
                        "link": reverse_lazy("admin:peers_device_mine"),
                        "permission": "nodes.dashboard.may_see_own",
                    },
                ],
            },
            {
                "title": "Workers",
                "items": [
                    _page("Runs", "sync", "nodes_run"),
                    _page("Held pushes", "front_hand", "nodes_hold", badge="nodes.dashboard.waiting_holds"),
                    _page("Review items", "gavel", "nodes_reviewitem", badge="nodes.dashboard.waiting_reviews"),
                    _page("Enrolments", "add_link", "nodes_enrolment"),
                ],
            },
            {
                "title": "Governance",
                "items": [
                    _page("Events", "policy", "audit_event"),
                    _page("Users", "person", "fleet_user", permission=_ADMINISTRATORS),
                    _page("Roles", "badge", "fleet_role", permission=_ADMINISTRATORS),
                    _page("API tokens", "vpn_key", "fleet_apitoken", permission=_ADMINISTRATORS),
                ],
            },
        ],
    },
}

# --- API --------------------------------------------------------------------------------------------------------

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "fleet.sign_in.TokenAuthentication",
        "fleet.sign_in.BrowserAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["fleet.sign_in.MayOperate"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_PAGINATION_CLASS": "fleet.parsing.CappedPagination",
    "DEFAULT_FILTER_BACKENDS": ["fleet.filters.StrictFilterBackend"],
    "DEFAULT_PARSER_CLASSES": ["fleet.parsing.StrictJSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "EXCEPTION_HANDLER": "fleet.rest.explain_error",
    "PAGE_SIZE": 100,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Muster",
    "DESCRIPTION": "One Console for many WireGuard servers.",
    "VERSION": "1",
    "SERVE_PERMISSIONS": ["fleet.sign_in.MayOperate"],
    "ENUM_NAME_OVERRIDES": {
        "RequestDecision": "peers.models.AccessRequest.Decision",
        "ReviewDecision": "nodes.models.ReviewItem.Decision",
    },
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
}

# --- Workers ----------------------------------------------------------------------------------------------------

BROKER_URL = env_str("MUSTER_BROKER", f"redis+socket://{DATA_DIR / 'broker.sock'}")
SHARDS = env_int("MUSTER_SHARDS", 1, low=1, high=64)
POLL_SECONDS = env_int("MUSTER_POLL_SECONDS", 60, low=1, high=3600)

# --- Logging ----------------------------------------------------------------------------------------------------

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname} {name}: {message}", "style": "{"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": env_str("MUSTER_LOG_LEVEL", "INFO")},
    "loggers": {"paramiko": {"level": "CRITICAL"}},
}
