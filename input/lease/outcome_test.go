package lease

import (
	"strings"
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
	give := func(l Lease, found bool) verdict { return judgeGive(me, acq, "B", "B#given", l, found) }
	ask := func(l Lease, found bool) verdict { return judgeAsk(me, l, found) }
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
		{"r8.4: KCL 3.x wants it handed over", keep, Lease{Owner: "K", CheckpointOwner: me, Acquisition: acq}, false, verdictDone},
		{"r8.4: and it has been", keep, Lease{Owner: "K", Acquisition: acq}, false, verdictLost},
		{"r8.4: KCL 3.x hands it over between others", keep, Lease{Owner: me, CheckpointOwner: "K", Acquisition: acq}, false, verdictLost},
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
		{"r8.4: KCL 3.x began a hand-over before", release, Lease{Owner: "K", CheckpointOwner: me, Acquisition: acq}, false, verdictAgain},

		{"r4.4: our hand-over was done", give, Lease{Owner: "B", Acquisition: "B#given"}, false, verdictDone},
		{"r4.4: done, and released since", give, Lease{Acquisition: "B#given"}, false, verdictDone},
		{"r4.4: done, and stolen by KCL since", give, Lease{Owner: "K", Acquisition: "B#given"}, false, verdictDone},
		{"r4.4: a renewal of ours came before it", give, Lease{Owner: me, Acquisition: acq, Ask: "B"}, false, verdictAgain},
		{"r4.4: withdrawn", give, Lease{Owner: me, Acquisition: acq}, false, verdictWithdrawn},
		{"r4.4: withdrawn, and another asks", give, Lease{Owner: me, Acquisition: acq, Ask: "C"}, false, verdictWithdrawn},
		{"r4.4: KCL 3.x has another plan", give, Lease{Owner: "K", CheckpointOwner: me, Acquisition: acq, Ask: "B"}, false, verdictWithdrawn},
		{"r4.6: stolen by KCL before", give, Lease{Owner: "K", Acquisition: acq, Ask: "B"}, false, verdictLost},
		{"r4.4: given by another run", give, Lease{Owner: "B", Acquisition: "B#other"}, false, verdictLost},
		{"deleted", give, Lease{}, true, verdictLost},

		{"r4.1: our ask was done", ask, Lease{Owner: "B", Acquisition: "B#1", Counter: 9, Ask: me, AskAt: 8}, false, verdictDone},
		{"r4.1: the owner has renewed", ask, Lease{Owner: "B", Acquisition: "B#1", Counter: 9}, false, verdictAgain},
		{"r4.1: another asks", ask, Lease{Owner: "B", Acquisition: "B#1", Counter: 9, Ask: "C", AskAt: 3}, false, verdictLost},
		{"r4.1: another asked and gave up or died", ask, Lease{Owner: "B", Acquisition: "B#1", Counter: 10, Ask: "C", AskAt: 3}, false, verdictAgain},
		{"r4.1: our own ask of long ago", ask, Lease{Owner: "B", Acquisition: "B#1", Counter: 10, Ask: me, AskAt: 3}, false, verdictAgain},
		{"r4.1: KCL knows no asks", ask, Lease{Owner: "K", Acquisition: "B#1", Counter: 9}, false, verdictLost},
		{"r4.1: nobody is there to answer", ask, Lease{Acquisition: "B#1", Counter: 9}, false, verdictLost},
		{"r4.1: it has come to us", ask, Lease{Owner: me, Acquisition: me + "#1", Counter: 9}, false, verdictLost},
		{"deleted", ask, Lease{}, true, verdictLost},
	} {
		if got := c.judge(c.lease, !c.absent); got != c.want {
			t.Errorf("%s: verdict %d, want %d", c.story, got, c.want)
		}
	}
}

// r4.2: judged when first seen; the counter is the clock.
func TestWhichAsksAreValid(t *testing.T) {
	for _, c := range []struct {
		story string
		lease Lease
		want  bool
	}{
		{"fresh", Lease{Owner: "A", Counter: 10, Ask: "B", AskAt: 9}, true},
		{"two renewals of the owner got no answer", Lease{Owner: "A", Counter: 10, Ask: "B", AskAt: 7}, true},
		{"old", Lease{Owner: "A", Counter: 10, Ask: "B", AskAt: 6}, false},
		{"none", Lease{Owner: "A", Counter: 10, AskAt: 9}, false},
		{"of the owner itself", Lease{Owner: "A", Counter: 10, Ask: "A", AskAt: 9}, false},
		{"while KCL 3.x hands the lease over", Lease{Owner: "K", CheckpointOwner: "A", Counter: 10, Ask: "B", AskAt: 9}, false},
	} {
		if got := isAskValid(c.lease); got != c.want {
			t.Errorf("%s: %v", c.story, got)
		}
	}
}

// r4.1, r4.5: what the asker concludes from a look, which may be a stale one.
func TestHowALeaseStandsThatWasAskedFor(t *testing.T) {
	asked := Lease{Owner: "A", Acquisition: "A#1", Counter: 10}
	for _, c := range []struct {
		story  string
		lease  Lease
		absent bool
		want   standing
	}{
		{story: "the ask stands", lease: Lease{Owner: "A", Acquisition: "A#1", Counter: 12, Ask: "me"}, want: standingWaits},
		{story: "it has not arrived yet", lease: Lease{Owner: "A", Acquisition: "A#1", Counter: 10}, want: standingWaits},
		{story: "a look into the past", lease: Lease{Owner: "Z", Acquisition: "Z#1", Counter: 3}, want: standingWaits},
		{story: "refused", lease: Lease{Owner: "A", Acquisition: "A#1", Counter: 11}, want: standingRefused},
		{story: "an ask without an answer that cannot arrive any more", lease: Lease{Owner: "A", Acquisition: "A#1", Counter: 11, Ask: "C"}, want: standingRefused},
		{story: "given", lease: Lease{Owner: "me", Acquisition: "me#g", Counter: 13}, want: standingGiven},
		{story: "released", lease: Lease{Acquisition: "A#1", Counter: 13}, want: standingOver},
		{story: "given to another", lease: Lease{Owner: "C", Acquisition: "C#g", Counter: 13}, want: standingOver},
		{story: "taken again by the same worker", lease: Lease{Owner: "A", Acquisition: "A#2", Counter: 13}, want: standingOver},
		{story: "stolen by KCL", lease: Lease{Owner: "K", Acquisition: "A#1", Counter: 13, Ask: "me"}, want: standingOver},
		{story: "KCL 3.x hands it to somebody", lease: Lease{Owner: "K", CheckpointOwner: "A", Acquisition: "A#1", Counter: 12, Ask: "me"}, want: standingOver},
		{story: "deleted", absent: true, want: standingOver},
	} {
		if got := judgeStanding("me", asked, c.lease, !c.absent); got != c.want {
			t.Errorf("%s: %d, want %d", c.story, got, c.want)
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
		{Lease{Key: shard0, Counter: 7}, "attribute_not_exists(#leaseOwner) AND attribute_not_exists(#checkpointOwner) AND attribute_not_exists(#kp_acq)"},
		{Lease{Key: shard0, Counter: 7, Owner: "K"}, "#leaseOwner = :is_leaseOwner AND attribute_not_exists(#checkpointOwner) AND attribute_not_exists(#kp_acq)"},
		{Lease{Key: shard0, Counter: 7, Owner: "K", CheckpointOwner: "L"}, "#leaseOwner = :is_leaseOwner AND #checkpointOwner = :is_checkpointOwner AND attribute_not_exists(#kp_acq)"},
		{Lease{Key: shard0, Counter: 7, Owner: "B", Acquisition: "B#1"}, "#leaseOwner = :is_leaseOwner AND attribute_not_exists(#checkpointOwner) AND #kp_acq = :is_kp_acq"},
	} {
		in := takeUpdate(c.seen, "A", "A#1", testStream, 9*sec, time.Time{}).input("t")
		want := "#leaseCounter = :is_leaseCounter AND " + c.want + " AND (attribute_not_exists(#kp_stream) OR #kp_stream = :new_kp_stream)"
		if got := *in.ConditionExpression; got != want {
			t.Errorf("condition %s, want %s", got, want)
		}
	}
}

// I6: what LATEST means is fixed once. A take brings its own moment only where there is none.
func TestATakeMovesNoAnchor(t *testing.T) {
	in := takeUpdate(Lease{Key: shard0, Counter: 7}, "A", "A#1", testStream, 9*sec, time.UnixMilli(1700000000000)).input("t")
	if got := *in.UpdateExpression; !strings.Contains(got, "#kp_start = if_not_exists(#kp_start, :new_kp_start)") {
		t.Errorf("update: %s", got)
	}
}

// r4.1: the counter serves as the clock of an ask, and is left alone by it.
func TestAnAskIsConditionalOnAllThatWasSeen(t *testing.T) {
	in := askUpdate(Lease{Key: shard0, Counter: 20, Owner: "A", Acquisition: "A#1", Ask: "C", AskAt: 13}, "B").input("t")
	want := "#leaseCounter = :is_leaseCounter AND #leaseOwner = :is_leaseOwner AND #kp_acq = :is_kp_acq AND (attribute_not_exists(#kp_ask) OR #kp_askAt < :stale_kp_askAt)"
	if got := *in.ConditionExpression; got != want {
		t.Errorf("condition %s, want %s", got, want)
	}
	if got := *in.UpdateExpression; got != "SET #kp_ask = :new_kp_ask, #kp_askAt = :new_kp_askAt" {
		t.Errorf("update: %s", got)
	}
	if got := value(in.ExpressionAttributeValues[":stale_kp_askAt"]); got != "14" {
		t.Errorf("an ask counts until %v, want 6 renewals", got)
	}
}

// r4.5: a lease that somebody else has got meanwhile is not written to.
func TestAWithdrawalLeavesTheLeasesOfOthersAlone(t *testing.T) {
	in := withdrawUpdate(Lease{Key: shard0, Counter: 20, Owner: "A", Acquisition: "A#1"}, "B").input("t")
	if got, want := *in.ConditionExpression, "#kp_ask = :is_kp_ask AND #leaseOwner = :is_leaseOwner"; got != want {
		t.Errorf("condition %s, want %s", got, want)
	}
	if got := value(in.ExpressionAttributeValues[":is_leaseOwner"]); got != "A" {
		t.Errorf("conditional on the owner %v, want the one who was asked", got)
	}
	if got := *in.UpdateExpression; got != "REMOVE #kp_ask, #kp_askAt" {
		t.Errorf("update: %s", got)
	}
}
