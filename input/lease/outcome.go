package lease

// verdict says what a failed condition of an own write means, given the item that it failed on.
//
// A write without an answer may have been done, may be done later, or never. The next try is sent on the same counter,
// so at most one of them can win; when the next one fails, the acquisition in the item tells whether that was our own
// earlier try. A nonce per write would not do: after two unanswered tries the item would show the first one's nonce,
// the memory the second one's position.
type verdict int

const (
	// verdictLost: the lease is somebody else's, nobody's, or gone.
	verdictLost verdict = iota
	// verdictDone: an earlier try of the same write was done.
	verdictDone
	// verdictAgain: the lease is still ours with another counter; send the write again on that.
	verdictAgain
	// verdictWithdrawn: the lease is still ours, and the worker that asked for it does so no more.
	verdictWithdrawn
)

// stillOwns tells whether the run named by acquisition still has the lease: as its owner, or as the one who must finish
// before a hand-over of KCL 3.x is complete (r8.4).
func stillOwns(worker, acquisition string, item Lease, found bool) bool {
	if !found || item.Acquisition != acquisition {
		return false
	}
	if item.CheckpointOwner != "" {
		return item.CheckpointOwner == worker
	}
	return item.Owner == worker
}

// judgeKeep judges a failed renewal of the run named by acquisition. Done means that the lease is still the run's: one
// of our tries has won, not necessarily this one, or KCL 3.x has begun a hand-over without moving the counter. Counter,
// checkpoint and owners have to be taken from the item.
func judgeKeep(worker, acquisition string, item Lease, found bool) verdict {
	if stillOwns(worker, acquisition, item, found) {
		return verdictDone
	}
	return verdictLost
}

// judgeTake judges a failed take for a new run named by acquisition. Previous is the acquisition of the lease when it
// was seen, if that was ours: a late renewal of that run may have moved the counter, and nobody else can have come
// between, so there is no reason to wait.
func judgeTake(worker, acquisition, previous string, item Lease, found bool) verdict {
	switch {
	case !found || item.Owner != worker || item.CheckpointOwner != "":
		return verdictLost
	case item.Acquisition == acquisition:
		return verdictDone
	case previous != "" && item.Acquisition == previous:
		return verdictAgain
	}
	return verdictLost
}

// judgeRelease judges a failed release of the run named by acquisition. Every new owner of ours writes an acquisition
// of its own, so an unowned lease with this one was released by an earlier try (or put out by a KCL worker, which is
// as good).
func judgeRelease(worker, acquisition string, item Lease, found bool) verdict {
	switch {
	case stillOwns(worker, acquisition, item, found):
		return verdictAgain
	case found && item.Acquisition == acquisition && item.Owner == "":
		return verdictDone
	}
	return verdictLost
}

// judgeGive judges a failed hand-over from the run named by acquisition to the asker's named by given. Done does not ask
// who owns the lease now: only our write can have brought that acquisition there, whatever has happened since. Again
// means that the ask still stands; withdrawn, that the lease is ours and that nobody is to get it.
func judgeGive(worker, acquisition, asker, given string, item Lease, found bool) verdict {
	switch {
	case found && item.Acquisition == given:
		return verdictDone
	case !stillOwns(worker, acquisition, item, found):
		return verdictLost
	case item.CheckpointOwner == "" && item.Ask == asker:
		return verdictAgain
	}
	return verdictWithdrawn
}

// judgeAsk judges a failed ask of the worker. Again means that the lease has moved on since it was seen, and that it can
// be asked for as it is now.
func judgeAsk(worker string, item Lease, found bool) verdict {
	switch {
	case !found || !item.IsOurs() || item.Owner == worker || item.CheckpointOwner != "" || item.Ended():
		return verdictLost
	case item.Ask == worker && item.AskAt >= item.Counter-askCounters:
		return verdictDone
	case item.Ask == "" || item.AskAt < item.Counter-askCounters:
		return verdictAgain
	}
	return verdictLost
}

// askValidity is by how many renewals an ask may be older than the one that shows it first (r4.2).
const askValidity = 3

// isAskValid tells whether the ask on a lease is worth a hand-over, when its owner sees it first: an older one was made
// by a worker that has given up since, or has died.
func isAskValid(l Lease) bool {
	return l.Ask != "" && l.Ask != l.Owner && l.AskAt >= l.Counter-askValidity && l.CheckpointOwner == ""
}

// standing is what the look at a lease tells the worker that asked for it.
type standing int

const (
	standingWaits   standing = iota // the ask stands, or has not arrived yet
	standingGiven                   // the lease is the asker's: it has to be adopted
	standingRefused                 // it is still the owner's, and the ask is gone
	standingOver                    // somebody else has it, or nobody, or it is gone
)

// judgeStanding tells the asker how a lease stands that it asked for when it looked like asked. The look may be a stale
// one: it says that the ask is gone only if it shows a renewal that came after the ask. The same holds for an ask that
// got no answer: it may arrive until that renewal, and not any more after it.
func judgeStanding(worker string, asked, item Lease, found bool) standing {
	switch {
	case !found:
		return standingOver
	case item.Counter < asked.Counter: // read before the ask
		return standingWaits
	case item.Owner == worker && item.IsOurs() && item.CheckpointOwner == "":
		return standingGiven
	case item.Owner != asked.Owner || item.Acquisition != asked.Acquisition || item.CheckpointOwner != "":
		return standingOver
	case item.Ask == worker || item.Counter <= asked.Counter:
		return standingWaits
	}
	return standingRefused
}
