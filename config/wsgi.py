"""The WSGI application that gunicorn serves, unless the web's keyring is a wrong one."""

import os
import sys

from django.core.wsgi import get_wsgi_application

from config.start import fault_of

# By this status of a worker gunicorn ends, too; after any other it would start the next one, for ever.
CANNOT_BOOT = 3

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
application = get_wsgi_application()

fault = fault_of("peers")
if fault:
    sys.stderr.write(f"{fault}\n")
    sys.exit(CANNOT_BOOT)
