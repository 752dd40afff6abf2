package kinesistest

import (
	"math/big"
	"slices"
	"time"
)

// SplitShard closes an open shard and opens two for the halves of its hash range. It returns their IDs, the lower half's first.
func (s *Server) SplitShard(stream, shardID string) ([2]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	st, err := s.serving(stream, now)
	if err != nil {
		return [2]string{}, err
	}
	sh, err := s.openShard(st, shardID, now)
	if err != nil {
		return [2]string{}, err
	}
	middle := new(big.Int).Add(sh.keys.first.int(), sh.keys.last.int())
	middle.Rsh(middle, 1)
	children, err := s.split(st, sh, toHashKey(middle.Add(middle, big.NewInt(1))), now)
	if err != nil {
		return [2]string{}, err
	}
	return [2]string{children[0].id, children[1].id}, nil
}

// MergeShards closes two open shards whose hash ranges touch, and opens one for both. It returns its ID.
func (s *Server) MergeShards(stream, shardID, adjacentID string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	st, err := s.serving(stream, now)
	if err != nil {
		return "", err
	}
	child, err := s.merge(st, shardID, adjacentID, now)
	if err != nil {
		return "", err
	}
	return child.id, nil
}

type splitShardRequest struct {
	streamRef
	ShardToSplit       string
	NewStartingHashKey string
}

func (r *splitShardRequest) about(*Server) (stream, shard string) { return r.named(), r.ShardToSplit }

func (r *splitShardRequest) do(s *Server, now time.Time) (any, *apiError) {
	return s.update(&r.streamRef, now, func(st *stream) *apiError {
		if st.onDemand {
			return s.wrongMode(st)
		}
		sh, err := s.openShard(st, r.ShardToSplit, now)
		if err != nil {
			return err
		}
		key, ok := parseHashKey(r.NewStartingHashKey)
		if !ok {
			return errorf(InvalidArgument, "NewStartingHashKey %s is not in the range: [0, 2^128-1].", r.NewStartingHashKey)
		}
		_, err = s.split(st, sh, key, now)
		return err
	})
}

// split is called with mu held, like merge. The lower child ends below at.
func (s *Server) split(st *stream, sh *shard, at hashKey, now time.Time) ([2]*shard, *apiError) {
	if at.compare(sh.keys.first) <= 0 || at.compare(sh.keys.last) > 0 {
		return [2]*shard{}, errorf(InvalidArgument, "NewStartingHashKey %s used in SplitShard() on shard %s in stream %s under account %s "+
			"is not both greater than the shard's StartingHashKey and not greater than its EndingHashKey.", at, sh.id, st.name, s.account)
	}
	if err := s.admitShards(1); err != nil {
		return [2]*shard{}, err
	}
	return st.cut(sh, at, st.reshardTime(now)), nil
}

// cut replaces a shard by two, of which the upper starts at at.
func (st *stream) cut(sh *shard, at hashKey, now time.Time) [2]*shard {
	st.closeShard(sh, now)
	return [2]*shard{
		st.addShard(now, hashRange{sh.keys.first, at.previous()}, sh),
		st.addShard(now, hashRange{at, sh.keys.last}, sh),
	}
}

// join replaces two shards that touch by one. The first is the one that a merge names first.
func (st *stream) join(a, b *shard, now time.Time) *shard {
	st.closeShard(a, now)
	st.closeShard(b, now)
	low, high := a, b
	if high.keys.first.compare(low.keys.first) < 0 {
		low, high = high, low
	}
	return st.addShard(now, hashRange{low.keys.first, high.keys.last}, a, b)
}

// reshardTime is when shards are closed and opened: not before the last record, if the clock was set back.
func (st *stream) reshardTime(now time.Time) time.Time {
	now = now.Truncate(time.Millisecond)
	for _, sh := range st.open {
		for _, t := range []time.Time{sh.created, sh.last.Arrival} {
			if t.After(now) {
				now = t
			}
		}
	}
	return now
}

type mergeShardsRequest struct {
	streamRef
	ShardToMerge         string
	AdjacentShardToMerge string
}

func (r *mergeShardsRequest) about(*Server) (stream, shard string) { return r.named(), r.ShardToMerge }

func (r *mergeShardsRequest) do(s *Server, now time.Time) (any, *apiError) {
	return s.update(&r.streamRef, now, func(st *stream) *apiError {
		if st.onDemand {
			return s.wrongMode(st)
		}
		_, err := s.merge(st, r.ShardToMerge, r.AdjacentShardToMerge, now)
		return err
	})
}

func (s *Server) merge(st *stream, shardID, adjacentID string, now time.Time) (*shard, *apiError) {
	a, err := s.openShard(st, shardID, now)
	if err != nil {
		return nil, err
	}
	b, err := s.openShard(st, adjacentID, now)
	if err != nil {
		return nil, err
	}
	low, high := a, b
	if high.keys.first.compare(low.keys.first) < 0 {
		low, high = high, low
	}
	if i := slices.Index(st.open, low); low == high || st.open[i+1] != high {
		return nil, errorf(InvalidArgument, "Shards %s and %s in stream %s under account %s are not an adjacent pair of shards eligible for merging",
			a.id, b.id, st.name, s.account)
	}
	return st.join(a, b, st.reshardTime(now)), nil
}

// openShard finds a shard that can be split or merged.
func (s *Server) openShard(st *stream, id string, now time.Time) (*shard, *apiError) {
	sh := st.find(id, now)
	switch {
	case st.shards[0].replay != nil:
		return nil, errorf(InvalidArgument, "Stream %s is replayed: it cannot be resharded.", st.name)
	case sh == nil:
		return nil, errorf(ResourceNotFound, "Could not find shard %s in stream %s under account %s.", id, st.name, s.account)
	case !sh.isOpen():
		return nil, errorf(ResourceInUse, "Shard %s in stream %s under account %s is closed.", id, st.name, s.account)
	}
	return sh, nil
}
