package kinesistest

import (
	"encoding/base64"
	"encoding/json"
	"slices"
	"time"
)

type hashKeyRange struct{ StartingHashKey, EndingHashKey string }

func (r hashRange) describe() hashKeyRange { return hashKeyRange{r.first.String(), r.last.String()} }

type sequenceRange struct {
	StartingSequenceNumber string
	EndingSequenceNumber   string `json:",omitempty"`
}

type shardDescription struct {
	ShardId               string
	ParentShardId         string `json:",omitempty"`
	AdjacentParentShardId string `json:",omitempty"`
	HashKeyRange          hashKeyRange
	SequenceNumberRange   sequenceRange
}

// childShard is a child as the end of its parent tells it.
type childShard struct {
	ShardId      string
	ParentShards []string
	HashKeyRange hashKeyRange
}

func (sh *shard) childShards() []childShard {
	children := make([]childShard, len(sh.children))
	for i, c := range sh.children {
		children[i] = childShard{c.id, shardIDs(c.parents), c.keys.describe()}
	}
	return children
}

// endingSequence is above the sequence number of every record of a closed shard.
func (sh *shard) endingSequence() string {
	if sh.isOpen() {
		return ""
	}
	return sh.sequence(maxRecordIndex, sh.closed).String()
}

func describeShards(shards []*shard) []shardDescription {
	out := make([]shardDescription, len(shards))
	for i, sh := range shards {
		out[i] = shardDescription{
			ShardId:             sh.id,
			HashKeyRange:        sh.keys.describe(),
			SequenceNumberRange: sequenceRange{sh.startingSequence(), sh.endingSequence()},
		}
		if len(sh.parents) > 0 {
			out[i].ParentShardId = sh.parents[0].id
		}
		if len(sh.parents) > 1 {
			out[i].AdjacentParentShardId = sh.parents[1].id
		}
	}
	return out
}

// after are the shards whose ID comes after one; all for "".
func after(shards []*shard, id string) []*shard {
	i := slices.IndexFunc(shards, func(sh *shard) bool { return sh.id > id })
	if i < 0 {
		return nil
	}
	return shards[i:]
}

type shardFilter struct {
	Type      string
	ShardId   string
	Timestamp *timestamp
}

// apply keeps the listed shards that the filter asks for.
func (f *shardFilter) apply(shards []*shard, now time.Time) ([]*shard, *apiError) {
	keep := func(test func(*shard) bool) ([]*shard, *apiError) {
		return slices.DeleteFunc(slices.Clone(shards), func(sh *shard) bool { return !test(sh) }), nil
	}
	switch f.Type {
	case "":
		return shards, nil
	case "AFTER_SHARD_ID":
		if f.ShardId == "" {
			return nil, errorf(InvalidArgument, "ShardId must be given for ShardFilter type AFTER_SHARD_ID.")
		}
		return after(shards, f.ShardId), nil
	case "AT_LATEST":
		return keep((*shard).isOpen)
	case "FROM_TRIM_HORIZON":
		return shards, nil
	case "AT_TRIM_HORIZON":
		// Open at the trim horizon are those whose parents were closed before it: they are forgotten, or never were.
		// By lineage, not by time, so that a split in the very moment of the stream's creation is told apart too.
		return keep(func(sh *shard) bool {
			return !slices.ContainsFunc(sh.parents, func(p *shard) bool { return slices.Contains(shards, p) })
		})
	case "AT_TIMESTAMP", "FROM_TIMESTAMP":
		if f.Timestamp == nil {
			return nil, errorf(InvalidArgument, "Timestamp must be given for ShardFilter type %s.", f.Type)
		}
		if f.Timestamp.After(now) {
			return nil, errorf(InvalidArgument, "Timestamp of ShardFilter must not be in the future.")
		}
		return keep(func(sh *shard) bool {
			open := sh.isOpen() || !sh.closed.Before(f.Timestamp.Time)
			return open && (f.Type == "FROM_TIMESTAMP" || !sh.created.After(f.Timestamp.Time))
		})
	}
	return nil, errorf(Validation, "1 validation error detected: Value '%s' at 'shardFilter.type' failed to satisfy constraint: Member must satisfy enum value set: "+
		"[AFTER_SHARD_ID, AT_TRIM_HORIZON, FROM_TRIM_HORIZON, AT_LATEST, AT_TIMESTAMP, FROM_TIMESTAMP]", f.Type)
}

type listShardsRequest struct {
	streamRef
	NextToken               string
	ExclusiveStartShardId   string
	MaxResults              *int
	StreamCreationTimestamp *timestamp
	ShardFilter             *shardFilter
}

// shardToken is what a listing's next page needs: AWS keeps the filter in it, as a request with a token names nothing else.
type shardToken struct {
	Stream  string
	Created int64
	After   string
	Filter  shardFilter
}

func (r *listShardsRequest) about(s *Server) (stream, shard string) {
	if r.NextToken == "" {
		return r.named(), ""
	}
	token, _ := s.readShardToken(r.NextToken, time.Time{})
	return token.Stream, ""
}

func (s *Server) readShardToken(text string, now time.Time) (shardToken, *apiError) {
	var token shardToken
	body, err := s.readToken(text, now)
	if err != nil {
		return token, err
	}
	if json.Unmarshal([]byte(body), &token) != nil {
		return token, errorf(InvalidArgument, "Invalid NextToken.")
	}
	return token, nil
}

func (r *listShardsRequest) do(s *Server, now time.Time) (any, *apiError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := checkRange("maxResults", r.MaxResults, 1, 10_000); err != nil {
		return nil, err
	}
	limit := 1000
	if r.MaxResults != nil {
		limit = *r.MaxResults
	}
	var st *stream
	var token shardToken
	var err *apiError
	if r.NextToken != "" {
		if r.StreamName != "" || r.StreamCreationTimestamp != nil || r.ExclusiveStartShardId != "" || r.ShardFilter != nil {
			return nil, errorf(InvalidArgument, "NextToken and StreamName, StreamCreationTimestamp, ExclusiveStartShardId or ShardFilter cannot be provided together.")
		}
		if token, err = s.readShardToken(r.NextToken, now); err != nil {
			return nil, err
		}
		if st, err = s.find(token.Stream, now); err == nil && st.created.UnixMilli() != token.Created {
			err = errorf(InvalidArgument, "Invalid NextToken.")
		}
	} else {
		if st, err = r.resolve(s, now); err != nil {
			return nil, err
		}
		token = shardToken{Stream: st.name, Created: st.created.UnixMilli(), After: r.ExclusiveStartShardId}
		if r.ShardFilter != nil {
			token.Filter = *r.ShardFilter
		}
		if r.StreamCreationTimestamp != nil && r.StreamCreationTimestamp.Unix() != st.created.Unix() {
			return nil, errorf(ResourceNotFound, "Stream %s under account %s with that creation time not found.", st.name, s.account)
		}
	}
	if err != nil {
		return nil, err
	}
	switch status := st.status(now); status {
	case "CREATING", "DELETING":
		return nil, errorf(ResourceInUse, "Stream %s under account %s is %s.", st.name, s.account, status)
	}
	shards, err := token.Filter.apply(st.listed(now), now)
	if err != nil {
		return nil, err
	}
	shards = after(shards, token.After)
	out := struct {
		Shards    []shardDescription
		NextToken string `json:",omitempty"`
	}{Shards: describeShards(shards[:min(limit, len(shards))])}
	if len(shards) > limit {
		token.After = shards[limit-1].id
		out.NextToken = s.writeToken(string(encode(token)), now)
	}
	return out, nil
}

// writeToken makes the token for a listing's next page; it lives as long as a shard iterator.
func (s *Server) writeToken(text string, now time.Time) string {
	b := encode(struct {
		Issued int64
		Text   string
	}{now.UnixMilli(), text})
	return base64.StdEncoding.EncodeToString(append(sign(s.key, b), b...))
}

// readToken reads one; at the zero time one that has expired too.
func (s *Server) readToken(token string, now time.Time) (string, *apiError) {
	var body struct {
		Issued int64
		Text   string
	}
	b, err := base64.StdEncoding.DecodeString(token)
	if err != nil || len(b) < iteratorSum || string(sign(s.key, b[iteratorSum:])) != string(b[:iteratorSum]) || json.Unmarshal(b[iteratorSum:], &body) != nil {
		return "", errorf(InvalidArgument, "Invalid NextToken.")
	}
	if !now.IsZero() && now.Sub(time.UnixMilli(body.Issued)) > iteratorLife {
		return "", errorf(ExpiredNextToken, "The pagination token passed to the operation is expired.")
	}
	return body.Text, nil
}
