"""Files of a job that people read."""

from .card import read_facts, write_card
from .finished_job import FinishedJob
from .jobs import find_jobs
from .layout import PREDICTIONS, TOP_FIVE
from .record import JobRecord, git_commit, with_record
from .tables import Alarm, read_job_table
