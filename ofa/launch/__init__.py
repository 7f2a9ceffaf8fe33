"""Commands: Hydra composes the configuration, typed values go in, errors come out readable.

The only folder that knows Hydra and OmegaConf; for `scripts`, not for users of the library.
"""

from ofa.launch.command import Command as Command
from ofa.launch.command import command as command
from ofa.launch.compose import compose as compose
from ofa.launch.compose import compose_group as compose_group
from ofa.launch.sweeps import job_name as job_name
