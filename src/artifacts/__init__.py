"""Files of a job that people read."""

from .card import CardJob, read_facts, write_card
from .jobs import FinishedJob, find_jobs
from .layout import TOP_FIVE
from .record import JobRecord, git_commit, with_record
from .tables import Alarm, read_job_table
