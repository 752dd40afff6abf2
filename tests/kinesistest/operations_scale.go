package kinesistest

import (
	"math/big"
	"time"
)

// UpdateShardCount splits and merges open shards until the stream has count of them, all as large as each other. Unlike the
// call it knows no limit to that. It returns the IDs of the open shards, by hash range.
func (s *Server) UpdateShardCount(stream string, count int) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	st, err := s.serving(stream, now)
	if err != nil {
		return nil, err
	}
	if err := checkRange("targetShardCount", &count, 1, 10_000); err != nil {
		return nil, err
	}
	if err := s.scale(st, count, now); err != nil {
		return nil, err
	}
	return shardIDs(st.open), nil
}

type updateShardCountRequest struct {
	streamRef
	TargetShardCount *int
	ScalingType      string
}

func (r *updateShardCountRequest) do(s *Server, now time.Time) (any, *apiError) {
	if r.TargetShardCount == nil {
		return nil, errorf(Validation, "1 validation error detected: Value null at 'targetShardCount' failed to satisfy constraint: Member must not be null")
	}
	if err := checkRange("targetShardCount", r.TargetShardCount, 1, 1<<31-1); err != nil {
		return nil, err
	}
	if r.ScalingType != "UNIFORM_SCALING" {
		return nil, errorf(Validation, "1 validation error detected: Value '%s' at 'scalingType' failed to satisfy constraint: "+
			"Member must satisfy enum value set: [UNIFORM_SCALING]", r.ScalingType)
	}
	out := struct {
		StreamName, StreamARN               string
		CurrentShardCount, TargetShardCount int
	}{TargetShardCount: *r.TargetShardCount}
	_, err := s.update(&r.streamRef, now, func(st *stream) *apiError {
		out.StreamName, out.StreamARN, out.CurrentShardCount = st.name, st.arn, len(st.open)
		current, target := len(st.open), *r.TargetShardCount
		switch {
		case st.onDemand:
			return s.wrongMode(st)
		case target > 2*current || 2*target < current || target > 10_000:
			return errorf(LimitExceeded, "Stream %s under account %s can't go from %d open shards to %d: a call can at most double and at most halve them, up to 10000.",
				st.name, s.account, current, target)
		}
		return s.scale(st, target, now)
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (s *Server) wrongMode(st *stream) *apiError {
	return errorf(Validation, "Stream %s under account %s is in the on-demand capacity mode: its shards can't be split, merged or counted by a call.", st.name, s.account)
}

// scale is called with mu held. It first splits at every border of the new tiling that is none yet, and then merges what lies
// between two of them: as in AWS, short-lived shards are made on the way wherever one count is no multiple of the other.
func (s *Server) scale(st *stream, target int, now time.Time) *apiError {
	if st.shards[0].replay != nil {
		return errorf(InvalidArgument, "Stream %s is replayed: it cannot be resharded.", st.name)
	}
	if err := s.admitShards(target - len(st.open)); err != nil {
		return err
	}
	borders := newBorders(st, target)
	for _, at := range borders {
		sh := st.route(at)
		if sh.keys.first == at {
			continue
		}
		now = st.reshardTime(now)
		st.cut(sh, at, now)
	}
	for i, first := range borders {
		for {
			sh := st.route(first)
			if sh.keys.last == (hashKey{}).previous() || i+1 < len(borders) && sh.keys.last == borders[i+1].previous() {
				break
			}
			now = st.reshardTime(now)
			st.join(sh, st.route(sh.keys.last.next()), now)
		}
	}
	return nil
}

// newBorders is where each of target shards starts. Division leaves a remainder, so that the thirds of a stream and every
// other sixth of it may be some keys apart: a border that is so near to one there is stays that one.
func newBorders(st *stream, target int) []hashKey {
	tolerance := big.NewInt(1 << 20) // of 2^128 keys, where the smallest shard has over 2^114
	borders := make([]hashKey, target)
	for i, r := range evenRanges(target) {
		borders[i] = r.first
		at := st.route(r.first)
		if new(big.Int).Sub(r.first.int(), at.keys.first.int()).Cmp(tolerance) <= 0 {
			borders[i] = at.keys.first
		} else if new(big.Int).Sub(at.keys.last.int(), r.first.int()).Cmp(tolerance) <= 0 && at.keys.last != (hashKey{}).previous() {
			borders[i] = at.keys.last.next()
		}
	}
	return borders
}

// next wraps around at the end of the key space, as previous does at its start.
func (k hashKey) next() hashKey {
	for i := len(k) - 1; i >= 0; i-- {
		if k[i]++; k[i] != 0 {
			break
		}
	}
	return k
}

func (k hashKey) previous() hashKey {
	for i := len(k) - 1; i >= 0; i-- {
		if k[i]--; k[i] != 0xff {
			break
		}
	}
	return k
}

type updateStreamModeRequest struct {
	streamRef
	StreamModeDetails *streamMode
}

func (r *updateStreamModeRequest) do(s *Server, now time.Time) (any, *apiError) {
	if r.StreamModeDetails == nil || r.StreamModeDetails.StreamMode != "PROVISIONED" && r.StreamModeDetails.StreamMode != "ON_DEMAND" {
		return nil, errorf(Validation, "1 validation error detected: Value at 'streamModeDetails.streamMode' failed to satisfy constraint: "+
			"Member must satisfy enum value set: [PROVISIONED, ON_DEMAND]")
	}
	return s.update(&r.streamRef, now, func(st *stream) *apiError {
		st.onDemand = r.StreamModeDetails.StreamMode == "ON_DEMAND"
		return nil
	})
}
