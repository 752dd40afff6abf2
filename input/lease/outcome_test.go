package lease

import (
	"testing"
	"time"

	"github.com/kinesis-pulsar/kinesis-pulsar/input/checkpoint"
)

func TestWhatAFailedConditionMeans(t *testing.T) {
	const me, acq, old = "A", "A#2", "A#1"
	keep := func(l Lease, found bool) verdict { return judgeKeep(me, acq, l, found) }
	take := func(l Lease, found bool) verdict { return judgeTake(me, acq, "", l, found) }
	retake := func(l Lease, found bool) verdict { return judgeTake(me, acq, old, l, found) }
	release := func(l Lease, found bool) verdict { return judgeRelease(me, acq, l, found) }
	for _, c := range []struct {
		story  string
		judge  func(Lease, bool) verdict
		lease  Lease
		absent bool
		want   verdict
	}{
		{"an earlier renewal of the run won", keep, Lease{Owner: me, Acquisition: acq}, false, verdictDone},
		{"renewed away by another of ours", keep, Lease{Owner: "B", Acquisition: "B#1"}, false, verdictLost},
		{"stolen by KCL, which leaves our acquisition", keep, Lease{Owner: "K", Acquisition: acq}, false, verdictLost},
		{"handed over by KCL 3.x", keep, Lease{Owner: "K", CheckpointOwner: me, Acquisition: acq}, false, verdictLost},
		{"a new run of our own", keep, Lease{Owner: me, Acquisition: "A#3"}, false, verdictLost},
		{"put out by KCL", keep, Lease{Acquisition: acq}, false, verdictLost},
		{"deleted", keep, Lease{}, true, verdictLost},

		{"our take was done, its answer lost", take, Lease{Owner: me, Acquisition: acq}, false, verdictDone},
		{"somebody was quicker", take, Lease{Owner: "B", Acquisition: "B#1"}, false, verdictLost},
		{"the owner has renewed", take, Lease{Owner: "K"}, false, verdictLost},
		{"ours by name, not by acquisition", take, Lease{Owner: me, Acquisition: "A#other"}, false, verdictLost},
		{"no previous run is no run with an empty name", take, Lease{Owner: me}, false, verdictLost},
		{"a hand-over of KCL 3.x to us", take, Lease{Owner: me, CheckpointOwner: "K", Acquisition: acq}, false, verdictLost},
		{"deleted", take, Lease{}, true, verdictLost},
		{"a late renewal of our last run", retake, Lease{Owner: me, Acquisition: old}, false, verdictAgain},
		{"taken again already", retake, Lease{Owner: me, Acquisition: acq}, false, verdictDone},
		{"robbed after the fence", retake, Lease{Owner: "B", Acquisition: "B#1"}, false, verdictLost},
		{"robbed by KCL after the fence", retake, Lease{Owner: "K", Acquisition: old}, false, verdictLost},

		{"our release was done", release, Lease{Acquisition: acq}, false, verdictDone},
		{"a late renewal came before it", release, Lease{Owner: me, Acquisition: acq}, false, verdictAgain},
		{"released and taken", release, Lease{Owner: "B", Acquisition: "B#1"}, false, verdictLost},
		{"released, taken, released", release, Lease{Acquisition: "B#1"}, false, verdictLost},
		{"released and taken by KCL", release, Lease{Owner: "K", Acquisition: acq}, false, verdictLost},
		{"deleted", release, Lease{}, true, verdictLost},
	} {
		if got := c.judge(c.lease, !c.absent); got != c.want {
			t.Errorf("%s: verdict %d, want %d", c.story, got, c.want)
		}
	}
}

// r2.3: what got no answer may have been done, so observers may have counted from the earliest of those tries.
func TestTheEarliestUnansweredTryIsTheStamp(t *testing.T) {
	var s stamps
	if got := s.settle(5); got != 5 {
		t.Errorf("a plain success: %d", got)
	}
	s.unanswered(10)
	s.unanswered(12)
	if got := s.settle(14); got != 10 {
		t.Errorf("after two tries without an answer: %d, want 10", got)
	}
	if got := s.settle(20); got != 20 {
		t.Errorf("the success before has settled them: %d, want 20", got)
	}
}

func TestKeepWritesTheBracketOnlyWithAPosition(t *testing.T) {
	o := ownership{key: shard0, worker: "A", acquisition: "A#1", counter: 4}
	bare := keepUpdate(o, bracket{}, false).input("t")
	if got := *bare.UpdateExpression; got != "SET #leaseCounter = :new_leaseCounter" {
		t.Errorf("bare renewal: %s", got)
	}
	if got := *bare.ConditionExpression; got != "#leaseCounter = :is_leaseCounter AND #leaseOwner = :is_leaseOwner AND #kp_acq = :is_kp_acq" {
		t.Errorf("condition: %s", got)
	}
	full := keepUpdate(o, bracket{position: checkpoint.Position{Sequence: "7", Sub: 2}}, false).input("t")
	want := "SET #leaseCounter = :new_leaseCounter, #checkpoint = :new_checkpoint, #checkpointSubSequenceNumber = :new_checkpointSubSequenceNumber, " +
		"#ownerSwitchesSinceCheckpoint = :new_ownerSwitchesSinceCheckpoint REMOVE #pendingCheckpoint, #pendingCheckpointSubSequenceNumber, #pendingCheckpointState"
	if got := *full.UpdateExpression; got != want {
		t.Errorf("renewal with a position: %s", got)
	}
}

// r3.5: the lease must look as it was seen, and be nobody's or this stream's.
func TestTakeIsConditionalOnAllThatWasSeen(t *testing.T) {
	for _, c := range []struct {
		seen Lease
		want string
	}{
		{Lease{Key: shard0, Counter: 7}, "attribute_not_exists(#leaseOwner) AND attribute_not_exists(#checkpointOwner)"},
		{Lease{Key: shard0, Counter: 7, Owner: "K"}, "#leaseOwner = :is_leaseOwner AND attribute_not_exists(#checkpointOwner)"},
		{Lease{Key: shard0, Counter: 7, Owner: "K", CheckpointOwner: "L"}, "#leaseOwner = :is_leaseOwner AND #checkpointOwner = :is_checkpointOwner"},
	} {
		in := takeUpdate(c.seen, "A", "A#1", testStream, 9*sec, time.Time{}).input("t")
		want := "#leaseCounter = :is_leaseCounter AND " + c.want + " AND (attribute_not_exists(#kp_stream) OR #kp_stream = :new_kp_stream)"
		if got := *in.ConditionExpression; got != want {
			t.Errorf("condition %s, want %s", got, want)
		}
	}
}
