"""The services, split by bounded context. They share the contract in `protos/` and `services.kit`, nothing else."""

import sys

# As `python -m services.….main`, which begins here: what libraries load if it is installed and no service uses, for
# tracebacks in colour, command lines and another HTTP client. It would be a tenth of a service's memory.
if sys.argv[0] == "-m":
    for _unused in ("click", "pygments", "requests", "rich"):
        sys.modules.setdefault(_unused, None)  # type: ignore[arg-type]  # the documented way to refuse an import
