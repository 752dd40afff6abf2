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
)

// judgeKeep judges a failed renewal of the run named by acquisition. Done means that one of our tries has won, not
// necessarily this one: counter and checkpoint have to be taken from the item.
func judgeKeep(worker, acquisition string, item Lease, found bool) verdict {
	if found && item.Owner == worker && item.Acquisition == acquisition {
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
	case !found || item.Acquisition != acquisition:
		return verdictLost
	case item.Owner == "":
		return verdictDone
	case item.Owner == worker:
		return verdictAgain
	}
	return verdictLost
}
