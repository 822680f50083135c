"""headrace: what your channels know, turned into a served model that keeps improving.

The names below are the public Python SDK. They are looked up on first use, so that `import headrace` costs nothing.
"""

from importlib import import_module

from headrace.version import VERSION

__version__ = VERSION

_PUBLIC = {
    "Client": "headrace.client:Client",
    "AsyncClient": "headrace.client:AsyncClient",
    "HeadraceError": "headrace.errors:HeadraceError",
    "Workspace": "headrace.workspace:Workspace",
    "init": "headrace.loop:init",
    "open_workspace": "headrace.workspace:open_workspace",
    "add_channel": "headrace.data.channels:add",
    "list_channels": "headrace.data.channels:listing",
    "import_rows": "headrace.data.importing:import_rows",
    "check": "headrace.loop:check_quality",
    "freeze": "headrace.trusting:freeze",
    "train": "headrace.loop:train",
    "evaluate_version": "headrace.loop:evaluate_version",
    "export_version": "headrace.loop:export_version",
    "compress": "headrace.compression:compress",
    "predict": "headrace.loop:predict",
    "predict_file": "headrace.offline:predict_file",
    "start_server": "headrace.server.running:start_server",
    "create_key": "headrace.access.keys:create",
    "list_keys": "headrace.access.keys:listing",
    "rotate_key": "headrace.access.keys:rotate",
    "revoke_key": "headrace.access.keys:revoke",
    "give_feedback": "headrace.feedback.intake:give",
    "fill_reviews": "headrace.reviewing:fill",
    "next_reviews": "headrace.feedback.reviews:next_of",
    "answer_review": "headrace.feedback.reviews:answer",
    "skip_review": "headrace.feedback.reviews:skip",
    "list_reviews": "headrace.feedback.reviews:listing",
    "export_labels": "headrace.labelling:export_labels",
    "import_labels": "headrace.labelling:import_labels",
    "give_feedback_batch": "headrace.feedback.intake:give_all",
    "list_feedback": "headrace.feedback.signals:listing",
    "summarise_feedback": "headrace.feedback.signals:summary",
    "plan_release": "headrace.releasing.planning:plan",
    "start_release": "headrace.releasing.starting:start",
    "promote": "headrace.releasing.starting:promote",
    "rollback": "headrace.release.rollbacks:rollback",
    "release_status": "headrace.releasing.standing:release_status",
    "reject": "headrace.release.releases:reject",
    "stop_release": "headrace.release.releases:stop",
    "served_at": "headrace.release.controls:served_at",
    "verify_ledger": "headrace.release.ledger:verify",
    "history": "headrace.release.ledger:history",
    "usage": "headrace.access.usage:usage",
    "audit_log": "headrace.auditing:listing",
    "verify_audit_log": "headrace.auditing:verify",
    "trace": "headrace.lineage.tracing:trace",
    "plan_erasure": "headrace.lineage.erasing:plan",
    "erase": "headrace.lineage.erasing:erase",
    "list_erasures": "headrace.lineage.erasing:listing",
    "rebuild": "headrace.lineage.rebuilding:rebuild",
    "verify_receipt": "headrace.lineage.receipts:verify",
    "backup": "headrace.backups:backup",
    "follow": "headrace.backups:follow",
    "restore": "headrace.backups:restore",
    "examine": "headrace.doctor:examine",
    "trust": "headrace.feedback.trust:judge",
    "suspend": "headrace.feedback.suspensions:suspend",
    "lift_suspension": "headrace.feedback.suspensions:lift",
    "suspensions": "headrace.feedback.suspensions:listing",
    "add_known_answers": "headrace.trusting:add_known",
    "add_agreed_answers": "headrace.feedback.known:add_agreed",
    "known_answers": "headrace.feedback.known:listing",
    "retire_known_answer": "headrace.feedback.known:retire",
    "live_accuracy": "headrace.feedback.accuracy:live",
    "watch_drift": "headrace.watching:watch",
    "drift_status": "headrace.feedback.drift:standing",
    "accept_drift": "headrace.feedback.drift:accept",
    "improve": "headrace.loop:improve",
    "run_loop": "headrace.wheel:run",
    "value": "headrace.valuing:value",
    "advise_method": "headrace.advising:advise_method",
    "advise_technical": "headrace.advising:advise_technical",
    "advise_domain": "headrace.advising:advise_domain",
    "advise_business": "headrace.advising:advise_business",
    "read_predictions": "headrace.retention:read",
    "move_predictions": "headrace.retention:move",
    "write_report": "headrace.console.report:write",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'headrace' has no attribute {name!r}")
    module, _, attribute = _PUBLIC[name].partition(":")
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
