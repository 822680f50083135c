"""What a release has seen, by stage. Catches: stages that borrow the requests or the shares of others, and labels read
before an advance that hide the stage after it (a server reads labels less often than it looks)."""

from headrace.feedback.outcomes import evidence, labels_of
from headrace.records import Decision, Score, Traffic
from headrace.release import controls, releases
from headrace.store import releases as rows
from headrace.store import traffic
from headrace.workspace import Workspace
from planted import NOON, plant_answer, plant_channel, plant_correction, plant_version


def test_each_stage_has_its_own_shares_requests_and_labels(workspace: Workspace) -> None:
    plant_version(workspace)
    controls.ensure_control(workspace)
    release, web = (
        releases.start(workspace, candidate=plant_version(workspace), policy="bandit"),
        plant_channel(workspace, "web"),
    )
    version = controls.find_version(workspace, None, release.candidate_id)
    answer, _ = plant_answer(
        workspace, web, version, "positive", arm="candidate", release_id=release.id, probability=0.5, unit="u"
    )
    plant_correction(workspace, answer, "positive")
    labels = labels_of(workspace, release)
    weights = {"control": 0.9, "candidate": 0.1}
    releases.decide(workspace, release, Decision("advance", "later", weights=weights))
    with workspace.store.write() as conn:
        for stage, n in ((0, 5), (1, 3)):
            counts = {(arm, web.id, stage): Traffic(n, n_units=n) for arm in weights}
            traffic.put(conn, release.id, counts, source=f"server {stage}", now=NOON)
    with workspace.store.read() as conn:
        running = rows.open_release(conn, release.task)
    assert running is not None
    for known in (labels, None):
        found = evidence(workspace, running, labels=known)
        before, after = found.batches
        assert (before.shares, after.shares) == ({"control": 0.5, "candidate": 0.5}, weights)
        assert (before.feedback, after.feedback) == ({"candidate": {"web": Score(1, 1)}}, {})
        assert before.traffic["candidate"]["web"].n_requests == 5
        assert after.traffic["candidate"]["web"].n_requests == found.stage_requests == 3
        assert found.traffic["candidate"]["web"].n_requests == 8
