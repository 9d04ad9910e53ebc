"""A job client with one scripted job, and the progress bar in its log."""

import types

BAR = "preprocess:  42%|####      | 5/12 [00:10<00:14,  2.00 shard/s, failures=0]"


class Status(str):
    def is_terminal(self):
        return self in ("SUCCEEDED", "FAILED", "STOPPED")


class FakeClient:
    """The part of JobSubmissionClient that we use, with a scripted job."""

    def __init__(self, status="SUCCEEDED", code=0, message="", log=("hello\n",), fail=None):
        self.info = types.SimpleNamespace(
            submission_id="one", job_id=None, status=status, driver_exit_code=code, message=message, start_time=1000,
            end_time=61000, metadata={"focusvit_verb": "info"}, entrypoint="python -m cluster.jobs.job info /x",
        )  # fmt: skip
        self.log, self.fail, self.stopped = log, fail, []

    async def tail_job_logs(self, job):
        if self.fail:
            raise self.fail
        for text in self.log:
            yield text

    def get_job_status(self, job):
        return Status(self.info.status)

    def get_job_info(self, job):
        return self.info

    def get_job_logs(self, job):
        return "".join(self.log)

    def list_jobs(self):
        return [self.info]

    def stop_job(self, job):
        self.stopped.append(job)
