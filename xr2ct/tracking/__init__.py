"""MLflow: a copy of what a run's own files hold, made by a thread that no training step waits for.

A tracker that is away, locked or hanging costs a warning, and what it missed is added when it answers
again, or by `sync`. A metric of a step is logged once: after a resume, MLflow keeps what a step told
first.
"""

from __future__ import annotations

from xr2ct.tracking.level import SyncReport, bring_level, sync, track_artifact
from xr2ct.tracking.live import Tracker
from xr2ct.tracking.notes import tracking_uri

__all__ = ["SyncReport", "Tracker", "bring_level", "sync", "track_artifact", "tracking_uri"]
